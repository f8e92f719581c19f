//! Memory: what the machine has, and huge pages of it.

use std::ops::{Deref, DerefMut};

#[cfg(target_os = "linux")]
use rustix::mm::{Advice, madvise};

use crate::base::HeapSize;
use crate::error::{Error, Result, invalid_if};

/// Refuses what the machine's memory could never hold, before any of it is asked for: a failed allocation aborts.
pub(crate) fn afford(argument: &'static str, items: usize, size: usize) -> Result<()> {
    let there = machine();
    let wanted = items.checked_mul(size);
    invalid_if!(
        wanted.is_none_or(|wanted| wanted > there),
        argument,
        "the answer would take {items} × {size} bytes; this machine has {there} in all"
    );
    Ok(())
}

/// Room for so many bytes, which a file or a caller asks for.
pub(crate) fn room(bytes: usize) -> Result<Vec<u8>> {
    let mut room = Vec::new();
    let reserved = room.try_reserve_exact(bytes);
    reserved.map_err(|error| Error::Io(std::io::Error::other(error)))?;
    Ok(room)
}

/// The machine's memory in bytes, where the system tells.
fn machine() -> usize {
    #[cfg(target_os = "linux")]
    {
        let told = rustix::system::sysinfo();
        usize::try_from(told.totalram)
            .unwrap_or(usize::MAX)
            .saturating_mul(told.mem_unit as usize)
    }
    #[cfg(not(target_os = "linux"))]
    {
        usize::MAX / 4
    }
}

/// Bytes of a huge page.
const PAGE: usize = 1 << 21;
/// Bytes of a cache line.
const LINE: usize = 64;

/// A vector in huge pages where the system gives them, also when it grows or is cloned.
///
/// A sweep goes to the values of memories anywhere in tens of megabytes, edge support to their keys. With pages of 4 KB
/// most of those reads also miss the table of pages; with pages of 2 MB none does.
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

    /// Makes room for `more` if there is too little, and for an eighth: the next few do not have it copied again.
    pub(crate) fn reserve_for(&mut self, more: usize) {
        if self.0.capacity() - self.0.len() < more {
            self.reserve((more + (self.0.len() + more) / 8).max(self.0.len()));
        }
    }

    /// Appends elements.
    pub(crate) fn append(&mut self, elements: &[T]) {
        if self.0.capacity() - self.0.len() < elements.len() {
            self.reserve(elements.len().max(self.0.len()));
        }
        self.0.extend_from_slice(elements);
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
    // SAFETY: `zeros` is borrowed for this call, comes from the allocator and holds nothing but zeros. Memory of
    // allocators is private and anonymous: what was given up is zero when it is touched next (madvise(2)). A system
    // that refuses leaves it as it is.
    unsafe {
        madvise_within(zeros, Advice::LinuxDontNeed);
    }
}

fn advise<T>(memory: &mut [T]) {
    #[cfg(target_os = "linux")]
    // SAFETY: this advice changes how memory is backed, never what it holds.
    unsafe {
        madvise_within(memory, Advice::LinuxHugepage);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

/// Advises about the pages that lie in `memory` as a whole, if they fill huge ones. The advice need not be taken.
///
/// # Safety
/// After the advice, `memory` must still hold what its type says.
#[cfg(target_os = "linux")]
unsafe fn madvise_within<T>(memory: &mut [T], advice: Advice) {
    const SMALL: usize = 4096;
    if size_of_val(memory) < 2 * PAGE {
        return;
    }
    let begin = memory.as_mut_ptr().cast::<u8>();
    let skip = begin.align_offset(SMALL);
    let length = (size_of_val(memory) - skip) / SMALL * SMALL;
    // SAFETY: whole pages inside memory that is borrowed for this call; what becomes of it the caller answers for.
    let _ = unsafe { madvise(begin.wrapping_add(skip).cast(), length, advice) };
}

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
}
