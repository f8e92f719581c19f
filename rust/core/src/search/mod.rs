//! Exact nearest memories by inner product.

mod exact;
mod topk;

pub(crate) use exact::nearest;
pub(crate) use topk::Hit;
