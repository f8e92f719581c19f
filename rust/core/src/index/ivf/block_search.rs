//! Searching a partition: which query scans which block.
//!
//! All queries of a block scan it together, as tiles against its panels. There are two passes: first the nearest
//! blocks, which give a lower bound of the k-th best; then all blocks that can hold better ([`BlockSearch::certified`]),
//! or as many of the next nearest as were asked for ([`BlockSearch::nearest_blocks`]). Which blocks are scanned is
//! decided between the passes, so no result or report depends on the number of threads.

use std::ops::Range;

use crate::base::{Slot, threads};
use crate::error::Result;
use crate::index::kernels::int8::{CHUNK, Kernel};
use crate::index::{Candidates, Codes, Hit, Indexed, Partition, Query, Search, TopK};

/// Blocks that a certified search scans first.
const FIRST_BLOCKS: usize = 2;
/// Entries that the candidates of those may hold, in all: 64 MB.
const MAX_ENTRIES: usize = 8 << 20;
/// Memories on which it is measured whether bounds leave out enough.
const SAMPLE_MEMORIES: usize = 64;
/// k of that measurement.
const SAMPLE_K: usize = 16;

/// Some queries of a search, answered from blocks.
pub(crate) struct BlockSearch<'a> {
    search: &'a Search<'a>,
    partition: &'a Partition,
    rows: Range<usize>,
}

/// Whether a certified search, tried on a sample of the memories, scans few enough blocks to be worth it.
pub(crate) fn prunes(
    memories: &Indexed,
    partition: &Partition,
    threads: Option<usize>,
) -> Result<bool> {
    let order = memories.in_order();
    let step = order.len().div_ceil(SAMPLE_MEMORIES).max(1);
    let sample: Vec<f32> = order
        .iter()
        .step_by(step)
        .flat_map(|&slot| memories.key(slot))
        .copied()
        .collect();
    let search = Search::of(memories, &sample, SAMPLE_K, threads);
    let blocks = BlockSearch::of(&search, partition, 0..search.rows.len());
    let (candidates, _) = blocks.certified()?;
    let left = candidates.iter().filter_map(Candidates::left).count();
    Ok(left > search.rows.len() / 2)
}

impl<'a> BlockSearch<'a> {
    pub(crate) fn of(search: &'a Search<'a>, partition: &'a Partition, rows: Range<usize>) -> Self {
        Self {
            search,
            partition,
            rows,
        }
    }

    /// The candidates of each query ([`Candidates::useless`] where too many are left), and how many blocks were scanned.
    pub(crate) fn certified(&self) -> Result<(Vec<Candidates>, usize)> {
        let (Some(kernel), Some(codes)) = (self.search.kernel, &self.partition.codes) else {
            return Ok((vec![Candidates::useless(); self.rows.len()], 0));
        };
        let queries = self.queries(kernel);
        let rows = &self.search.rows[self.rows.clone()];
        let mut bounds = self.partition.bounds(rows, self.search.threads)?;
        let mut all = vec![self.no_candidates(); rows.len()];
        let mut probed = 0;

        let mut queries_by_block = vec![Vec::new(); self.partition.blocks()];
        for (row, bounds) in bounds.iter_mut().enumerate() {
            // Blocks of equal bounds are taken in their order.
            for _ in 0..FIRST_BLOCKS {
                let best =
                    (1..bounds.len()).fold(
                        0,
                        |best, at| {
                            if bounds[at] > bounds[best] { at } else { best }
                        },
                    );
                if bounds[best] > f32::NEG_INFINITY {
                    bounds[best] = f32::NEG_INFINITY;
                    queries_by_block[best].push(row);
                    probed += 1;
                }
            }
        }
        self.scan_blocks(kernel, codes, &queries, &queries_by_block, &mut all)?;

        let mut queries_by_block = vec![Vec::new(); self.partition.blocks()];
        for (row, bounds) in bounds.iter().enumerate() {
            let needed = all[row].threshold;
            let matter = || {
                (0..bounds.len())
                    .filter(|&at| bounds[at] >= needed && bounds[at] > f32::NEG_INFINITY)
            };
            let members: usize = matter().map(|at| self.partition.blocks[at].len).sum();
            if members > self.search.memories.len() / 3 {
                all[row] = Candidates::useless();
                continue;
            }
            for block in matter() {
                queries_by_block[block].push(row);
                probed += 1;
            }
        }
        self.scan_blocks(kernel, codes, &queries, &queries_by_block, &mut all)?;
        for candidates in &mut all {
            candidates.rename(|place| self.partition.slot(place));
        }
        Ok((all, probed))
    }

    /// The best members of the `nprobe` nearest blocks (`ranked`, by query), and how many memories were compared.
    pub(crate) fn nearest_blocks(
        &self,
        ranked: &[Vec<Hit>],
        nprobe: usize,
    ) -> Result<Vec<(Vec<Hit>, usize)>> {
        let (search, partition) = (self.search, self.partition);
        let mut all = vec![Candidates::useless(); self.rows.len()];
        if let (Some(kernel), Some(codes)) = (search.kernel, &partition.codes) {
            let queries = self.queries(kernel);
            all.fill(self.no_candidates());
            for pass in [0..1, 1..nprobe] {
                let mut queries_by_block = vec![Vec::new(); partition.blocks()];
                for (row, hits) in ranked.iter().enumerate() {
                    for hit in &hits[pass.clone()] {
                        queries_by_block[hit.slot as usize].push(row);
                    }
                }
                self.scan_blocks(kernel, codes, &queries, &queries_by_block, &mut all)?;
            }
        }
        let left: Vec<Option<Vec<(f32, Slot)>>> = all
            .into_iter()
            .map(|mut candidates| {
                candidates.rename(|place| partition.slot(place));
                candidates.left()
            })
            .collect();
        threads::map(left.len(), search.threads, |at| match &left[at] {
            Some(bounded) => {
                let next = left.get(at + 1).and_then(Option::as_deref);
                search.compare(self.rows.start + at, bounded, next.unwrap_or_default())
            }
            None => self.compare_all(at, &ranked[at]),
        })
    }

    /// The best of all members of blocks.
    fn compare_all(&self, at: usize, blocks: &[Hit]) -> (Vec<Hit>, usize) {
        let mut top = TopK::new(self.search.k);
        let mut compared = 0;
        for block in blocks {
            for slot in self.partition.members(block.slot as usize) {
                top.offer(self.search.hit(self.rows.start + at, slot));
                compared += 1;
            }
        }
        (top.into_sorted(), compared)
    }

    fn queries(&self, kernel: &Kernel) -> Vec<Query> {
        let rows = &self.search.rows[self.rows.clone()];
        rows.iter().map(|row| kernel.query(row)).collect()
    }

    fn no_candidates(&self) -> Candidates {
        let k = self.search.k;
        Candidates::new(k, (MAX_ENTRIES / self.rows.len().max(1)).max(4 * k))
    }

    /// Offers the members of each block to the queries that scan it.
    fn scan_blocks(
        &self,
        kernel: &Kernel,
        codes: &Codes,
        queries: &[Query],
        queries_by_block: &[Vec<usize>],
        all: &mut [Candidates],
    ) -> Result<()> {
        let cells: Vec<(usize, &[usize])> = queries_by_block
            .iter()
            .enumerate()
            .flat_map(|(block, rows)| rows.chunks(CHUNK).map(move |rows| (block, rows)))
            .collect();
        let before: &[Candidates] = all;
        let begin = || before.iter().map(Candidates::above).collect();
        let work = |mine: &mut Vec<Candidates>, cell: usize| {
            let (block, rows) = cells[cell];
            let tiles = kernel.tiles(rows.iter().map(|&row| &queries[row]));
            let mut theirs: Vec<Candidates> = rows
                .iter()
                .map(|&row| std::mem::take(&mut mine[row]))
                .collect();
            let panels = self.partition.blocks[block].panels.iter();
            let panels = panels.map(|&panel| panel as usize);
            kernel.scan(codes, panels, &tiles, &mut theirs);
            for (&row, theirs) in rows.iter().zip(theirs) {
                mine[row] = theirs;
            }
        };
        let found = threads::take_cells(cells.len(), self.search.threads, begin, work)?;
        for mine in found {
            for (all, mine) in all.iter_mut().zip(&mine) {
                all.join(mine);
            }
        }
        Ok(())
    }
}
