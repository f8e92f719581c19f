//! A plain exact scan in the canonical arithmetic.

use crate::memory::Memories;
use crate::search::topk::{Hit, TopK};
use crate::simd;

/// The `k` memories of largest inner product with `x`, best first, ties by lower id.
pub(crate) fn nearest(memories: &Memories, x: &[f32], k: usize) -> Vec<Hit> {
    let mut top = TopK::new(k);
    for &slot in memories.in_order() {
        top.offer(Hit {
            slot,
            id: memories.id(slot),
            similarity: simd::dot(x, memories.key(slot)),
        });
    }
    top.into_sorted()
}
