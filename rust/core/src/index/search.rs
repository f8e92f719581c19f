//! Exact top-k by a ladder of first passes: int8 codes, then bf16 or f32, then every memory.
//!
//! All of them give the same ids and the same canonical similarities, bit for bit: a first pass only decides which
//! memories are worth the canonical arithmetic. A query climbs when a pass leaves it more candidates than comparing
//! them would be worth ([`Ladder::worth_comparing`]); that rule counts, so the same search takes the same way.

use std::ops::Range;

use crate::base::threads;
use crate::error::Result;
use crate::index::exact::{Bounded, Ladder, MIN_FLOAT_QUERIES};
use crate::index::indexed::{Indexed, Keys};
use crate::index::ivf::blocks::Partition;
use crate::index::ivf::visit::Visit;
use crate::index::kernels::int8::CHUNK;
use crate::index::report::SearchReport;
use crate::index::topk::Hit;

/// Memories below which a first pass does not pay.
const MIN_PASS_MEMORIES: usize = 512;
/// Queries between two looks at the token.
const QUERIES_PER_ROUND: usize = 8 * CHUNK;
/// Queries that look into blocks together.
const QUERIES_PER_VISIT: usize = 4096;

/// The `k` memories of largest inner product with each row of `queries`, best first, ties by lower id.
pub(crate) fn nearest<'a>(
    keys: impl Into<Keys<'a>>,
    queries: &'a [f32],
    k: usize,
    threads: Option<usize>,
) -> Result<Vec<Vec<Hit>>> {
    Ok(search(keys, queries, k, threads)?.0)
}

/// The same, and how it was found.
pub(crate) fn search<'a>(
    keys: impl Into<Keys<'a>>,
    queries: &'a [f32],
    k: usize,
    threads: Option<usize>,
) -> Result<(Vec<Vec<Hit>>, SearchReport)> {
    Ladder::of(keys, queries, k, threads).climb()
}

/// The memories nearest to each row of `queries` among those in its `nprobe` nearest blocks, best first; fewer than
/// `k` where the blocks hold fewer.
pub(crate) fn approximate(
    memories: &Indexed,
    partition: &Partition,
    queries: &[f32],
    k: usize,
    nprobe: usize,
    threads: Option<usize>,
) -> Result<(Vec<Vec<Hit>>, SearchReport)> {
    let ladder = Ladder::of(memories, queries, k, threads);
    let mut report = SearchReport::of(ladder.kernel.map(|kernel| kernel.name));
    let mut hits = Vec::with_capacity(ladder.rows.len());
    while hits.len() < ladder.rows.len() {
        let rows = hits.len()..(hits.len() + QUERIES_PER_VISIT).min(ladder.rows.len());
        let given = &queries[rows.start * memories.dim()..rows.end * memories.dim()];
        let ranked = nearest(Keys::centres(partition), given, nprobe, ladder.threads)?;
        let visit = Visit::of(&ladder, partition, rows);
        for (top, compared) in visit.nearest_blocks(&ranked, nprobe)? {
            hits.push(top);
            report.compared += compared;
            report.blocks += 1;
            report.probed += nprobe;
        }
    }
    Ok((hits, report))
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

impl Ladder<'_> {
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
        let blocks = self.blocks.filter(|blocks| blocks.prunes);
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
            if let (Some(kernel), Some(codes)) = (self.kernel, self.codes)
                && !few
                && codes_help
                && !round.unsure.is_empty()
            {
                let unsure = round.unsure.len();
                let left = self.by_codes(kernel, codes, &round.unsure)?;
                round.take("int8", left, self.worth_comparing(count));
                codes_help = !pilot || round.unsure.len() <= unsure / 2;
            }
            if let Some(kernel) = self.float_kernel
                && !few
                && round.unsure.len() >= MIN_FLOAT_QUERIES
            {
                let left = self.by_keys(kernel, &round.unsure)?;
                round.take(kernel.name, left, self.too_many());
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
}
