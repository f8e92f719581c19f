//! Exact nearest memories by inner product.
//!
//! | part | what it does |
//! |---|---|
//! | `indexed` | the memories with their codes and blocks |
//! | `search` | the order of the passes, and the report of those taken |
//! | `exact` | first passes over all memories, canonical second pass |
//! | `scan` | one pass, shared among threads |
//! | `quantize` | int8 codes of keys and queries, and their rounding errors |
//! | `candidates` | which memories could be among the k best |
//! | `kernels` | the choice among the passes |
//! | `kernels::int8` | the first passes over codes |
//! | `kernels::{avx2, avx512, neon}` | one kernel a file |
//! | `kernels::float` | the first passes over the keys themselves, where codes say too little |
//! | `kernels::{bf16, fma}` | one of these a file |
//! | `ivf::{blocks, kmeans}` | memories in blocks around centres |
//! | `ivf::block_search` | which query scans which block: all that matter, or the nearest few |
//! | `incremental` | an earlier search kept up to date while memories change |
//! | `topk` | the k best, ties by lower id |

pub(crate) mod activation;
pub(crate) mod candidates;
pub(crate) mod exact;
pub(crate) mod incremental;
pub(crate) mod indexed;
pub(crate) mod ivf;
pub(crate) mod kernels;
pub(crate) mod probe;
pub(crate) mod quantize;
pub(crate) mod scan;
pub(crate) mod search;
pub(crate) mod topk;

pub use activation::Kernel;
pub(crate) use activation::{Activation, activate, kappa, merge_novelty};
pub(crate) use candidates::Candidates;
pub(crate) use exact::{Bounded, MIN_FLOAT_QUERIES, Search};
pub(crate) use incremental::{MAX_WINDOW_STEPS, Nearest, Window};
pub(crate) use indexed::{Indexed, Keys};
pub use ivf::blocks::Partition;
pub(crate) use quantize::{Codes, PANEL, Query, Tile};
pub(crate) use scan::Grid;
pub use search::SearchReport;
pub(crate) use search::{approximate, nearest, search};
pub(crate) use topk::Hit;
pub(crate) use topk::{TopK, pad};

/// Whether keys of `dim` numbers are searched through codes: there is a kernel, and the sums fit its 32 bits.
pub(crate) fn uses_codes(dim: usize) -> bool {
    kernels::int8::Kernel::chosen().is_some() && dim <= quantize::MAX_DIMENSIONS
}

/// The codes of the rows of `keys` `(n, dim)`, if they are searched through codes.
pub(crate) fn encode(keys: &[f32], dim: usize) -> crate::error::Result<Option<quantize::Codes>> {
    uses_codes(dim)
        .then(|| quantize::Codes::of_rows(keys, dim))
        .transpose()
}
