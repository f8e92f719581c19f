//! Which of the passes run here: the best of the instruction set in force that this processor has.

use std::sync::OnceLock;

use crate::index::kernels::float::FloatKernel;
use crate::index::kernels::int8::Kernel;
#[cfg(target_arch = "aarch64")]
use crate::index::kernels::neon;
#[cfg(target_arch = "x86_64")]
use crate::index::kernels::{avx2, avx512, bf16, fma};
use crate::linalg;

#[cfg(target_arch = "x86_64")]
static INT8: [Kernel; 3] = [avx2::KERNEL, avx2::VNNI, avx512::KERNEL];
#[cfg(target_arch = "aarch64")]
static INT8: [Kernel; 2] = [neon::KERNEL, neon::DOT];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static INT8: [Kernel; 0] = [];

#[cfg(target_arch = "x86_64")]
static FLOAT: [FloatKernel; 2] = [
    FloatKernel {
        name: "f32",
        set: "avx2",
        usable: || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        scan: fma::scan,
    },
    FloatKernel {
        name: "bf16",
        set: "avx512",
        usable: || {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512bf16")
        },
        scan: bf16::scan,
    },
];
#[cfg(not(target_arch = "x86_64"))]
static FLOAT: [FloatKernel; 0] = [];

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
