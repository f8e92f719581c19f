//! The values of all memories, and which of them may be out of date.

use std::sync::Arc;

use crate::base::{HeapSize, Slot};
use crate::graph::Graph;
use crate::memory::{Memories, SlotMap, narrow, widen};
use crate::values::baseline::{Medians, PAGE_SLOTS};

/// `v_iq`, in pages that a copy shares with its original until one of them writes: a sleep that changes
/// little copies little.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    channels: usize,
    /// `(slot, Q)`.
    pages: Vec<Arc<[f32]>>,
    /// A bit a slot, set when a memory's row, mass, drive or a successor's value changed since its last
    /// backup. A memory that is not dirty would be left as it is by a backup, bit for bit.
    dirty: Vec<u64>,
    /// An upper bound of the gain of a dirty memory; ∞ until it is computed. A cache: small gains are not computed again by
    /// every sleep.
    owed: Vec<f32>,
    /// The state of the running medians; a cache too.
    running: Medians,
    /// `b_q`: the value of the ordinary memory; see [`super::baseline`].
    pub(crate) baseline: Vec<f32>,
}

impl HeapSize for Values {
    fn heap_size(&self) -> usize {
        let Self {
            channels: _,
            pages,
            dirty,
            owed,
            running,
            baseline,
        } = self;
        pages.heap_size()
            + dirty.heap_size()
            + owed.heap_size()
            + running.heap_size_beside(pages)
            + baseline.heap_size()
    }
}

impl Values {
    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    pub(crate) fn of(&self, slot: Slot) -> &[f32] {
        let at = slot as usize % PAGE_SLOTS * self.channels;
        &self.pages[slot as usize / PAGE_SLOTS][at..at + self.channels]
    }

    pub(crate) fn is_dirty(&self, slot: Slot) -> bool {
        self.dirty[slot as usize / PAGE_SLOTS] >> (slot as usize % PAGE_SLOTS) & 1 == 1
    }

    pub(crate) fn mark(&mut self, slot: Slot) {
        self.dirty[slot as usize / PAGE_SLOTS] |= 1 << (slot as usize % PAGE_SLOTS);
        self.owed[slot as usize] = f32::INFINITY;
    }

    /// At least the gain of a dirty memory.
    pub(crate) fn owed(&self, slot: Slot) -> f64 {
        f64::from(self.owed[slot as usize])
    }

    /// Notes the gain of a dirty memory, until it is marked again.
    pub(crate) fn owe(&mut self, slot: Slot, gain: f64) {
        let nearest = gain as f32;
        self.owed[slot as usize] = if f64::from(nearest) < gain {
            nearest.next_up()
        } else {
            nearest
        };
    }

    pub(crate) fn clean(&mut self, slot: Slot) {
        self.dirty[slot as usize / PAGE_SLOTS] &= !(1 << (slot as usize % PAGE_SLOTS));
    }

    /// The dirty slots, rising.
    pub(crate) fn dirty_slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.dirty.iter().enumerate().flat_map(|(page, &word)| {
            let rest = move |&word: &u64| Some(word & (word - 1)).filter(|&word| word != 0);
            std::iter::successors(Some(word).filter(|&word| word != 0), rest)
                .map(move |word| (page * PAGE_SLOTS) as Slot + word.trailing_zeros())
        })
    }

    /// A memory begins with its drive as its value.
    pub(crate) fn start(&mut self, slot: Slot, drives: &[f32]) {
        let page = slot as usize / PAGE_SLOTS;
        while self.pages.len() <= page {
            self.pages
                .push(vec![0.0; PAGE_SLOTS * self.channels].into());
            self.dirty.push(0);
            self.owed.resize(self.pages.len() * PAGE_SLOTS, 0.0);
        }
        self.clean(slot);
        self.write(slot, 0, drives);
    }

    /// The values in other slots. The medians are computed anew.
    pub(crate) fn permuted(&self, map: &SlotMap<'_>) -> Self {
        let mut moved = Self {
            channels: self.channels,
            baseline: self.baseline.clone(),
            ..Self::default()
        };
        for (new, &old) in map.order.iter().enumerate() {
            moved.restore(new as Slot, self.of(old), self.is_dirty(old));
            moved.owed[new] = self.owed[old as usize];
        }
        moved
    }

    pub(crate) fn restore(&mut self, slot: Slot, v: &[f32], dirty: bool) {
        self.start(slot, v);
        if dirty {
            self.mark(slot);
        }
    }

    /// Adds a column that begins with the drives. Every memory with successors is dirty then.
    pub(crate) fn add_column(&mut self, memories: &Memories, graph: &Graph) {
        self.reshape(|v, channels| {
            widen(v, channels, 0.0);
            v.resize(PAGE_SLOTS * (channels + 1), 0.0);
        });
        self.channels += 1;
        self.baseline.push(0.0);
        let q = self.channels - 1;
        for &slot in memories.in_order() {
            self.write(slot, q, &memories.drives(slot)[q..=q]);
            if !graph.row(slot).is_empty() {
                self.mark(slot);
            }
        }
    }

    pub(crate) fn remove_column(&mut self, q: usize) {
        self.reshape(|v, channels| narrow(v, channels, q));
        self.channels -= 1;
        self.baseline.remove(q);
    }

    fn reshape(&mut self, change: impl Fn(&mut Vec<f32>, usize)) {
        for page in &mut self.pages {
            let mut v = page.to_vec();
            change(&mut v, self.channels);
            *page = v.into();
        }
        self.running = Medians::default();
    }

    /// Sets the baseline of every channel: the median over the memories that are not terminals.
    pub(crate) fn set_medians(&mut self, memories: &Memories) {
        self.baseline = self.running.medians(&self.pages, self.channels, memories);
    }

    /// Replaces all values, for ablations: `v` is `(N, Q)` by rising id.
    pub(crate) fn replace(&mut self, memories: &Memories, v: &[f32]) {
        for (rank, &slot) in memories.in_order().iter().enumerate() {
            self.write(
                slot,
                0,
                &v[rank * self.channels..(rank + 1) * self.channels],
            );
        }
    }

    /// Writes the values of a memory from channel `q` on. Returns whether that changed any: −0 is 0.
    pub(crate) fn write(&mut self, slot: Slot, q: usize, v: &[f32]) -> bool {
        let old = &self.of(slot)[q..q + v.len()];
        let changed = old != v;
        if changed || old.iter().zip(v).any(|(a, b)| a.to_bits() != b.to_bits()) {
            let at = slot as usize % PAGE_SLOTS * self.channels + q;
            let page = Arc::make_mut(&mut self.pages[slot as usize / PAGE_SLOTS]);
            page[at..at + v.len()].copy_from_slice(v);
        }
        changed
    }

    pub(crate) fn mark_predecessors(&mut self, slot: Slot, graph: &Graph) {
        for &predecessor in graph.predecessors(slot) {
            self.mark(predecessor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_its_original_overwrites() {
        let mut values = Values::default();
        for slot in 0..200 {
            values.start(slot, &[]);
        }
        values.channels = 2;
        values.reshape(|v, _| *v = vec![0.0; PAGE_SLOTS * 2]);
        values.write(130, 0, &[1.0, 2.0]);
        let copy = values.clone();
        assert!(values.write(130, 1, &[3.0]));
        assert!(!values.write(131, 0, &[-0.0, 0.0]));
        assert_eq!(
            (values.of(130), copy.of(130)),
            (&[1.0f32, 3.0][..], &[1.0f32, 2.0][..])
        );
        assert!(values.of(131)[0].is_sign_negative(), "bits are state");
        let shared = values.pages.iter().zip(&copy.pages);
        assert_eq!(shared.filter(|(a, b)| Arc::ptr_eq(a, b)).count(), 3);
    }
}
