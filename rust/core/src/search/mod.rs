//! Exact nearest memories by inner product.
//!
//! | part | what it does |
//! |---|---|
//! | `exact` | the search: first passes, certificate, canonical second pass |
//! | `sweep` | one pass, shared among threads |
//! | `codes`, `query` | int8 codes of keys and queries, and what they hide |
//! | `candidates` | who could be among the k best |
//! | `kernel` | the first passes over codes, and the choice among them |
//! | `avx2`, `avx512`, `neon` | one kernel a file |
//! | `wide` | the first passes over the keys themselves, where codes say too little |
//! | `bf16`, `fma` | one of these a file |
//! | `partition`, `kmeans` | memories in blocks around centres |
//! | `visit` | who looks into which block: all that matter, or the nearest few |
//! | `report` | which way a search went |
//! | `renew` | what an earlier search still says after some memories changed |
//! | `topk` | the k best, ties by lower id |

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod bf16;
mod candidates;
pub(crate) mod codes;
mod exact;
#[cfg(target_arch = "x86_64")]
mod fma;
mod kernel;
mod kmeans;
#[cfg(target_arch = "aarch64")]
mod neon;
pub(crate) mod partition;
pub(crate) mod probe;
mod query;
pub(crate) mod renew;
mod report;
mod sweep;
mod topk;
mod visit;
mod wide;

pub(crate) use exact::{nearest, search};
pub use partition::Partition;
pub use report::SearchReport;
pub(crate) use topk::Hit;
pub(crate) use visit::approximate;

/// Whether keys of `dim` numbers are searched through codes: there is a kernel, and the sums fit its 32 bits.
pub(crate) fn uses_codes(dim: usize) -> bool {
    kernel::Kernel::chosen().is_some() && dim <= codes::MOST_DIMENSIONS
}
