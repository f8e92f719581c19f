//! Exact top-k by a sequence of first passes: int8 codes, then bf16 or f32, then every memory.
//!
//! All of them give the same ids and the same canonical similarities, bit for bit: a first pass only decides which
//! memories get the canonical arithmetic. A query goes to the next pass when one leaves it too many candidates
//! ([`Search::worth_comparing`]). That rule counts candidates, so the same search takes the same passes.

use std::ops::Range;

use crate::base::threads;
use crate::error::Result;
use crate::index::ivf::block_search::BlockSearch;
use crate::index::kernels::int8::CHUNK;
use crate::index::{Bounded, Hit, Indexed, Keys, MIN_FLOAT_QUERIES, Partition, Search};

/// Memories below which a first pass does not pay.
const MIN_PASS_MEMORIES: usize = 512;
/// Queries between two checks of the cancel token.
const QUERIES_PER_ROUND: usize = 8 * CHUNK;
/// Queries that scan blocks together.
const QUERIES_PER_BLOCK_SEARCH: usize = 4096;

/// The `k` memories of largest inner product with each row of `queries`, best first, ties by lower id.
pub(crate) fn nearest<'a>(
    keys: impl Into<Keys<'a>>,
    queries: &'a [f32],
    k: usize,
    threads: Option<usize>,
) -> Result<Vec<Vec<Hit>>> {
    Ok(search(keys, queries, k, threads)?.0)
}

/// The same, and which passes found it.
pub(crate) fn search<'a>(
    keys: impl Into<Keys<'a>>,
    queries: &'a [f32],
    k: usize,
    threads: Option<usize>,
) -> Result<(Vec<Vec<Hit>>, SearchReport)> {
    Search::of(keys, queries, k, threads).run()
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
    let search = Search::of(memories, queries, k, threads);
    let mut report = SearchReport::of(search.kernel.map(|kernel| kernel.name));
    let mut hits = Vec::with_capacity(search.rows.len());
    while hits.len() < search.rows.len() {
        let rows = hits.len()..(hits.len() + QUERIES_PER_BLOCK_SEARCH).min(search.rows.len());
        let given = &queries[rows.start * memories.dim()..rows.end * memories.dim()];
        let ranked = nearest(Keys::centres(partition), given, nprobe, search.threads)?;
        let scan = BlockSearch::of(&search, partition, rows);
        for (top, compared) in scan.nearest_blocks(&ranked, nprobe)? {
            hits.push(top);
            report.compared += compared;
            report.blocks += 1;
            report.probed += nprobe;
        }
    }
    Ok((hits, report))
}

/// The state of some queries between passes.
struct Round {
    first: usize,
    /// The candidates of each query after its last pass, and the name of the pass.
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

    /// Takes the candidates of the unsure queries: a query with at most `most` is settled.
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

impl Search<'_> {
    fn run(&self) -> Result<(Vec<Vec<Hit>>, SearchReport)> {
        threads::with_team(self.threads, self.cost, || self.passes())
    }

    fn passes(&self) -> Result<(Vec<Vec<Hit>>, SearchReport)> {
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
                let scan = BlockSearch::of(self, partition, first..first + count);
                let (candidates, probed) = scan.certified()?;
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

/// Which passes answered the queries of a search. They never change what is found, only the time it takes.
///
/// It depends on the data and on the instruction set, and not on the number of threads, except for queries with
/// too many candidates.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SearchReport {
    /// The kernel of the int8 pass, as `"avx512-vnni"`, if this processor has one.
    pub kernel: Option<&'static str>,
    /// Queries answered through the blocks of a partition.
    pub blocks: usize,
    /// Queries answered through int8 codes of all memories.
    pub int8: usize,
    /// Queries answered through a bf16 pass over the keys.
    pub bf16: usize,
    /// Queries answered through a fused f32 pass over the keys.
    pub f32: usize,
    /// Queries compared with every memory.
    pub plain: usize,
    /// Blocks looked into, in all.
    pub probed: usize,
    /// Similarities computed in the canonical arithmetic, in all.
    pub compared: usize,
}

impl SearchReport {
    pub(crate) fn of(kernel: Option<&'static str>) -> Self {
        Self {
            kernel,
            ..Self::default()
        }
    }

    /// Counts a query by the name of the pass that settled it.
    pub(crate) fn count(&mut self, pass: &str) {
        match pass {
            "blocks" => self.blocks += 1,
            "int8" => self.int8 += 1,
            "bf16" => self.bf16 += 1,
            "f32" => self.f32 += 1,
            _ => self.plain += 1,
        }
    }
}
