//! The first passes over the keys themselves, for queries to which int8 codes leave too many candidates.
//!
//! | pass | arithmetic | tile |
//! |---|---|---|
//! | `bf16` | AVX-512 BF16, keys rounded a block at a time | 12 keys × 32 queries |
//! | `f32` | AVX2 with FMA | 6 keys × 16 queries |
//!
//! Here the queries lie side by side and the keys are read as they are, so no second copy of the
//! store is kept up to date.

use std::ops::Range;

use crate::base::Slot;
use crate::index::Candidates;
use crate::memory::Memories;

/// Queries of one piece of work: enough of them that rounding a block of keys costs little.
pub(crate) const CHUNK: usize = 256;

/// Half of the distance from 1 to the next f32, and twice that: what one rounding to nearest changes, and what
/// any rounding does.
const NEAREST: f32 = f32::EPSILON / 2.0;
const ANY: f32 = f32::EPSILON;

/// Offers the memories of some slots to the candidates of some queries.
///
/// # Safety
/// The processor must have the instructions of the pass.
pub(crate) type Scan = unsafe fn(&Memories, Range<usize>, &[&[f32]], &mut [Candidates]);

/// One way to run such a pass.
pub(crate) struct FloatKernel {
    pub(crate) name: &'static str,
    /// The instruction set, as `SHARPWAVE_SIMD` calls it.
    pub(crate) set: &'static str,
    pub(crate) usable: fn() -> bool,
    pub(crate) scan: Scan,
}

impl FloatKernel {
    /// Slots of one part of the work: 1 MB of keys.
    pub(crate) fn slots_of_a_part(dim: usize) -> usize {
        ((1 << 18) / dim).max(64)
    }

    /// Offers every memory in `slots` that could matter to the candidates of its queries, rows of unit length.
    pub(crate) fn scan(
        &self,
        memories: &Memories,
        slots: Range<usize>,
        queries: &[&[f32]],
        candidates: &mut [Candidates],
    ) {
        // SAFETY: a pass is only handed out where `usable()` has said so.
        unsafe { (self.scan)(memories, slots, queries, candidates) };
    }
}

/// The largest error of a pass's similarities, by query: `hidden·per_hidden + slack`, with the key's `hidden`.
///
/// For unit `x = x̂ + e_x` and `k = k̂ + e_k`, what was rounded away costs
/// `|⟨x,k⟩ − ⟨x̂,k̂⟩| ≤ ‖e_x‖‖k‖ + ‖x̂‖‖e_k‖` (Cauchy–Schwarz); `roundings` additions or multiplications in a row,
/// each with a relative error of `unit` at most, cost `roundings·unit·‖x̂‖‖k̂‖` (Higham 2002, 3.1); and so do
/// the `d/32 + 6` of the canonical dot, which is what the bound is for.
pub(crate) struct Bounds<const LANES: usize> {
    per_hidden: [f32; LANES],
    slack: [f32; LANES],
    threshold: [f32; LANES],
}

impl<const LANES: usize> Bounds<LANES> {
    /// Of bf16 products: of each two, added one after the other, no more than three results are rounded, in
    /// whatever way.
    pub(crate) fn of_bf16(dim: usize, hidden: &[f32]) -> Self {
        Self::new(dim, hidden, (1.5 * dim as f32 + 3.0) * ANY)
    }

    /// Of fused f32 products, one after the other.
    pub(crate) fn of_f32(dim: usize, queries: usize) -> Self {
        Self::new(dim, &vec![0.0; queries], (dim as f32 + 1.0) * NEAREST)
    }

    fn new(dim: usize, hidden: &[f32], rounding: f32) -> Self {
        let canonical = (dim as f32 / 32.0 + 6.0) * NEAREST;
        let mut bounds = Self {
            per_hidden: [0.0; LANES],
            slack: [0.0; LANES],
            // Lanes without a query let nothing pass.
            threshold: [f32::INFINITY; LANES],
        };
        for (lane, hidden) in hidden.iter().enumerate() {
            bounds.per_hidden[lane] = (1.0 + hidden) * 1.000_01;
            // The last summand covers the arithmetic of the bounds, on numbers of size 1.
            bounds.slack[lane] = hidden * 1.000_01 + (rounding + canonical) * 1.05 + 2e-6;
        }
        bounds
    }

    /// Reads the current thresholds.
    pub(crate) fn refresh(&mut self, candidates: &[Candidates]) {
        for (threshold, candidates) in self.threshold.iter_mut().zip(candidates) {
            *threshold = candidates.threshold;
        }
    }

    /// Offers one key to every query.
    #[inline(always)]
    #[allow(clippy::inline_always)] // To be compiled for the instruction set of the kernel around it.
    pub(crate) fn settle(
        &mut self,
        memories: &Memories,
        slot: usize,
        about: &[f32; LANES],
        hidden: f32,
        candidates: &mut [Candidates],
    ) {
        let mut slack = [0.0f32; LANES];
        let mut passed = 0;
        for lane in 0..LANES {
            slack[lane] = hidden * self.per_hidden[lane] + self.slack[lane];
            passed += u32::from(about[lane] + slack[lane] >= self.threshold[lane]);
        }
        if passed > 0 && memories.columns().ids[slot] >= 0 {
            for (lane, candidates) in candidates.iter_mut().enumerate() {
                if about[lane] + slack[lane] >= self.threshold[lane] {
                    candidates.offer(slot as Slot, about[lane], slack[lane]);
                    self.threshold[lane] = candidates.threshold;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::kernels::int8::tests::row;
    use crate::linalg;

    /// Every bound holds: above and below the canonical similarity.
    #[test]
    fn every_pass_knows_how_wrong_it_is() {
        let dims = (1..=40).chain([63, 64, 65, 127, 129, 383, 384, 385, 1000, 1024, 2099, 2100]);
        for (case, dim) in dims.enumerate() {
            let (slots, case) = (1 + 37 * case % 131, case as u64);
            let rows: Vec<f32> = (0..slots as u64)
                .flat_map(|id| row(id, dim, case << 10 | id))
                .collect();
            let mut memories = Memories::of_rows(&rows, dim);
            for gone in (1..slots).filter(|slot| slot % 11 == 5) {
                memories.remove(gone as Slot);
            }
            for kernel in FloatKernel::available() {
                for count in [1, 2, 15, 16, 17, 31, 32, 33, 70] {
                    let queries: Vec<Vec<f32>> = (0..count)
                        .map(|q| row(q + case, dim, q << 40 | 1))
                        .collect();
                    let rows: Vec<&[f32]> = queries.iter().map(Vec::as_slice).collect();
                    let mut found = vec![Candidates::new(memories.len(), 1 << 20); rows.len()];
                    kernel.scan(&memories, 0..slots, &rows, &mut found);
                    for (query, found) in rows.iter().zip(&found) {
                        let mut exact: Vec<f32> = Vec::new();
                        assert_eq!(found.seen.len(), memories.len());
                        for &(upper, slot) in &found.seen {
                            exact.push(linalg::dot(query, memories.key(slot)));
                            let exact = exact[exact.len() - 1];
                            assert!(upper >= exact, "{} {dim}: {upper} < {exact}", kernel.name);
                            assert!(upper - exact < 0.05, "{} {dim}: of no use", kernel.name);
                        }
                        exact.sort_by(|a, b| b.total_cmp(a));
                        let pairs = found.lower.iter().zip(&exact);
                        assert!(pairs.into_iter().all(|(lower, exact)| lower <= exact));
                    }
                }
            }
        }
    }
}
