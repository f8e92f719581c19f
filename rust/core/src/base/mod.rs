//! What every layer may use: nothing here knows what a store is.

pub(crate) mod alloc;
pub(crate) mod cancel;
pub mod fpenv;
pub(crate) mod group_commit;
pub(crate) mod heap;
pub(crate) mod log;
pub(crate) mod sync;
pub(crate) mod threads;

pub(crate) use alloc::Huge;
pub(crate) use alloc::{afford, room};
pub(crate) use cancel::Cancel;
pub(crate) use group_commit::Disk;
pub(crate) use heap::{HeapSize, heap_sized, no_heap};
pub(crate) use log::Log;

/// Where a memory lies in the columns.
pub(crate) type Slot = u32;

/// `SplitMix64` (Steele, Lea & Flood 2014), a bijection of the counter that looks random: where the model needs "an
/// arbitrary one" and determinism needs "always the same one".
pub(crate) fn splitmix64(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
