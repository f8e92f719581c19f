//! Exact passes over all memories: first passes that say which memories could be among the k best, and the canonical
//! comparison of those.

use crate::base::{Slot, threads};
use crate::error::Result;
use crate::index::kernels::float;
use crate::index::kernels::float::FloatKernel;
use crate::index::kernels::int8::{CHUNK, Kernel};
use crate::index::{Candidates, Codes, Grid, Hit, Keys, Partition, Query, Tile, TopK};
use crate::linalg;
use crate::memory::Memories;

/// Candidates and the upper bounds of their similarities, falling.
pub(crate) type Bounded = Vec<(f32, Slot)>;

/// The fewest queries for which a pass over the keys pays.
pub(crate) const MIN_FLOAT_QUERIES: usize = 16;
/// Prefetch distance, in candidates.
const PREFETCH_CANDIDATES: usize = 8;
/// How many codes are multiplied in the time of one ordinary multiplication, as [`threads::worth_waking`] counts them.
const CODES_PER_MULTIPLICATION: usize = 128;
/// How many bytes of codes come from memory in the time of one ordinary multiplication.
const BYTES_PER_MULTIPLICATION: usize = 12;

/// The approximate cost of a search, as [`threads::worth_waking`] counts it: multiplications, or reads for few queries.
fn cost(queries: &[f32], memories: &Memories) -> usize {
    let n = memories.len();
    (queries.len() * n / CODES_PER_MULTIPLICATION)
        .max(memories.dim() * n / BYTES_PER_MULTIPLICATION)
}

/// One search.
pub(crate) struct Search<'a> {
    pub(crate) memories: &'a Memories,
    pub(crate) codes: Option<&'a Codes>,
    pub(crate) blocks: Option<&'a Partition>,
    pub(crate) rows: Vec<&'a [f32]>,
    pub(crate) k: usize,
    pub(crate) threads: Option<usize>,
    /// As [`threads::worth_waking`] counts it.
    pub(crate) cost: usize,
    pub(crate) kernel: Option<&'static Kernel>,
    pub(crate) float_kernel: Option<&'static FloatKernel>,
}

impl<'a> Search<'a> {
    pub(crate) fn of(
        keys: impl Into<Keys<'a>>,
        queries: &'a [f32],
        k: usize,
        threads: Option<usize>,
    ) -> Self {
        let Keys {
            memories,
            codes,
            blocks,
        } = keys.into();
        let cost = cost(queries, memories);
        Self {
            memories,
            codes,
            blocks,
            rows: queries.chunks_exact(memories.dim()).collect(),
            k,
            threads: threads::worth_waking(threads, cost),
            cost,
            kernel: Kernel::chosen(),
            float_kernel: FloatKernel::chosen(),
        }
    }

    /// The candidates of some rows after the int8 pass.
    pub(crate) fn by_codes(
        &self,
        kernel: &Kernel,
        codes: &Codes,
        rows: &[usize],
    ) -> Result<Vec<Option<Bounded>>> {
        let encoded = |at| kernel.query(self.rows[rows[at]]);
        let queries: Vec<Query> = threads::map(rows.len(), self.threads, encoded)?;
        let parts = Kernel::parts(codes);
        let grid = self.grid(rows.len(), CHUNK, parts.len());
        let pieces = (0..grid.pieces()).map(|at| kernel.tiles(&queries[grid.rows(at)]));
        let pieces: Vec<Vec<Tile>> = pieces.collect();
        let scan = |piece: usize, part: usize, candidates: &mut [Candidates]| {
            kernel.scan(codes, parts[part].clone(), &pieces[piece], candidates);
        };
        grid.sweep(self.threads, scan, |candidates| self.left(candidates))
    }

    /// The candidates of some rows after a pass over the keys.
    pub(crate) fn by_keys(
        &self,
        kernel: &FloatKernel,
        rows: &[usize],
    ) -> Result<Vec<Option<Bounded>>> {
        let queries: Vec<&[f32]> = rows.iter().map(|&row| self.rows[row]).collect();
        let slots = self.memories.slots();
        let part = FloatKernel::slots_of_a_part(self.memories.dim());
        let grid = self.grid(rows.len(), float::CHUNK, slots.div_ceil(part));
        let scan = |piece: usize, at: usize, candidates: &mut [Candidates]| {
            let slots = at * part..((at + 1) * part).min(slots);
            kernel.scan(self.memories, slots, &queries[grid.rows(piece)], candidates);
        };
        grid.sweep(self.threads, scan, |candidates| self.left(candidates))
    }

    /// The candidates of a query by falling bound; `None` where there are too many.
    pub(crate) fn left(&self, candidates: &Candidates) -> Option<Bounded> {
        candidates
            .left()
            .filter(|left| left.len() <= self.too_many())
    }

    fn grid(&self, queries: usize, piece: usize, parts: usize) -> Grid {
        Grid {
            queries,
            piece,
            parts,
            k: self.k,
            memories: self.memories.len(),
        }
    }

    /// How many candidates a query may have before the next pass pays.
    ///
    /// Measured (Zen 5, 384 and 1024 dimensions, 100k memories): to compare one in sixty-four of all memories takes
    /// as long as the bf16 pass over all of them, whose rounding of the keys is shared by its queries.
    pub(crate) fn worth_comparing(&self, queries: usize) -> usize {
        let n = self.memories.len();
        if self.float_kernel.is_some() && queries >= MIN_FLOAT_QUERIES {
            n / 64 + n / queries.min(float::CHUNK)
        } else {
            self.too_many()
        }
    }

    /// Comparing this many candidates, out of order and out of the cache, takes as long as comparing all memories in order.
    pub(crate) fn too_many(&self) -> usize {
        self.memories.len() / 4
    }

    /// The k best of the candidates, and how many were compared. The candidates of the `next` query are prefetched towards
    /// the end.
    pub(crate) fn compare(
        &self,
        row: usize,
        bounded: &[(f32, Slot)],
        next: &[(f32, Slot)],
    ) -> (Vec<Hit>, usize) {
        let mut top = TopK::new(self.k);
        let last = self.k.saturating_sub(PREFETCH_CANDIDATES);
        for (at, &(upper, slot)) in bounded.iter().enumerate() {
            if top.worst().is_some_and(|worst| upper < worst) {
                return (top.into_sorted(), at);
            }
            let soon = bounded.get(at + PREFETCH_CANDIDATES);
            // At least k are compared.
            let then = at.checked_sub(last).filter(|&at| at < PREFETCH_CANDIDATES);
            let then = then.and_then(|at| next.get(at));
            for &(_, later) in soon.into_iter().chain(then) {
                linalg::prefetch(self.memories.key(later));
            }
            top.offer(self.hit(row, slot));
        }
        (top.into_sorted(), bounded.len())
    }

    /// The best of all memories.
    pub(crate) fn compare_all(&self, row: usize) -> (Vec<Hit>, usize) {
        let mut top = TopK::new(self.k);
        for &slot in self.memories.in_order() {
            top.offer(self.hit(row, slot));
        }
        (top.into_sorted(), self.memories.len())
    }

    pub(crate) fn hit(&self, row: usize, slot: Slot) -> Hit {
        Hit {
            slot,
            id: self.memories.id(slot),
            similarity: linalg::dot(self.rows[row], self.memories.key(slot)),
        }
    }
}
