//! The first passes of a search, one file for each instruction set, and the choice among them: the best of the instruction
//! set in force that this processor has.

use std::sync::OnceLock;

use crate::index::kernels::float::FloatKernel;
use crate::index::kernels::int8::Kernel;
use crate::linalg;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16;
pub(crate) mod float;
#[cfg(target_arch = "x86_64")]
pub(crate) mod fma;
pub(crate) mod int8;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;

static INT8: &[Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    avx2::KERNEL,
    #[cfg(target_arch = "x86_64")]
    avx2::VNNI,
    #[cfg(target_arch = "x86_64")]
    avx512::KERNEL,
    #[cfg(target_arch = "aarch64")]
    neon::KERNEL,
    #[cfg(target_arch = "aarch64")]
    neon::DOT,
];
static FLOAT: &[FloatKernel] = &[
    #[cfg(target_arch = "x86_64")]
    fma::KERNEL,
    #[cfg(target_arch = "x86_64")]
    bf16::KERNEL,
];

macro_rules! choose {
    ($kernel:ident from $all:ident) => {
        impl $kernel {
            /// Those that this processor can run, best last.
            pub(crate) fn available() -> impl DoubleEndedIterator<Item = &'static Self> {
                $all.iter().filter(|kernel| (kernel.usable)())
            }

            /// The best of the instruction set in force or a lesser one, if there is any.
            pub(crate) fn chosen() -> Option<&'static Self> {
                static CHOSEN: OnceLock<Option<&'static $kernel>> = OnceLock::new();
                *CHOSEN.get_or_init(|| {
                    let sets = linalg::up_to_the_one_in_force();
                    Self::available().rfind(|kernel| sets.contains(&kernel.set))
                })
            }
        }
    };
}

choose!(Kernel from INT8);
choose!(FloatKernel from FLOAT);
