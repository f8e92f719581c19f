//! Exact top-k by a ladder of first passes: int8 codes, then bf16 or f32, then every memory.
//!
//! All of them give the same ids and the same canonical similarities, bit for bit: a first pass only decides which
//! memories are worth the canonical arithmetic. A query climbs when a pass leaves it more candidates than comparing
//! them would be worth ([`Ladder::worth_comparing`]); that rule counts, so the same search takes the same way.

use std::ops::Range;

use crate::base::slot::Slot;
use crate::base::threads;
use crate::error::Result;
use crate::index::candidates::Candidates;
use crate::index::ivf::visit::Visit;
use crate::index::kernels::float::{self, Wide};
use crate::index::kernels::int8::{CHUNK, Kernel};
use crate::index::quantize::Codes;
use crate::index::query::{Query, Tile};
use crate::index::report::SearchReport;
use crate::index::scan::Grid;
use crate::index::topk::{Hit, TopK};
use crate::linalg;
use crate::memory::columns::Memories;

/// Candidates and the upper bounds of their similarities, falling.
type Bounded = Vec<(f32, Slot)>;

/// Memories below which a first pass does not pay.
const MIN_PASS_MEMORIES: usize = 512;
/// Queries that a pass over the keys themselves is worth starting for.
const MIN_FLOAT_QUERIES: usize = 16;
/// Candidates between the one compared and the one fetched from memory meanwhile.
const PREFETCH_CANDIDATES: usize = 8;
/// How many codes are multiplied in the time of one ordinary multiplication, as [`threads::worth_waking`] counts them.
const CODES_PER_MULTIPLICATION: usize = 128;
/// How many bytes of codes come from memory in the time of one ordinary multiplication.
const BYTES_PER_MULTIPLICATION: usize = 12;
/// Queries between two looks at the token.
const QUERIES_PER_ROUND: usize = 8 * CHUNK;

/// The `k` memories of largest inner product with each row of `queries`, best first, ties by lower id.
pub(crate) fn nearest(
    memories: &Memories,
    queries: &[f32],
    k: usize,
    threads: Option<usize>,
) -> Result<Vec<Vec<Hit>>> {
    Ok(search(memories, queries, k, threads)?.0)
}

/// The same, and how it was found.
pub(crate) fn search(
    memories: &Memories,
    queries: &[f32],
    k: usize,
    threads: Option<usize>,
) -> Result<(Vec<Vec<Hit>>, SearchReport)> {
    Ladder::of(memories, queries, k, threads).climb()
}

/// About what a search costs, as [`threads::worth_waking`] counts it: what is multiplied, or read where queries are few.
fn cost(queries: &[f32], memories: &Memories) -> usize {
    let n = memories.len();
    (queries.len() * n / CODES_PER_MULTIPLICATION)
        .max(memories.dim() * n / BYTES_PER_MULTIPLICATION)
}

/// One search.
pub(crate) struct Ladder<'a> {
    pub(crate) memories: &'a Memories,
    pub(crate) rows: Vec<&'a [f32]>,
    pub(crate) k: usize,
    pub(crate) threads: Option<usize>,
    /// As [`threads::worth_waking`] counts it.
    cost: usize,
    pub(crate) kernel: Option<&'static Kernel>,
    wide: Option<&'static Wide>,
}

/// Some queries on their way.
struct Round {
    first: usize,
    /// What the last pass left to each, and its name.
    found: Vec<Option<(&'static str, Bounded)>>,
    /// The queries for which the next pass pays.
    unsure: Vec<usize>,
}

impl Round {
    fn of(rows: Range<usize>) -> Self {
        Self {
            first: rows.start,
            found: vec![None; rows.len()],
            unsure: rows.collect(),
        }
    }

    /// Takes what a pass left to the unsure queries: no more than `most` candidates settle a query.
    fn take(&mut self, pass: &'static str, left: Vec<Option<Bounded>>, most: usize) {
        for (row, bounded) in std::mem::take(&mut self.unsure).into_iter().zip(left) {
            if bounded.as_ref().is_none_or(|left| left.len() > most) {
                self.unsure.push(row);
            }
            if let Some(bounded) = bounded {
                self.found[row - self.first] = Some((pass, bounded));
            }
        }
    }
}

impl<'a> Ladder<'a> {
    pub(crate) fn of(
        memories: &'a Memories,
        queries: &'a [f32],
        k: usize,
        threads: Option<usize>,
    ) -> Self {
        let cost = cost(queries, memories);
        Self {
            memories,
            rows: queries.chunks_exact(memories.dim()).collect(),
            k,
            threads: threads::worth_waking(threads, cost),
            cost,
            kernel: Kernel::chosen(),
            wide: Wide::chosen(),
        }
    }

    fn climb(&self) -> Result<(Vec<Vec<Hit>>, SearchReport)> {
        threads::together(self.threads, self.cost, || self.climbed())
    }

    fn climbed(&self) -> Result<(Vec<Vec<Hit>>, SearchReport)> {
        let mut report = SearchReport::of(self.kernel.map(|kernel| kernel.name));
        let n = self.rows.len();
        let mut hits = Vec::with_capacity(n);
        let few = self.memories.len() < MIN_PASS_MEMORIES || self.k > self.memories.len() / 8;
        // The first queries of a large batch tell whether codes are of use to the rest.
        let mut codes_help = true;
        let blocks = self.memories.partition().filter(|blocks| blocks.prunes);
        let mut blocks_help = blocks.is_some() && !few;
        while hits.len() < n {
            let first = hits.len();
            let pilot = first == 0 && n > CHUNK;
            let count = (n - first).min(if pilot { CHUNK } else { QUERIES_PER_ROUND });
            let mut round = Round::of(first..first + count);
            if let Some(partition) = blocks
                && blocks_help
            {
                let visit = Visit::of(self, partition, first..first + count);
                let (candidates, probed) = visit.certified()?;
                let left = threads::map(candidates.len(), self.threads, |at| {
                    self.left(&candidates[at])
                })?;
                round.take("blocks", left, self.too_many());
                report.probed += probed;
                blocks_help = round.unsure.len() <= count / 2;
            }
            if let (Some(kernel), Some(codes)) = (self.kernel, self.memories.codes())
                && !few
                && codes_help
                && !round.unsure.is_empty()
            {
                let unsure = round.unsure.len();
                let left = self.by_codes(kernel, codes, &round.unsure)?;
                round.take("int8", left, self.worth_comparing(count));
                codes_help = !pilot || round.unsure.len() <= unsure / 2;
            }
            if let Some(wide) = self.wide
                && !few
                && round.unsure.len() >= MIN_FLOAT_QUERIES
            {
                let left = self.by_keys(wide, &round.unsure)?;
                round.take(wide.name, left, self.too_many());
            }
            let found = round.found;
            for found in &found {
                report.count(found.as_ref().map_or("plain", |found| found.0));
            }
            let compare = |at: usize| match &found[at] {
                Some((_, bounded)) => {
                    let next = found.get(at + 1).and_then(Option::as_ref);
                    let next = next.map_or(&[][..], |(_, next)| next);
                    self.compare(first + at, bounded, next)
                }
                None => self.compare_all(first + at),
            };
            let compared = threads::map(count, self.threads, compare)?;
            for (top, compared) in compared {
                hits.push(top);
                report.compared += compared;
            }
        }
        Ok((hits, report))
    }

    /// The candidates that int8 codes leave to each of some rows.
    fn by_codes(
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

    /// The candidates that a pass over the keys leaves.
    fn by_keys(&self, wide: &Wide, rows: &[usize]) -> Result<Vec<Option<Bounded>>> {
        let queries: Vec<&[f32]> = rows.iter().map(|&row| self.rows[row]).collect();
        let slots = self.memories.slots();
        let part = Wide::slots_of_a_part(self.memories.dim());
        let grid = self.grid(rows.len(), float::CHUNK, slots.div_ceil(part));
        let scan = |piece: usize, at: usize, candidates: &mut [Candidates]| {
            let slots = at * part..((at + 1) * part).min(slots);
            wide.scan(self.memories, slots, &queries[grid.rows(piece)], candidates);
        };
        grid.sweep(self.threads, scan, |candidates| self.left(candidates))
    }

    /// The candidates left to a query, by falling bound; none where they are too many to be of use.
    fn left(&self, candidates: &Candidates) -> Option<Bounded> {
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
    fn worth_comparing(&self, queries: usize) -> usize {
        let n = self.memories.len();
        if self.wide.is_some() && queries >= MIN_FLOAT_QUERIES {
            n / 64 + n / queries.min(float::CHUNK)
        } else {
            self.too_many()
        }
    }

    /// So many candidates, out of order and out of the cache, take as long as all memories in order.
    fn too_many(&self) -> usize {
        self.memories.len() / 4
    }

    /// The best of the candidates, and how many it took to tell. Those of the `next` query are fetched towards the end.
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
    fn compare_all(&self, row: usize) -> (Vec<Hit>, usize) {
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
