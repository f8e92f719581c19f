//! The first passes over int8 codes, and the choice among them.
//!
//! | kernel | instructions | tile | query codes |
//! |---|---|---|---|
//! | `avx2` | `vpmaddubsw`, `vpmaddwd` | 4 × 16 | ±64 |
//! | `avx2-vnni` | `vpdpbusd` of 256 bits | 4 × 16 | ±127 |
//! | `avx512-vnni` | `vpdpbusd` of 512 bits | 12 × 32 | ±127 |
//! | `neon` | `smull`, `sadalp` | 4 × 16 | ±127 |
//! | `neon-dot` | `sdot` | 4 × 16 | ±127 |
//!
//! A kernel multiplies a tile of queries with a panel of keys. Its sums are integers and exact, so kernels with
//! the same query codes find the same candidates; those of `avx2` are coarser, because `vpmaddubsw` adds two
//! products in 16 bits and saturates: `255·64·2 = 32640` is the largest that fits. Its bounds are wider for it,
//! never wrong.
//!
//! There is no portable one: what the compiler makes of it on plain x86-64 (SSE2) takes 1.5 times as long as the
//! canonical arithmetic itself.

use std::ops::Range;

use crate::base::Slot;
use crate::index::{Candidates, Codes, PANEL, Query, Tile};

/// Bytes of codes of one part of the work: about a tenth of a millisecond for a piece.
const BLOCK_BYTES: usize = 512 * 1024;

/// Queries of one piece of work: whole tiles, and enough of them to make use of codes that were fetched.
pub(crate) const CHUNK: usize = 96;

/// A tile of queries against one panel, while another one is fetched.
///
/// # Safety
/// The processor must have the instructions of the kernel.
pub(crate) type Multiply = unsafe fn(&Codes, [usize; 2], &Tile<'_>, &mut TileCandidates<'_>);

/// What the queries of a tile have found.
pub(crate) struct TileCandidates<'a> {
    pub(crate) candidates: &'a mut [Candidates],
    /// What [`Tile::needed`] says of each, for kernels that keep it up to date.
    pub(crate) needed: Vec<f32>,
}

impl<'a> TileCandidates<'a> {
    fn of(tile: &Tile<'_>, candidates: &'a mut [Candidates]) -> Self {
        let thresholds = candidates.iter().map(|found| found.threshold);
        Self {
            needed: thresholds
                .enumerate()
                .map(|(q, t)| tile.needed(q, t))
                .collect(),
            candidates,
        }
    }
}

/// One way to run the first pass.
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    /// The instruction set, as `SHARPWAVE_SIMD` calls it.
    pub(crate) set: &'static str,
    pub(crate) usable: fn() -> bool,
    /// Query codes lie in `[−largest, largest]`.
    pub(crate) largest: i8,
    /// Queries of the largest tile.
    pub(crate) width: usize,
    pub(crate) multiply: Multiply,
}

impl Kernel {
    /// A query in the codes that this kernel can take.
    pub(crate) fn query(&self, x: &[f32]) -> Query {
        Query::of(x, self.largest)
    }

    /// The panels in parts, which threads share out among them.
    pub(crate) fn parts(codes: &Codes) -> Vec<Range<usize>> {
        let block = block(codes);
        (0..codes.panels())
            .step_by(block)
            .map(|from| from..(from + block).min(codes.panels()))
            .collect()
    }

    /// Queries as tiles of even width: a narrow one waits for its own sums.
    pub(crate) fn tiles<'a>(&self, queries: impl IntoIterator<Item = &'a Query>) -> Vec<Tile<'a>> {
        let queries: Vec<&Query> = queries.into_iter().collect();
        let count = queries.len().div_ceil(self.width);
        (0..count)
            .map(|at| queries.len() * at / count..queries.len() * (at + 1) / count)
            .map(|rows| Tile::of(queries[rows].to_vec()))
            .collect()
    }

    /// Offers every memory of `panels` that could matter to the candidates of the queries in some tiles.
    pub(crate) fn scan(
        &self,
        codes: &Codes,
        mut panels: impl Iterator<Item = usize>,
        tiles: &[Tile<'_>],
        candidates: &mut [Candidates],
    ) {
        let mut rest = candidates;
        let mut work = Vec::with_capacity(tiles.len());
        for tile in tiles {
            let (theirs, others) = rest.split_at_mut(tile.queries.len());
            rest = others;
            work.push((tile, TileCandidates::of(tile, theirs)));
        }
        let Some((last, others)) = work.split_last_mut() else {
            return;
        };
        let mut next = panels.next();
        while let Some(panel) = next {
            next = panels.next();
            // SAFETY: a kernel is only handed out where `usable()` has said so.
            let multiply = |(tile, found): &mut (&Tile<'_>, TileCandidates<'_>), fetched| unsafe {
                (self.multiply)(codes, [panel, fetched], tile, found);
            };
            for one in &mut *others {
                multiply(one, panel);
            }
            multiply(last, next.unwrap_or(panel));
        }
    }
}

/// Panels of a part.
fn block(codes: &Codes) -> usize {
    (BLOCK_BYTES / (codes.groups() * 128)).max(1)
}

/// Offers the keys of one panel to one query, given the sums of products with its codes.
#[inline(always)]
#[allow(clippy::inline_always)] // To be compiled for the instruction set of the kernel around it.
pub(crate) fn settle(
    sums: &[i32; PANEL],
    panel: usize,
    codes: &Codes,
    query: &Query,
    candidates: &mut Candidates,
) {
    let first = panel * PANEL;
    let scale: &[f32; PANEL] = codes.scale[first..].first_chunk().expect("whole panels");
    let hidden: &[f32; PANEL] = codes.slack[first..].first_chunk().expect("whole panels");
    let mut about = [0.0f32; PANEL];
    let mut slack = [0.0f32; PANEL];
    let mut passed = 0;
    for lane in 0..PANEL {
        about[lane] = sums[lane] as f32 * scale[lane] * query.scale;
        slack[lane] = hidden[lane] * query.per_hidden + query.slack;
        passed += u32::from(about[lane] + slack[lane] >= candidates.threshold);
    }
    if passed > 0 {
        for lane in 0..PANEL {
            // A free slot has slack −∞; its bound passes only while there is no threshold.
            if slack[lane] >= 0.0 && about[lane] + slack[lane] >= candidates.threshold {
                candidates.offer((first + lane) as Slot, about[lane], slack[lane]);
            }
        }
    }
}

/// Calls the tile of a width known only at run time.
macro_rules! of_width {
    ($width_of:expr, $tile:ident, $arguments:tt, $($width:literal)*) => {
        match $width_of {
            $($width => $tile::<$width> $arguments,)*
            width => unreachable!("no tile is {width} wide"),
        }
    };
}
pub(crate) use of_width;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::splitmix64;
    use crate::memory::normalise;

    /// The definition, one product at a time.
    fn expected(codes: &Codes, query: &Query, slots: usize) -> Vec<(Slot, f32, f32)> {
        (0..slots)
            .filter(|&slot| codes.slack[slot] >= 0.0)
            .map(|slot| {
                let (panel, lane) = (slot / PANEL, slot % PANEL);
                let mut sum = i64::from(query.start);
                for (group, word) in query.words.iter().enumerate() {
                    let line = &codes.panel(panel)[group * 2 + lane / 16].0;
                    for (j, q) in word.to_le_bytes().iter().enumerate() {
                        sum += i64::from(line[lane % 16 * 4 + j]) * i64::from(q.cast_signed());
                    }
                }
                let about = i32::try_from(sum).expect("no overflow") as f32
                    * codes.scale[slot]
                    * query.scale;
                let slack = codes.slack[slot] * query.per_hidden + query.slack;
                (slot as Slot, about, slack)
            })
            .collect()
    }

    /// Numbers that are hard on a kernel: of one size and sign, so that codes are all ±127; noise; nearly
    /// nothing but one entry; subnormals beside ordinary numbers.
    pub(crate) fn row(kind: u64, dim: usize, seed: u64) -> Vec<f32> {
        let noise =
            |i: usize| (splitmix64(seed ^ ((i as u64) << 24)) >> 40) as f32 / 8_388_608.0 - 1.0;
        let row: Vec<f32> = (0..dim)
            .map(|i| match kind % 5 {
                0 => 1.0,
                1 => -1.0,
                2 => [1.0, -1.0][i % 2],
                3 => 1e-42 * noise(i) + if i == dim / 2 { 1.0 } else { 0.0 },
                _ => noise(i),
            })
            .collect();
        let mut unit = vec![0.0; dim];
        normalise(&row, &mut unit).expect("not zero");
        unit
    }

    #[test]
    fn every_kernel_finds_what_the_definition_says() {
        let dims = (1..=40).chain([63, 64, 65, 127, 129, 383, 384, 385, 1000, 1024, 2099, 2100]);
        for (case, dim) in dims.enumerate() {
            let (slots, case) = (1 + 37 * case % 131, case as u64);
            let mut codes = Codes::new(dim);
            for slot in 0..slots {
                let mut key = row(slot as u64, dim, case << 10 | slot as u64);
                if slot % 7 == 0 {
                    key = row(4, dim, case); // the same again and again
                }
                codes.set(slot as Slot, &key);
            }
            for gone in (0..slots).filter(|slot| slot % 11 == 5) {
                codes.clear(gone as Slot);
            }
            for kernel in Kernel::available() {
                for count in 1..=2 * kernel.width + 1 {
                    let queries: Vec<Query> = (0..count as u64)
                        .map(|q| kernel.query(&row(q + case, dim, q << 40 | 1)))
                        .collect();
                    let mut found = vec![Candidates::new(1 << 20, 1 << 20); count];
                    let tiles = kernel.tiles(&queries);
                    kernel.scan(&codes, 0..codes.panels(), &tiles, &mut found);
                    for (query, found) in queries.iter().zip(&found) {
                        let expected: Vec<(f32, Slot)> = expected(&codes, query, slots)
                            .into_iter()
                            .map(|(slot, about, slack)| (about + slack, slot))
                            .collect();
                        assert_eq!(found.seen, expected, "{} {dim} {count}", kernel.name);
                    }
                }
            }
        }
    }

    #[test]
    fn thresholds_cut_alike_in_every_kernel() {
        let dim = 100;
        let mut codes = Codes::new(dim);
        for slot in 0..4000 {
            codes.set(slot, &row(4, dim, u64::from(slot)));
        }
        for kernel in Kernel::available() {
            let queries: Vec<Query> = (0..13)
                .map(|q| kernel.query(&row(4, dim, 7777 + q)))
                .collect();
            let tiles = kernel.tiles(&queries);
            let of_all: Vec<_> = queries
                .iter()
                .map(|query| expected(&codes, query, 4000))
                .collect();
            // Lists of one to three registers, full or not, and longer ones.
            for k in [1, 5, 16, 17, 32, 40, 48, 49, 70] {
                let mut found = vec![Candidates::new(k, 4000); queries.len()];
                kernel.scan(&codes, 3..codes.panels(), &tiles, &mut found);
                for (of_all, found) in of_all.iter().zip(found) {
                    let mut all = Candidates::new(k, 1 << 20);
                    for &(slot, about, slack) in of_all {
                        if slot as usize >= 3 * PANEL {
                            all.offer(slot, about, slack);
                        }
                    }
                    assert_eq!(found.threshold, all.threshold, "{} {k}", kernel.name);
                    assert_eq!(found.left(), all.left(), "{} {k}", kernel.name);
                }
            }
        }
    }
}
