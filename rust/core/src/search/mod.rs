//! Exact nearest memories by inner product.
//!
//! | part | what it does |
//! |---|---|
//! | `exact` | the search: first pass, certificate, canonical second pass |
//! | `codes`, `query` | int8 codes of keys and queries, and what they hide |
//! | `candidates` | who could be among the k best |
//! | `vnni` | the first pass on AVX-512 VNNI |
//! | `renew` | what an earlier search still says after some memories changed |
//! | `topk` | the k best, ties by lower id |

#[cfg(target_arch = "x86_64")]
mod candidates;
pub(crate) mod codes;
mod exact;
#[cfg(target_arch = "x86_64")]
mod query;
pub(crate) mod renew;
mod topk;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub(crate) use exact::nearest;
pub(crate) use topk::Hit;

/// Whether this process searches through codes: the processor can, and no lesser instruction set is forced.
pub(crate) fn uses_codes(dim: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        crate::simd::instruction_set() == "avx512"
            && vnni::available()
            && dim <= codes::MOST_DIMENSIONS
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = dim;
        false
    }
}
