//! Huge pages for what is read at random.
//!
//! A sweep goes to the values of memories anywhere in tens of megabytes, edge support to their keys. With pages of
//! 4 KB most of those reads also miss the table of pages; with pages of 2 MB none does. On Linux one may ask for them.

use std::ops::{Deref, DerefMut};

use crate::copied;
use crate::error::Result;
use crate::replay::sleep::Interrupt;

/// A vector in huge pages where the system gives them, also when it grows or is cloned.
#[derive(Debug, PartialEq)]
pub(crate) struct Huge<T>(Vec<T>);

impl<T> Default for Huge<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy> Huge<T> {
    /// Appends `more` times `fill`.
    pub(crate) fn extend(&mut self, more: usize, fill: T) {
        if self.0.capacity() - self.0.len() < more {
            self.reserve(more.max(self.0.len()));
        }
        self.0.resize(self.0.len() + more, fill);
    }

    /// Makes room for `more`. The elements are copied: to have the system move them would keep their small pages.
    pub(crate) fn reserve(&mut self, more: usize) {
        let mut roomy = Vec::with_capacity(self.0.len() + more);
        advise(roomy.spare_capacity_mut());
        roomy.extend_from_slice(&self.0);
        self.0 = roomy;
    }

    /// Makes room for `more` if there is too little, unless that is given up: growing would copy everything in one piece.
    /// An eighth is left over, so that the next few do not have it copied again.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub(crate) fn reserve_for(&mut self, more: usize, interrupt: Interrupt<'_>) -> Result<()> {
        if self.0.capacity() - self.0.len() >= more {
            return Ok(());
        }
        let len = self.0.len();
        let room = (more + (len + more) / 8).max(len);
        let mut roomy = Self(Vec::with_capacity(len + room));
        advise(roomy.0.spare_capacity_mut());
        copied::append(&mut roomy.0, self, interrupt)?;
        *self = roomy;
        Ok(())
    }

    /// A copy, unless that is given up.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub(crate) fn copied(&self, interrupt: Interrupt<'_>) -> Result<Self> {
        let mut copy = Self::default();
        copy.reserve(self.len());
        copied::append(&mut copy.0, self, interrupt)?;
        Ok(copy)
    }

    /// Elements there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<T: Copy> Clone for Huge<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.reserve(self.len());
        copy.0.extend_from_slice(self);
        copy
    }
}

impl<T> Deref for Huge<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Huge<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// `vec![0.0; n]`, in huge pages where the system gives them.
pub(crate) fn zeros(n: usize) -> Vec<f32> {
    let mut zeros = vec![0.0; n];
    advise(&mut zeros);
    zeros
}

#[cfg(target_os = "linux")]
fn advise<T>(memory: &mut [T]) {
    use std::ffi::{c_int, c_void};

    const PAGE: usize = 4096;
    const HUGE: usize = 1 << 21;
    const MADV_HUGEPAGE: c_int = 14;
    unsafe extern "C" {
        fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
    }
    let bytes = size_of_val(memory);
    if bytes < 2 * HUGE {
        return;
    }
    let begin = memory.as_mut_ptr().cast::<u8>();
    let skip = begin.align_offset(PAGE);
    let length = (bytes - skip) / PAGE * PAGE;
    // SAFETY: whole pages inside memory that is borrowed for this call. The advice changes how the memory is
    // backed, never what it holds; a system that refuses it says so and does nothing.
    let _ = unsafe { madvise(begin.wrapping_add(skip).cast(), length, MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise<T>(_: &mut [T]) {}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_zero_and_writable_wherever_it_comes_from() {
        for n in [0, 1, 1000, (2 << 20) + 7] {
            let mut zeros = super::zeros(n);
            assert!(zeros.iter().all(|&x| x == 0.0));
            zeros.fill(1.0);
            assert_eq!(zeros.iter().filter(|&&x| x == 1.0).count(), n);
        }
    }

    #[test]
    fn a_vector_keeps_what_it_holds_as_it_grows() {
        let mut rows = super::Huge::default();
        for row in 0..3000usize {
            rows.extend(1000, row);
        }
        assert!(rows.capacity() >= 3_000_000);
        let copy = rows.clone();
        rows.reserve_for(4_000_000, &|| false).unwrap();
        assert!(rows.capacity() > 7_500_000);
        rows.reserve_for(4_000_000, &|| true).unwrap(); // there is room, so nobody asks
        assert!(rows.reserve_for(9_000_000, &|| true).is_err());
        rows[0] = 7;
        assert!(copy.iter().enumerate().all(|(at, &row)| row == at / 1000));
    }
}
