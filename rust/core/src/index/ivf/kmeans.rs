//! Spherical k-means: centres of unit length, each the direction of the mean of the rows nearest to it
//! (Dhillon & Modha 2001).
//!
//! The rows find their centre by the exact search itself, and the means are summed in the order of the rows: the
//! same for a seed, on any number of threads and any processor.

use crate::base::rng::splitmix64;
use crate::error::Result;
use crate::index::encode;
use crate::index::indexed::Keys;
use crate::index::search::nearest;
use crate::memory::columns::Memories;
use crate::memory::episodes::normalise;

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
