//! A first pass over all memories, shared among threads.
//!
//! The work is a grid: pieces of the queries by parts of the store. Threads take the next cell when they are done
//! with one, so none waits for a slower one, and keep what they found until the end. Who saw which cell decides
//! who was worth keeping meanwhile, but not who is in the end: that is the k-th best lower bound of all.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Result;
use crate::interrupt;
use crate::parallel;
use crate::search::candidates::Candidates;

/// Entries that the candidates of a piece may hold, in all: 64 MB.
const ENTRIES: usize = 8 << 20;

/// The cells of one pass.
pub(super) struct Grid {
    pub(super) queries: usize,
    /// Queries of a piece at most.
    pub(super) piece: usize,
    pub(super) parts: usize,
    pub(super) k: usize,
    pub(super) memories: usize,
    /// Whether it takes ten milliseconds or more.
    pub(super) long: bool,
}

impl Grid {
    /// Pieces of the queries, of even size.
    pub(super) fn pieces(&self) -> usize {
        self.queries.div_ceil(self.piece)
    }

    /// The queries of a piece.
    pub(super) fn rows(&self, piece: usize) -> Range<usize> {
        let pieces = self.pieces();
        self.queries * piece / pieces..self.queries * (piece + 1) / pieces
    }

    /// Calls `scan(piece, part, candidates)` for every cell; returns the candidates of every query.
    pub(super) fn sweep(
        &self,
        threads: Option<usize>,
        scan: impl Fn(usize, usize, &mut [Candidates]) + Sync,
    ) -> Result<Vec<Candidates>> {
        let pieces = self.pieces();
        let most = (self.memories / 8).max(4 * self.k);
        let most = most.max(ENTRIES / self.queries.min(self.piece));
        let cells = pieces * self.parts;
        let workers = threads.unwrap_or_else(parallel::num_threads).min(cells);
        let next = AtomicUsize::new(0);
        let found = parallel::map_where(workers, threads, self.long, |_| {
            let mut mine: Vec<Vec<Candidates>> = vec![Vec::new(); pieces];
            loop {
                let cell = next.fetch_add(1, Ordering::Relaxed);
                if cell >= cells {
                    return mine;
                }
                if interrupt::enough() {
                    next.store(cells, Ordering::Relaxed);
                    return mine;
                }
                let (at, part) = (cell / self.parts, cell % self.parts);
                if mine[at].is_empty() {
                    mine[at] = vec![Candidates::new(self.k, most); self.rows(at).len()];
                }
                scan(at, part, &mut mine[at]);
            }
        })?;
        interrupt::check()?;
        let mut all = vec![Candidates::new(self.k, most); self.queries];
        for (at, mine) in found
            .into_iter()
            .flat_map(|mine| mine.into_iter().enumerate())
        {
            for (all, mine) in all[self.rows(at)].iter_mut().zip(mine) {
                all.join(mine);
            }
        }
        Ok(all)
    }
}
