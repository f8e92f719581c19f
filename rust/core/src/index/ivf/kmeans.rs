//! Spherical k-means: centres of unit length, each the direction of the mean of the rows nearest to it
//! (Dhillon & Modha 2001).
//!
//! The rows find their centre by the exact search itself, and the means are summed in the order of the rows: the
//! same for a seed, on any number of threads and any processor.

use crate::base::{Slot, splitmix64};
use crate::error::Result;
use crate::index::ivf::block_search::prunes;
use crate::index::ivf::kmeans;
use crate::index::{Indexed, Keys, Partition, encode, nearest};
use crate::memory::{Memories, normalise};

/// Rounds of Lloyd's algorithm: later ones move few rows.
const ROUNDS: usize = 8;

/// `count` centres of unit `rows` `(n, dim)`, as memories whose slots are their numbers; `n ≥ count ≥ 1`.
pub(crate) fn centres(
    rows: &[f32],
    dim: usize,
    count: usize,
    seed: u64,
    threads: Option<usize>,
) -> Result<Memories> {
    let n = rows.len() / dim;
    let row = |at: usize| &rows[at * dim..(at + 1) * dim];
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|&at| splitmix64(seed ^ splitmix64(at as u64)));
    let mut centres: Vec<f32> = order[..count]
        .iter()
        .flat_map(|&at| row(at))
        .copied()
        .collect();
    for round in 0..ROUNDS {
        let (memories, codes) = (Memories::of_rows(&centres, dim), encode(&centres, dim)?);
        let keys = Keys {
            memories: &memories,
            codes: codes.as_ref(),
            blocks: None,
        };
        let found = nearest(keys, rows, 1, threads)?;
        let mut sums = vec![0.0f64; count * dim];
        let mut sizes = vec![0usize; count];
        for (x, hits) in rows.chunks_exact(dim).zip(&found) {
            let block = hits[0].slot as usize;
            sizes[block] += 1;
            for (sum, &x) in sums[block * dim..].iter_mut().zip(x) {
                *sum += f64::from(x);
            }
        }
        for (block, centre) in centres.chunks_exact_mut(dim).enumerate() {
            if sizes[block] == 0 {
                // A centre without rows begins anew at some row.
                let at = splitmix64(seed ^ splitmix64((round * count + block) as u64)) % n as u64;
                centre.copy_from_slice(row(at as usize));
                continue;
            }
            let size = sizes[block] as f64;
            let sum = &sums[block * dim..(block + 1) * dim];
            let mean: Vec<f32> = sum.iter().map(|sum| (sum / size) as f32).collect();
            // Rows that cancel each other have no direction: the centre stays.
            let _ = normalise(&mean, centre);
        }
    }
    Ok(Memories::of_rows(&centres, dim))
}

/// Memories a centre that k-means looks at, at most.
const MAX_SAMPLE_PER_CENTRE: usize = 64;
/// Rows whose blocks are looked up at once.
const ROWS_PER_ROUND: usize = 4096;

impl Partition {
    /// k-means on a sample, then every memory to the nearest centre: of all memories, in `blocks` ≥ 1 blocks or as many as there are memories.
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
