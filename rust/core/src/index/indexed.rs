//! The memories with their indexes: int8 codes and blocks, which follow every change of a key.

use std::ops::Deref;

use crate::base::{Slot, heap_sized};
use crate::error::Result;
use crate::index::{Codes, Partition, encode, uses_codes};
use crate::memory::{Channels, Memories, NewMemory, Provenance, SlotMap};

heap_sized! {
    /// Memories with their indexes. They are read as [`Memories`]; whatever changes a key or a slot goes through here.
    #[derive(Clone, Debug)]
    pub(crate) struct Indexed {
        memories: Memories,
        /// The codes that the int8 pass reads, where the processor has one; a cache, never stored.
        codes: Option<Codes>,
        /// The same memories in blocks, if a caller asked for it; an index, never stored.
        partition: Option<Box<Partition>>,
    }
}

/// What a search reads: the keys and their indexes.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub(crate) memories: &'a Memories,
    pub(crate) codes: Option<&'a Codes>,
    pub(crate) blocks: Option<&'a Partition>,
}

impl<'a> From<&'a Indexed> for Keys<'a> {
    fn from(indexed: &'a Indexed) -> Self {
        Self {
            memories: &indexed.memories,
            codes: indexed.codes.as_ref(),
            blocks: indexed.partition(),
        }
    }
}

impl<'a> Keys<'a> {
    /// The centres of a partition.
    pub(crate) fn centres(partition: &'a Partition) -> Self {
        Self {
            memories: &partition.centres,
            codes: partition.centre_codes.as_ref(),
            blocks: None,
        }
    }
}

impl Deref for Indexed {
    type Target = Memories;

    fn deref(&self) -> &Memories {
        &self.memories
    }
}

impl Indexed {
    pub(crate) fn new(dim: usize) -> Self {
        Self {
            memories: Memories::new(dim),
            codes: uses_codes(dim).then(|| Codes::new(dim)),
            partition: None,
        }
    }

    pub(crate) fn partition(&self) -> Option<&Partition> {
        self.partition.as_deref()
    }

    /// Replaces the partition by another one of these memories.
    pub(crate) fn adopt(&mut self, partition: Partition) {
        self.partition = Some(Box::new(partition));
    }

    /// The live memories in other slots, without free slots and without a partition.
    ///
    /// It has capacity for the free slots of now and an eighth more, so that the next additions do not copy all of it.
    pub(crate) fn permuted(&self, map: &SlotMap<'_>) -> Result<Self> {
        let n = map.order.len();
        let spare = self.slots() - n + n / 8;
        let mut moved = Self {
            memories: self.memories.permuted(map, spare),
            codes: None,
            partition: None,
        };
        moved.encode_all()?;
        moved.reserve_for(spare);
        Ok(moved)
    }

    /// As [`Memories::reserve_for`].
    pub(crate) fn reserve_for(&mut self, more: usize) {
        self.memories.reserve_for(more);
        if let Some(codes) = &mut self.codes {
            codes.reserve_for(more);
        }
    }

    /// As [`Memories::reserve`].
    pub(crate) fn reserve(&mut self, more: usize) {
        self.memories.reserve(more);
        if let Some(codes) = &mut self.codes {
            codes.reserve(more);
        }
    }

    /// Drops the codes until [`Indexed::encode_all`]: encoding many memories at once is faster than one by one.
    pub(crate) fn encode_later(&mut self) {
        self.codes = None;
    }

    /// The codes of all memories, on all threads; no slot may be free.
    pub(crate) fn encode_all(&mut self) -> Result<()> {
        debug_assert!(!self.has_free_slots());
        self.codes = encode(&self.memories.columns().keys, self.dim())?;
        Ok(())
    }

    /// As [`Memories::add`].
    pub(crate) fn add(&mut self, id: i64, new: &NewMemory<'_>, channels: &Channels) -> Slot {
        let slot = self.memories.add(id, new, channels);
        self.encode(slot);
        slot
    }

    /// As [`Memories::merge`].
    pub(crate) fn merge(&mut self, slot: Slot, x: &[f32], provenance: Provenance, clock: u64) {
        if self.memories.merge(slot, x, provenance, clock) {
            self.encode(slot);
        }
    }

    /// As [`Memories::remove`].
    pub(crate) fn remove(&mut self, slot: Slot) {
        self.memories.remove(slot);
        self.clear(slot);
    }

    /// Brings the code and the block of a memory up to date with its key.
    fn encode(&mut self, slot: Slot) {
        let key = self.memories.key(slot);
        if let Some(codes) = &mut self.codes {
            codes.set(slot, key);
        }
        if let Some(partition) = &mut self.partition {
            partition.set(slot, key);
        }
    }

    fn clear(&mut self, slot: Slot) {
        if let Some(codes) = &mut self.codes {
            codes.clear(slot);
        }
        if let Some(partition) = &mut self.partition {
            partition.clear(slot);
        }
    }

    // What follows changes neither keys nor slots.

    /// As [`Memories::set_provenance`].
    pub(crate) fn set_provenance(&mut self, slot: Slot, provenance: Vec<Provenance>) {
        self.memories.set_provenance(slot, provenance);
    }

    /// As [`Memories::set_observed`].
    pub(crate) fn set_observed(&mut self, sums: Vec<f64>, counts: Vec<u32>) {
        self.memories.set_observed(sums, counts);
    }

    /// As [`Memories::observe_drive`].
    pub(crate) fn observe_drive(&mut self, slot: Slot, scalar: usize, drive: f32) {
        self.memories.observe_drive(slot, scalar, drive);
    }

    /// As [`Memories::refresh_drives`].
    pub(crate) fn refresh_drives(&mut self, slot: Slot, channels: &Channels) {
        self.memories.refresh_drives(slot, channels);
    }

    /// As [`Memories::add_column`].
    pub(crate) fn add_column(&mut self, channels: &Channels) {
        self.memories.add_column(channels);
    }

    /// As [`Memories::remove_column`].
    pub(crate) fn remove_column(&mut self, q: usize, scalar: Option<usize>) {
        self.memories.remove_column(q, scalar);
    }
}
