//! The floating-point environment of a thread, pinned to IEEE defaults.
//!
//! A host program may have told its threads to flush subnormals to zero (`torch.set_flush_denormal`),
//! which would change results. Every computation therefore runs inside [`pinned`].

/// Runs `f` with round-to-nearest and subnormals honoured, and puts the thread's own settings back.
pub fn pinned<T>(f: impl FnOnce() -> T) -> T {
    let _guard = Guard::new();
    f()
}

/// Pins the calling thread for good; for threads that are ours.
pub(crate) fn pin_thread() {
    std::mem::forget(Guard::new());
}

struct Guard {
    saved: u64,
}

impl Guard {
    fn new() -> Self {
        let saved = read();
        write(pinned_value(saved));
        Self { saved }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        write(self.saved);
    }
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use std::arch::asm;

    /// All exceptions masked, round to nearest, FTZ and DAZ off: the value at process start.
    pub(super) fn pinned_value(_: u64) -> u64 {
        0x1F80
    }

    pub(super) fn read() -> u64 {
        let mut control = 0u32;
        // SAFETY: `stmxcsr` stores 4 bytes at the address of a live, writable u32.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut control, options(nostack)) };
        u64::from(control)
    }

    pub(super) fn write(control: u64) {
        let control = control as u32;
        // SAFETY: `ldmxcsr` reads 4 bytes of a live u32 that holds a value read from the register
        // or the constant above, so no reserved bit is set.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack, readonly)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod imp {
    use std::arch::asm;

    /// Clears FZ (24), FZ16 (19) and the rounding mode (22, 23); keeps the rest.
    pub(super) fn pinned_value(control: u64) -> u64 {
        control & !0x01C8_0000
    }

    pub(super) fn read() -> u64 {
        let control: u64;
        // SAFETY: reading FPCR has no side effect.
        unsafe { asm!("mrs {}, fpcr", out(reg) control, options(nomem, nostack)) };
        control
    }

    pub(super) fn write(control: u64) {
        // SAFETY: the value was read from FPCR, with documented bits cleared at most.
        unsafe { asm!("msr fpcr, {}", in(reg) control, options(nomem, nostack)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod imp {
    pub(super) fn pinned_value(control: u64) -> u64 {
        control
    }
    pub(super) fn read() -> u64 {
        0
    }
    pub(super) fn write(_: u64) {}
}

use imp::{pinned_value, read, write};

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn a_flushing_thread_is_pinned_and_restored() {
        let before = read();
        write(before | 0x8040); // FTZ and DAZ, as torch.set_flush_denormal does
        let tiny = std::hint::black_box(f32::MIN_POSITIVE);
        let halved = pinned(|| std::hint::black_box(tiny) * std::hint::black_box(0.5));
        // By its bits: with DAZ back on, a comparison of floats would call it zero.
        assert_eq!(halved.to_bits(), 0x0040_0000);
        // The low six bits are sticky exception flags, not settings.
        assert_eq!(read() & !0x3F, (before | 0x8040) & !0x3F);
        write(before);
    }
}
