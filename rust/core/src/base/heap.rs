//! How much memory a value holds beside itself, from the types it is made of.
//!
//! [`heap_sized!`] declares a type and counts all of its fields, so no column goes uncounted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Bytes held beside the value itself.
pub(crate) trait HeapSize {
    /// Whether no value of the type holds any.
    const NONE: bool = false;

    fn heap_size(&self) -> usize;
}

/// Declares a type whose heap size is the sum of its fields'.
macro_rules! heap_sized {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident $(<$of:ident>)? {
            $($(#[$about:meta])* $access:vis $field:ident: $kind:ty,)*
        }
    ) => {
        $(#[$meta])*
        $vis struct $name $(<$of>)? {
            $($(#[$about])* $access $field: $kind,)*
        }

        impl $(<$of: $crate::base::heap::HeapSize>)? $crate::base::heap::HeapSize for $name $(<$of>)? {
            fn heap_size(&self) -> usize {
                0 $(+ $crate::base::heap::HeapSize::heap_size(&self.$field))*
            }
        }
    };
}
pub(crate) use heap_sized;

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
