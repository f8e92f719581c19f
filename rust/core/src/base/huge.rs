//! Huge pages for what is read at random.
//!
//! A sweep goes to the values of memories anywhere in tens of megabytes, edge support to their keys. With pages of
//! 4 KB most of those reads also miss the table of pages; with pages of 2 MB none does. On Linux one may ask for them.

use std::ops::{Deref, DerefMut};

use crate::base::copied;
use crate::base::heap::HeapSize;
use crate::base::interrupt::Interrupt;
use crate::error::Result;

/// Bytes of a huge page.
const PAGE: usize = 1 << 21;
/// Bytes of a cache line.
const LINE: usize = 64;

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

    /// Appends elements.
    pub(crate) fn append(&mut self, elements: &[T]) {
        if self.0.capacity() - self.0.len() < elements.len() {
            self.reserve(elements.len().max(self.0.len()));
        }
        self.0.extend_from_slice(elements);
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

    /// Keeps the first `len` elements; the room stays.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

impl<T: HeapSize> HeapSize for Huge<T> {
    fn heap_size(&self) -> usize {
        self.0.heap_size()
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

/// Zeros, and where `n` of them begin: with a cache line, or with a huge page if they fill more than one.
pub(crate) fn zeros(n: usize) -> (Vec<f32>, usize) {
    const NUMBERS: usize = PAGE / size_of::<f32>();
    // With room for the rest of the last page, so that it can be a huge one.
    let (room, align) = if n > NUMBERS {
        (n + 2 * NUMBERS, PAGE)
    } else {
        (n + LINE / size_of::<f32>(), LINE)
    };
    let mut zeros = vec![0.0; room];
    let first = zeros.as_ptr().align_offset(align).min(room - n);
    renew(&mut zeros[first..]);
    (zeros, first)
}

/// Has the system give new pages, huge ones, for zeros. What an allocator gives may have been used before, and has small
/// pages for good then.
fn renew(zeros: &mut [f32]) {
    advise(zeros);
    #[cfg(target_os = "linux")]
    if size_of_val(zeros) >= 2 * PAGE {
        const MADV_DONTNEED: linux::Advice = 4;
        // SAFETY: `zeros` is borrowed for this call, comes from the allocator and holds nothing but zeros. Memory of
        // allocators is private and anonymous: what was given up is zero when it is touched next (madvise(2)). A system
        // that refuses leaves it as it is.
        unsafe { linux::madvise_within(zeros, MADV_DONTNEED) };
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::{c_int, c_void};

    pub(super) type Advice = c_int;

    unsafe extern "C" {
        fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
    }

    /// Advises about the pages that lie in `memory` as a whole. The advice need not be taken.
    ///
    /// # Safety
    /// After the advice, `memory` must still hold what its type says.
    pub(super) unsafe fn madvise_within<T>(memory: &mut [T], advice: Advice) {
        const SMALL: usize = 4096;
        let begin = memory.as_mut_ptr().cast::<u8>();
        let skip = begin.align_offset(SMALL);
        let length = size_of_val(memory).saturating_sub(skip) / SMALL * SMALL;
        if length > 0 {
            // SAFETY: whole pages inside memory that is borrowed for this call; what becomes of it the caller answers for.
            let _ = unsafe { madvise(begin.wrapping_add(skip).cast(), length, advice) };
        }
    }
}

#[cfg(target_os = "linux")]
fn advise<T>(memory: &mut [T]) {
    const MADV_HUGEPAGE: linux::Advice = 14;
    if size_of_val(memory) >= 2 * PAGE {
        // SAFETY: this advice changes how memory is backed, never what it holds.
        unsafe { linux::madvise_within(memory, MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise<T>(_: &mut [T]) {}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_zero_and_writable_wherever_it_comes_from() {
        for n in [0, 1, 1000, (1 << 19) + 1, (9 << 20) + 7] {
            // The second time in memory that was used before.
            for _ in 0..2 {
                let (mut zeros, first) = super::zeros(n);
                let zeros = &mut zeros[first..first + n];
                assert_eq!(zeros.as_ptr() as usize % super::LINE, 0);
                assert!(zeros.iter().all(|&x| x == 0.0));
                zeros.fill(1.0);
                assert_eq!(zeros.iter().filter(|&&x| x == 1.0).count(), n);
            }
        }
    }

    #[test]
    fn a_vector_keeps_what_it_holds_as_it_grows() {
        let mut rows = super::Huge::default();
        for row in 0..3000usize {
            rows.extend(1000, row);
        }
        assert!(rows.0.capacity() >= 3_000_000);
        let copy = rows.clone();
        rows.reserve_for(4_000_000, &|| false).unwrap();
        assert!(rows.0.capacity() > 7_500_000);
        rows.reserve_for(4_000_000, &|| true).unwrap(); // there is room, so nobody asks
        assert!(rows.reserve_for(9_000_000, &|| true).is_err());
        rows[0] = 7;
        assert!(copy.iter().enumerate().all(|(at, &row)| row == at / 1000));
    }
}
