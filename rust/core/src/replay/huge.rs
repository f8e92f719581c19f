//! Huge pages for what is read at random.
//!
//! A sweep goes to the values of memories anywhere in tens of megabytes. With pages of 4 KB most of those
//! reads also miss the table of pages; with pages of 2 MB none does. On Linux one may ask for them.

/// `vec![0.0; n]`, in huge pages where the system gives them.
pub(crate) fn zeros(n: usize) -> Vec<f32> {
    let mut zeros = vec![0.0; n];
    advise(&mut zeros);
    zeros
}

#[cfg(target_os = "linux")]
fn advise(memory: &mut [f32]) {
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
fn advise(_: &mut [f32]) {}

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
}
