//! Ragged rows that stay compact while they change.
//!
//! Slots come in blocks of 1024. A block is a small CSR matrix: one array of names, one of weights, and
//! per row where it lies. A row that outgrows its place moves to the end of the block, where recent
//! entries gather beside the settled ones. Once more than a quarter of a block (and 512 entries) is
//! unused, the block alone is laid out anew: no change costs more than its block.

use crate::base::{Slot, heap_sized, no_heap};
use crate::memory::SlotMap;

/// Slots a block.
const BLOCK: usize = 1024;
/// Unused entries that a block may hold beyond a quarter of those in use.
const MAX_SPARE_ENTRIES: usize = 512;

/// Where a row lies in its block.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    start: u32,
    len: u32,
    /// Entries that fit before the row has to move.
    room: u32,
}

no_heap!(Head);

heap_sized! {
    #[derive(Clone, Debug, Default)]
    struct Block<W> {
        heads: Vec<Head>,
        names: Vec<Slot>,
        weights: Vec<W>,
        entries: usize,
    }
}

impl<W: Copy> Block<W> {
    fn range(&self, row: usize) -> std::ops::Range<usize> {
        let head = self.heads[row];
        head.start as usize..(head.start + head.len) as usize
    }

    fn insert(&mut self, row: usize, at: usize, name: Slot, weight: W) {
        let len = self.heads[row].len;
        if len == self.heads[row].room {
            self.make_room(row, len + (len / 4).max(2), name, weight);
        }
        let head = &mut self.heads[row];
        let (start, end) = (head.start as usize, (head.start + head.len) as usize);
        head.len += 1;
        self.entries += 1;
        self.names.copy_within(start + at..end, start + at + 1);
        self.names[start + at] = name;
        self.weights.copy_within(start + at..end, start + at + 1);
        self.weights[start + at] = weight;
        self.settle_if_loose();
    }

    /// Replaces a row.
    fn set(&mut self, row: usize, names: &[Slot], weights: &[W]) {
        let (Some(&name), Some(&weight)) = (names.first(), weights.first()) else {
            self.clear(row);
            return;
        };
        let len = names.len();
        if len > self.heads[row].room as usize {
            self.make_room(row, (len + len / 4) as u32, name, weight);
        }
        let head = &mut self.heads[row];
        self.entries = self.entries - head.len as usize + len;
        head.len = len as u32;
        let start = head.start as usize;
        self.names[start..start + len].copy_from_slice(names);
        self.weights[start..start + len].copy_from_slice(weights);
        self.settle_if_loose();
    }

    /// Moves a row to the end of the block and gives it a capacity of `room`, filled up with `name` and `weight`.
    fn make_room(&mut self, row: usize, room: u32, name: Slot, weight: W) {
        let head = self.heads[row];
        if (head.start + head.room) as usize != self.names.len() || head.room == 0 {
            let range = self.range(row);
            let start = self.names.len();
            grow(&mut self.names, room as usize);
            grow(&mut self.weights, room as usize);
            self.names.extend_from_within(range.clone());
            self.weights.extend_from_within(range);
            self.heads[row].start = start as u32;
        }
        let end = (self.heads[row].start + room) as usize;
        let more = end - self.names.len();
        grow(&mut self.names, more);
        grow(&mut self.weights, more);
        self.names.resize(end, name);
        self.weights.resize(end, weight);
        self.heads[row].room = room;
    }

    fn remove(&mut self, row: usize, at: usize) {
        let range = self.range(row);
        self.names
            .copy_within(range.start + at + 1..range.end, range.start + at);
        self.weights
            .copy_within(range.start + at + 1..range.end, range.start + at);
        self.heads[row].len -= 1;
        self.entries -= 1;
        self.settle_if_loose();
    }

    fn clear(&mut self, row: usize) {
        self.entries -= self.heads[row].len as usize;
        self.heads[row].len = 0;
        self.settle_if_loose();
    }

    /// Compacts the block if too much of it is unused.
    fn settle_if_loose(&mut self) {
        if self.names.len() <= self.entries + self.entries / 4 + MAX_SPARE_ENTRIES {
            return;
        }
        let rows = (0..self.heads.len()).map(|row| {
            let range = self.range(row);
            (&self.names[range.clone()], &self.weights[range])
        });
        *self = Self::laid_out(rows, self.entries, |name| name);
    }

    /// A compact block of the given rows, with `entries` entries in all, each renamed by `named`.
    fn laid_out<'a>(
        rows: impl ExactSizeIterator<Item = (&'a [Slot], &'a [W])>,
        entries: usize,
        named: impl Fn(Slot) -> Slot,
    ) -> Self
    where
        W: 'a,
    {
        let mut block = Self {
            heads: Vec::with_capacity(rows.len()),
            names: Vec::with_capacity(entries),
            weights: Vec::with_capacity(entries),
            entries,
        };
        for (names, weights) in rows {
            let len = names.len() as u32;
            block.heads.push(Head {
                start: block.names.len() as u32,
                len,
                room: len,
            });
            block.names.extend(names.iter().map(|&name| named(name)));
            block.weights.extend_from_slice(weights);
        }
        block
    }
}

/// Reserves `more` entries, at least an eighth of the length: doubling would leave half of the memory unused.
fn grow<T>(entries: &mut Vec<T>, more: usize) {
    if entries.capacity() - entries.len() < more {
        entries.reserve_exact(more.max(entries.len() / 8));
    }
}

heap_sized! {
    /// Rows by slot: in each, names and as many weights.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Rows<W> {
        blocks: Vec<Block<W>>,
    }
}

impl<W: Copy + Default> Rows<W> {
    /// The rows in the order of `map` and their entries renamed by it, without unused capacity.
    pub(crate) fn permuted(&self, map: &SlotMap<'_>) -> Self {
        let block = |slots: &[Slot]| {
            let rows = slots.iter().map(|&slot| self.row(slot));
            let entries = rows.clone().map(|(names, _)| names.len()).sum();
            Block::laid_out(rows, entries, |name| map.to(name))
        };
        Self {
            blocks: map.order.chunks(BLOCK).map(block).collect(),
        }
    }

    /// Empty rows, by slot, with the given capacities.
    pub(crate) fn with_room(lengths: &[u32], filling: (Slot, W)) -> Self {
        let blocks = lengths.chunks(BLOCK).map(|lengths| {
            let mut end = 0;
            let heads = lengths.iter().map(|&room| {
                let start = end;
                end += room;
                Head {
                    start,
                    len: 0,
                    room,
                }
            });
            Block {
                heads: heads.collect(),
                names: vec![filling.0; end as usize],
                weights: vec![filling.1; end as usize],
                entries: 0,
            }
        });
        Self {
            blocks: blocks.collect(),
        }
    }

    fn place(slot: Slot) -> (usize, usize) {
        (slot as usize / BLOCK, slot as usize % BLOCK)
    }

    /// Makes sure that `slot` has a row.
    pub(crate) fn ensure(&mut self, slot: Slot) {
        let (block, row) = Self::place(slot);
        if self.blocks.len() <= block {
            for full in &mut self.blocks {
                full.heads.resize(BLOCK, Head::default());
            }
            self.blocks.resize_with(block + 1, Block::default);
        }
        let heads = &mut self.blocks[block].heads;
        if heads.len() <= row {
            heads.resize(row + 1, Head::default());
        }
    }

    pub(crate) fn names(&self, slot: Slot) -> &[Slot] {
        self.row(slot).0
    }

    /// Names and weights.
    #[inline]
    pub(crate) fn row(&self, slot: Slot) -> (&[Slot], &[W]) {
        let (block, row) = Self::place(slot);
        let block = &self.blocks[block];
        let range = block.range(row);
        (&block.names[range.clone()], &block.weights[range])
    }

    /// Replaces a row.
    pub(crate) fn set(&mut self, slot: Slot, names: &[Slot], weights: &[W]) {
        let (block, row) = Self::place(slot);
        self.blocks[block].set(row, names, weights);
    }

    /// Inserts an entry before the `at`-th of a row.
    pub(crate) fn insert(&mut self, slot: Slot, at: usize, name: Slot, weight: W) {
        let (block, row) = Self::place(slot);
        self.blocks[block].insert(row, at, name, weight);
    }

    /// Appends an entry to a row made [with room](Self::with_room) for it.
    pub(crate) fn push(&mut self, slot: Slot, name: Slot, weight: W) {
        let (block, row) = Self::place(slot);
        let block = &mut self.blocks[block];
        let head = &mut block.heads[row];
        debug_assert!(head.len < head.room);
        let at = (head.start + head.len) as usize;
        block.names[at] = name;
        block.weights[at] = weight;
        head.len += 1;
        block.entries += 1;
    }

    /// Removes the `at`-th entry of a row.
    pub(crate) fn remove(&mut self, slot: Slot, at: usize) {
        let (block, row) = Self::place(slot);
        self.blocks[block].remove(row, at);
    }

    /// Removes every entry of a row.
    pub(crate) fn clear(&mut self, slot: Slot) {
        let (block, row) = Self::place(slot);
        self.blocks[block].clear(row);
    }

    /// Entries of all rows.
    pub(crate) fn entries(&self) -> usize {
        self.blocks.iter().map(|block| block.entries).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{HeapSize, splitmix64};

    /// Random insertions, removals and clearings beside plain vectors.
    #[test]
    fn rows_behave_like_vectors_and_stay_compact() {
        let slots = 2500u32;
        let mut rows = Rows::<f64>::default();
        let mut plain: Vec<Vec<(Slot, f64)>> = vec![Vec::new(); slots as usize];
        for slot in 0..slots {
            rows.ensure(slot);
        }
        for i in 0..200_000u64 {
            let dice = splitmix64(i);
            // A tenth of the changes go to one row, as to a hub.
            let slot = if dice.is_multiple_of(10) {
                7
            } else {
                (dice >> 8) as u32 % slots
            };
            let row = &mut plain[slot as usize];
            let at = (dice >> 40) as usize % (row.len() + 1);
            match (dice >> 4) % 16 {
                0 => {
                    rows.clear(slot);
                    row.clear();
                }
                1..=4 if at < row.len() => {
                    rows.remove(slot, at);
                    row.remove(at);
                }
                5 => {
                    let names: Vec<Slot> = (0..(dice >> 50) as u32 % 40).collect();
                    let weights: Vec<f64> = names.iter().map(|&n| f64::from(n) + 0.5).collect();
                    rows.set(slot, &names, &weights);
                    *row = names.into_iter().zip(weights).collect();
                }
                _ => {
                    rows.insert(slot, at, i as u32, i as f64);
                    row.insert(at, (i as u32, i as f64));
                }
            }
            if i % 997 == 0 || i == 199_999 {
                for slot in 0..slots {
                    let found = rows.names(slot).iter().copied();
                    let found: Vec<_> = found.zip(rows.row(slot).1.iter().copied()).collect();
                    assert_eq!(found, plain[slot as usize], "after {i}");
                }
                let entries: usize = plain.iter().map(Vec::len).sum();
                assert_eq!(rows.entries(), entries);
            }
        }
        let most = rows.entries() as f64 * 12.0 * 1.25 * 1.125
            + rows.blocks.len() as f64 * (MAX_SPARE_ENTRIES as f64 * 12.0 * 1.125 + 100.0)
            + f64::from(slots) * 12.0 * 2.0;
        assert!(
            rows.heap_size() as f64 <= most,
            "{} > {most}",
            rows.heap_size()
        );
    }
}
