//! Memories in blocks around centres: an index beside the memories, which leaves out blocks that cannot matter.
//!
//! A block is a centre `c`, a least cosine `⟨k,c⟩` of its members, and panels of int8 codes of its own. The angle
//! between unit vectors is a metric, so for a query `x` and a member `k`
//!
//! ```text
//! ∠(x,k) ≥ ∠(x,c) − ∠(c,k)      hence      ⟨x,k⟩ ≤ cos(max(0, ∠(x,c) − ρ)),   cos ρ = the least cosine
//! ```
//!
//! New memories join the block of the nearest centre, a key that moved out of its block's reach does so again, and a
//! least cosine only ever falls: the bound holds after every change. It is no part of what a store remembers: neither
//! digest nor snapshot know of it.

use crate::base::{Slot, heap_sized, threads};
use crate::error::Result;
use crate::index::{Codes, PANEL, encode, uses_codes};
use crate::linalg;
use crate::memory::Memories;

/// Marks a place without a memory, or a memory without a place.
const NONE: u32 = u32::MAX;
heap_sized! {
    /// Memories in blocks: see [`crate::Store::partition`].
    #[derive(Clone, Debug)]
    pub struct Partition {
        pub(crate) centres: Memories,
        pub(crate) centre_codes: Option<Codes>,
        pub(crate) blocks: Vec<Block>,
        /// By place: 32 a panel, and each panel is one block's.
        pub(crate) codes: Option<Codes>,
        slots: Vec<Slot>,
        /// By panel.
        owners: Vec<u32>,
        /// By slot.
        places: Vec<u32>,
        seed: u64,
        /// The latest of the keys' stamps when it was made.
        stamp: Option<u64>,
        /// Whether bounds left out most memories when it was made. If not, exact searches do not try.
        pub(crate) prunes: bool,
    }
}

heap_sized! {
    /// One block.
    #[derive(Clone, Debug)]
    pub(crate) struct Block {
        /// No more than `⟨k,c⟩` of any member.
        least: f32,
        pub(crate) len: usize,
        pub(crate) panels: Vec<u32>,
        free: Vec<u32>,
    }
}

impl Partition {
    /// Blocks around centres, of no memories yet.
    pub(crate) fn empty(
        centres: Memories,
        dim: usize,
        seed: u64,
        stamp: Option<u64>,
    ) -> Result<Self> {
        let empty = Block {
            least: 1.0,
            len: 0,
            panels: Vec::new(),
            free: Vec::new(),
        };
        Ok(Self {
            blocks: vec![empty; centres.len()],
            centre_codes: encode(&centres.columns().keys, dim)?,
            centres,
            codes: uses_codes(dim).then(|| Codes::new(dim)),
            slots: Vec::new(),
            owners: Vec::new(),
            places: Vec::new(),
            seed,
            stamp,
            prunes: false,
        })
    }

    /// How many blocks there are.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether it was made of exactly these memories: the last key to change is the same, and the same slots are live.
    pub(crate) fn is_of(&self, memories: &Memories) -> bool {
        if self.stamp != memories.last_stamp() {
            return false;
        }
        let placed = |slot: usize| self.places.get(slot).is_some_and(|&place| place != NONE);
        let count = self.blocks.iter().map(|block| block.len).sum::<usize>();
        count == memories.len()
            && memories
                .in_order()
                .iter()
                .all(|&slot| placed(slot as usize))
    }

    /// The memory at a place.
    pub(crate) fn slot(&self, place: u32) -> Slot {
        self.slots[place as usize]
    }

    /// The members of a block.
    pub(crate) fn members(&self, block: usize) -> impl Iterator<Item = Slot> + '_ {
        self.blocks[block]
            .panels
            .iter()
            .flat_map(|&panel| &self.slots[panel as usize * PANEL..(panel as usize + 1) * PANEL])
            .copied()
            .filter(|&slot| slot != NONE)
    }

    /// Adds a memory, or moves one whose key changed.
    pub(crate) fn set(&mut self, slot: Slot, key: &[f32]) {
        if let Some(&place) = self.places.get(slot as usize)
            && place != NONE
        {
            let block = self.owners[place as usize / PANEL];
            if linalg::dot(key, self.centres.key(block)) >= self.blocks[block as usize].least {
                if let Some(codes) = &mut self.codes {
                    codes.set(place, key);
                }
                return;
            }
            self.clear(slot);
        }
        let mut best = (f32::NEG_INFINITY, 0);
        for block in 0..self.blocks.len() {
            let cosine = linalg::dot(key, self.centres.key(block as Slot));
            if cosine > best.0 {
                best = (cosine, block);
            }
        }
        self.join(best.1, slot, key, best.0);
    }

    /// Removes a memory.
    pub(crate) fn clear(&mut self, slot: Slot) {
        let place = std::mem::replace(&mut self.places[slot as usize], NONE);
        let block = &mut self.blocks[self.owners[place as usize / PANEL] as usize];
        block.len -= 1;
        block.free.push(place);
        self.slots[place as usize] = NONE;
        if let Some(codes) = &mut self.codes {
            codes.clear(place);
        }
    }

    pub(crate) fn join(&mut self, at: usize, slot: Slot, key: &[f32], cosine: f32) {
        let block = &mut self.blocks[at];
        let place = block.free.pop().unwrap_or_else(|| {
            let panel = self.owners.len();
            self.owners.push(at as u32);
            self.slots.resize((panel + 1) * PANEL, NONE);
            block.panels.push(panel as u32);
            let first = (panel * PANEL) as u32;
            // The lowest goes first.
            block.free.extend((first + 1..first + PANEL as u32).rev());
            first
        });
        block.len += 1;
        block.least = block.least.min(cosine);
        self.slots[place as usize] = slot;
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, NONE);
        }
        self.places[slot as usize] = place;
        if let Some(codes) = &mut self.codes {
            codes.set(place, key);
        }
    }

    /// For every row the greatest similarity that a member of each block can have, canonical rounding included; −∞
    /// for an empty block.
    pub(crate) fn bounds(&self, rows: &[&[f32]], threads: Option<usize>) -> Result<Vec<Vec<f32>>> {
        let slack = rounding(self.centres.dim());
        threads::map(rows.len(), threads, |at| {
            self.blocks
                .iter()
                .enumerate()
                .map(|(block, about)| {
                    if about.len == 0 {
                        return f32::NEG_INFINITY;
                    }
                    let cosine = linalg::dot(rows[at], self.centres.key(block as Slot));
                    bound(cosine, about.least, slack)
                })
                .collect()
        })
    }
}

/// How far the canonical dot of unit vectors, each rounded to f32, may be from the cosine of their angle, with room
/// to spare: `(d/32 + 6)·2^−24` for the dot (see `query`), and as much as 3·2^−24 for either length.
fn rounding(dim: usize) -> f64 {
    (dim as f64 / 32.0 + 16.0) * f64::from(f32::EPSILON) + 1e-6
}

/// `cos(max(0, ∠(x,c) − ρ))` from `⟨x,c⟩` and `cos ρ`, each known to within `slack`, plus the `slack` of `⟨x,k⟩`.
fn bound(cosine: f32, least: f32, slack: f64) -> f32 {
    let cosine = (f64::from(cosine) + slack).min(1.0);
    let least = (f64::from(least) - slack).max(-1.0);
    if cosine >= least {
        return 1.0 + 2.0 * slack as f32;
    }
    // cos(α − ρ) = cos α cos ρ + sin α sin ρ
    let sines = ((1.0 - cosine * cosine) * (1.0 - least * least))
        .max(0.0)
        .sqrt();
    // The last summand covers the rounding to f32.
    (cosine * least + sines + slack) as f32 + f32::EPSILON
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::kernels::int8::tests::row;
    use proptest::prelude::*;

    proptest! {
        /// The bound holds for every member: near, far, at right angles, opposite, of any length of rounding.
        #[test]
        fn no_member_exceeds_the_bound(
            dim in prop::sample::select(vec![1usize, 2, 3, 8, 65, 384]),
            kinds in (0u64..5, 0u64..5, 0u64..5),
            seed in 0u64..1_000_000,
            mix in 0.0f32..1.0,
        ) {
            let (x, centre, other) = (row(kinds.0, dim, seed), row(kinds.1, dim, seed + 1), row(kinds.2, dim, seed + 2));
            let mixed: Vec<f32> = centre.iter().zip(&other).map(|(c, o)| c * mix + o * (1.0 - mix)).collect();
            let mut key = other;
            let _ = crate::memory::episodes::normalise(&mixed, &mut key);
            let bound = bound(linalg::dot(&x, &centre), linalg::dot(&key, &centre), rounding(dim));
            prop_assert!(linalg::dot(&x, &key) <= bound);
        }
    }

    /// On a circle the bound is reached: it is no wider than it must be.
    #[test]
    fn the_bound_is_tight_in_the_plane() {
        let at = |angle: f32| [angle.cos(), angle.sin()];
        let (x, centre, key) = (at(0.0), at(1.0), at(0.7));
        let bound = bound(
            linalg::dot(&x, &centre),
            linalg::dot(&key, &centre),
            rounding(2),
        );
        assert!((bound - linalg::dot(&x, &key)).abs() < 2e-5, "{bound}");
    }
}
