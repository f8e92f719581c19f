//! Dividing memories into blocks: k-means on a sample, then every memory to the nearest centre.

use crate::base::rng::splitmix64;
use crate::base::slot::Slot;
use crate::error::Result;
use crate::index::indexed::{Indexed, Keys};
use crate::index::ivf::block_search::prunes;
use crate::index::ivf::blocks::Partition;
use crate::index::ivf::kmeans;
use crate::index::search::nearest;

/// Memories a centre that k-means looks at, at most.
const MAX_SAMPLE_PER_CENTRE: usize = 64;
/// Rows whose blocks are looked up at once.
const ROWS_PER_ROUND: usize = 4096;

impl Partition {
    /// Of all memories, in `blocks` ≥ 1 blocks or as many as there are memories.
    pub(crate) fn of(
        memories: &Indexed,
        blocks: usize,
        seed: u64,
        threads: Option<usize>,
    ) -> Result<Self> {
        let (dim, order) = (memories.dim(), memories.in_order());
        let blocks = blocks.min(order.len());
        let mut sample = order.to_vec();
        if sample.len() > MAX_SAMPLE_PER_CENTRE * blocks {
            sample.sort_by_key(|&slot| splitmix64(seed.wrapping_add(splitmix64(slot.into()))));
            sample.truncate(MAX_SAMPLE_PER_CENTRE * blocks);
        }
        let rows = |slots: &[Slot]| -> Vec<f32> {
            slots
                .iter()
                .flat_map(|&slot| memories.key(slot))
                .copied()
                .collect()
        };
        let centres = kmeans::centres(&rows(&sample), dim, blocks, seed, threads)?;
        let mut partition = Self::empty(centres, dim, seed, memories.last_stamp())?;
        let mut members = vec![Vec::new(); blocks];
        for slots in order.chunks(ROWS_PER_ROUND) {
            let found = nearest(Keys::centres(&partition), &rows(slots), 1, threads)?;
            for (&slot, hits) in slots.iter().zip(found) {
                members[hits[0].slot as usize].push((slot, hits[0].similarity));
            }
        }
        // Block by block, so that the panels of each lie side by side.
        for (block, members) in members.into_iter().enumerate() {
            for (slot, cosine) in members {
                partition.join(block, slot, memories.key(slot), cosine);
            }
        }
        partition.prunes = prunes(memories, &partition, threads)?;
        Ok(partition)
    }
}
