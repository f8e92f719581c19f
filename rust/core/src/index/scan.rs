//! A first pass over all memories, shared among threads.
//!
//! The work is a grid: pieces of the queries by parts of the store. A thread takes the next cell when it is done with
//! one, so none waits for a slower one, and keeps its candidates until the end. Between two cells the threads share
//! their thresholds. The order of the cells changes which candidates are kept meanwhile, but not the result: the final
//! threshold is the k-th best lower bound of all.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::threads;
use crate::error::Result;
use crate::index::Candidates;
use crate::linalg::{from_ordered_bits, ordered_bits};

/// Entries that the candidates of a piece may hold, in all: 64 MB.
const MAX_ENTRIES: usize = 8 << 20;

/// The cells of one pass.
pub(crate) struct Grid {
    pub(crate) queries: usize,
    /// Queries of a piece at most.
    pub(crate) piece: usize,
    pub(crate) parts: usize,
    pub(crate) k: usize,
    pub(crate) memories: usize,
}

impl Grid {
    /// Pieces of the queries, of even size.
    pub(crate) fn pieces(&self) -> usize {
        self.queries.div_ceil(self.piece)
    }

    /// The queries of a piece.
    pub(crate) fn rows(&self, piece: usize) -> Range<usize> {
        let pieces = self.pieces();
        self.queries * piece / pieces..self.queries * (piece + 1) / pieces
    }

    /// Calls `scan(piece, part, candidates)` for every cell; returns the `outcome` of the candidates of every query.
    pub(crate) fn sweep<T: Send>(
        &self,
        threads: Option<usize>,
        scan: impl Fn(usize, usize, &mut [Candidates]) + Sync,
        outcome: impl Fn(&Candidates) -> T + Sync + Send,
    ) -> Result<Vec<T>> {
        let pieces = self.pieces();
        let most = (self.memories / 8).max(4 * self.k);
        let most = most.max(MAX_ENTRIES / self.queries.min(self.piece));
        let cells = pieces * self.parts;
        // One thread shares its threshold with none.
        let shared =
            (threads::participants(cells, threads) > 1).then(|| SharedThresholds::of(self.queries));
        let begin = || vec![Vec::new(); pieces];
        let found = threads::take_cells(cells, threads, begin, |mine, cell| {
            let (at, part) = (cell / self.parts, cell % self.parts);
            if mine[at].is_empty() {
                mine[at] = vec![Candidates::new(self.k, most); self.rows(at).len()];
            }
            if let Some(shared) = &shared {
                shared.raise(self.rows(at), &mut mine[at]);
            }
            scan(at, part, &mut mine[at]);
            if let Some(shared) = &shared {
                shared.publish(self.rows(at), &mine[at]);
            }
        })?;
        let pieces: Vec<Range<usize>> = (0..pieces).map(|at| self.rows(at)).collect();
        threads::map(self.queries, threads, |query| {
            let at = pieces.partition_point(|rows| rows.end <= query);
            let mut parts = found
                .iter()
                .filter_map(|mine| mine[at].get(query - pieces[at].start));
            let first = parts.next().expect("somebody saw the first cell");
            let Some(second) = parts.next() else {
                return outcome(first);
            };
            let mut all = first.clone();
            for part in std::iter::once(second).chain(parts) {
                all.join(part);
            }
            outcome(&all)
        })
    }
}

/// For each query the best threshold of all threads so far: a similarity that k memories are known to reach.
struct SharedThresholds(Vec<AtomicU32>);

impl SharedThresholds {
    fn of(queries: usize) -> Self {
        let none = ordered_bits(f32::NEG_INFINITY);
        Self((0..queries).map(|_| AtomicU32::new(none)).collect())
    }

    fn raise(&self, rows: Range<usize>, candidates: &mut [Candidates]) {
        for (floor, candidates) in self.0[rows].iter().zip(candidates) {
            candidates.raise(from_ordered_bits(floor.load(Ordering::Relaxed)));
        }
    }

    fn publish(&self, rows: Range<usize>, candidates: &[Candidates]) {
        for (floor, candidates) in self.0[rows].iter().zip(candidates) {
            floor.fetch_max(ordered_bits(candidates.threshold), Ordering::Relaxed);
        }
    }
}
