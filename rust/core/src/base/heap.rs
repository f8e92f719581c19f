//! How much memory a value holds beside itself, from the types it is made of.
//!
//! [`heap_size!`] takes every field of a type: one that is left out does not compile, so no column goes uncounted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Bytes held beside the value itself.
pub(crate) trait HeapSize {
    /// Whether no value of the type holds any.
    const NONE: bool = false;

    fn heap_size(&self) -> usize;
}

/// The heap size of a type that is the sum of its fields: all of them are to be named.
macro_rules! heap_size {
    (for $of:ident: $kind:ty { $($field:ident),+ $(,)? }) => {
        heap_size!(@ [<$of: $crate::base::heap::HeapSize>] $kind { $($field),+ });
    };
    (@ [$($of:tt)*] $kind:ty { $($field:ident),+ }) => {
        impl $($of)* $crate::base::heap::HeapSize for $kind {
            fn heap_size(&self) -> usize {
                let Self { $($field),+ } = self;
                0 $(+ $crate::base::heap::HeapSize::heap_size($field))+
            }
        }
    };
    ($kind:ty { $($field:ident),+ $(,)? }) => {
        heap_size!(@ [] $kind { $($field),+ });
    };
}
pub(crate) use heap_size;

/// Types whose values hold nothing.
macro_rules! no_heap {
    ($($kind:ty),+ $(,)?) => {$(
        impl $crate::base::heap::HeapSize for $kind {
            const NONE: bool = true;

            fn heap_size(&self) -> usize {
                0
            }
        }
    )+};
}
pub(crate) use no_heap;

no_heap!((), bool, u8, u32, u64, usize, i64, f32, f64);

/// What the elements hold.
pub(crate) fn elements<T: HeapSize>(elements: &[T]) -> usize {
    if T::NONE {
        0
    } else {
        elements.iter().map(T::heap_size).sum()
    }
}

impl<T: HeapSize> HeapSize for Vec<T> {
    fn heap_size(&self) -> usize {
        self.capacity() * size_of::<T>() + elements(self)
    }
}

impl<T: HeapSize> HeapSize for Option<T> {
    const NONE: bool = T::NONE;

    fn heap_size(&self) -> usize {
        self.as_ref().map_or(0, T::heap_size)
    }
}

impl<A: HeapSize, B: HeapSize> HeapSize for (A, B) {
    const NONE: bool = A::NONE && B::NONE;

    fn heap_size(&self) -> usize {
        self.0.heap_size() + self.1.heap_size()
    }
}

impl<T: HeapSize> HeapSize for Box<T> {
    fn heap_size(&self) -> usize {
        size_of::<T>() + T::heap_size(self)
    }
}

/// The two counts of an [`Arc`].
const COUNTS: usize = 2 * size_of::<usize>();

impl<T: HeapSize> HeapSize for Arc<T> {
    fn heap_size(&self) -> usize {
        COUNTS + size_of::<T>() + T::heap_size(self)
    }
}

impl<T: HeapSize> HeapSize for Arc<[T]> {
    fn heap_size(&self) -> usize {
        COUNTS + size_of_val::<[T]>(self) + elements(self)
    }
}

impl HeapSize for Box<str> {
    fn heap_size(&self) -> usize {
        self.len()
    }
}

impl HeapSize for String {
    fn heap_size(&self) -> usize {
        self.capacity()
    }
}

impl<K: HeapSize, V: HeapSize> HeapSize for HashMap<K, V> {
    fn heap_size(&self) -> usize {
        const { assert!(K::NONE && V::NONE, "what entries hold is not counted") };
        // Seven of eight places may be taken, or three of four; each has a byte of its own, and there are 16 more.
        let places = match self.capacity() {
            0 => return 0,
            capacity @ 1..7 => capacity + 1,
            capacity => capacity / 7 * 8,
        };
        places * (size_of::<(K, V)>() + 1) + 16
    }
}

impl<T: HeapSize> HeapSize for BTreeSet<T> {
    fn heap_size(&self) -> usize {
        const { assert!(T::NONE, "what elements hold is not counted") };
        // Nodes of eleven, of which two thirds are taken on the average.
        self.len() * size_of::<T>() * 3 / 2 + self.len() * 3
    }
}
