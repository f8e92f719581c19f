//! Dividing the memories into blocks, for searches that need not look at all of them.

use crate::error::{Error, Result, invalid_if};
use crate::index::Partition;
use crate::store::Store;

/// Queries on which a recall is measured at most.
const SAMPLE: usize = 64;

impl Store {
    /// Divides the memories into blocks by k-means, in the place of an earlier division: `blocks` of them, by default
    /// the square root of the number of memories. The same for a seed, on any number of threads.
    ///
    /// Exact searches then leave out blocks that cannot matter, where that pays, and [`Store::search_reported`] can be
    /// told how many to look into. New memories join the nearest block. It is an index: no part of the digest or of
    /// snapshots.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0 blocks or more than there are memories, or bad `threads`.
    pub fn partition(
        &mut self,
        blocks: Option<usize>,
        seed: u64,
        threads: Option<usize>,
    ) -> Result<()> {
        let partition = self.divided(blocks, seed, threads)?;
        self.adopt(partition)
    }

    /// The partition that [`Store::partition`] would make, for [`Store::adopt`]: so that others may read meanwhile.
    ///
    /// # Errors
    /// As [`Store::partition`].
    pub fn divided(
        &self,
        blocks: Option<usize>,
        seed: u64,
        threads: Option<usize>,
    ) -> Result<Partition> {
        let n = self.len();
        let blocks = blocks.unwrap_or_else(|| ((n as f64).sqrt().round() as usize).max(1));
        let inside = (1..=n).contains(&blocks);
        invalid_if!(!inside, "blocks", "{blocks} blocks for {n} memories");
        Partition::of(&self.memories, blocks, seed, threads)
    }

    /// Takes a partition that was made of these memories.
    ///
    /// # Errors
    /// [`Error::State`] if they have changed since.
    pub fn adopt(&mut self, partition: Partition) -> Result<()> {
        if !partition.is_of(&self.memories) {
            return Err(Error::State(
                "the memories have changed since they were divided".into(),
            ));
        }
        self.memories.adopt(partition);
        Ok(())
    }

    /// How many blocks the memories are divided into, if they are.
    #[must_use]
    pub fn blocks(&self) -> Option<usize> {
        self.memories.partition().map(Partition::blocks)
    }

    /// The share of the exact `k` nearest that a search in `nprobe` blocks finds, measured on no more than 64 of
    /// the queries, evenly spaced.
    ///
    /// # Errors
    /// As [`Store::search_reported`].
    pub fn recall_at(
        &self,
        queries: &[f32],
        k: usize,
        nprobe: usize,
        threads: Option<usize>,
    ) -> Result<f64> {
        let dim = self.config.dim;
        let step = (queries.len() / dim).div_ceil(SAMPLE).max(1);
        // What is left of an incomplete row is refused by the search.
        let sample: Vec<f32> = queries
            .chunks(dim)
            .step_by(step)
            .flatten()
            .copied()
            .collect();
        let (found, _, _) = self.search_reported(&sample, k, Some(nprobe), threads)?;
        let (exact, _) = self.search(&sample, k, threads)?;
        let (mut hits, mut all) = (0u32, 0u32);
        for (found, exact) in found.chunks_exact(k).zip(exact.chunks_exact(k)) {
            let exact = exact.iter().filter(|&&id| id >= 0);
            all += exact.clone().count() as u32;
            hits += exact.filter(|id| found.contains(id)).count() as u32;
        }
        Ok(if all == 0 {
            1.0
        } else {
            f64::from(hits) / f64::from(all)
        })
    }

    /// Divides the memories as those of another store are, if they are.
    pub(crate) fn partition_as(&mut self, other: &Self) -> Result<()> {
        if let Some(partition) = other.memories.partition()
            && !self.is_empty()
        {
            let blocks = partition.blocks().min(self.len());
            self.partition(Some(blocks), partition.seed(), None)?;
        }
        Ok(())
    }

    /// The partition to look into `nprobe` blocks of, if that is not all of them.
    pub(crate) fn probing(&self, nprobe: Option<usize>) -> Result<Option<(&Partition, usize)>> {
        let Some(nprobe) = nprobe else {
            return Ok(None);
        };
        invalid_if!(nprobe == 0, "nprobe", "must be at least 1");
        let Some(partition) = self.memories.partition() else {
            return Err(Error::invalid(
                "nprobe",
                "the memories are not divided into blocks: call partition() first",
            ));
        };
        Ok((nprobe < partition.blocks()).then_some((partition, nprobe)))
    }
}
