//! The first passes of a search, one file for each instruction set.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16;
pub(crate) mod choice;
pub(crate) mod float;
#[cfg(target_arch = "x86_64")]
pub(crate) mod fma;
pub(crate) mod int8;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
