//! How much memory a store holds, from the sizes of what it is made of.

use crate::base::heap::{HeapSize, heap_size};
use crate::store::{Checkpoint, Store};

heap_size!(Store {
    config,
    given,
    embedder,
    channels,
    memories,
    graph,
    values,
    edge_statistics,
    sample,
    clock,
    episode_ids,
    ordinals,
    inserts,
    next_memory,
    next_episode,
    proposals,
    history,
    checkpoints,
    journal,
});

impl HeapSize for Checkpoint {
    fn heap_size(&self) -> usize {
        let shared = self.0.history.iter().flatten().map(HeapSize::heap_size);
        self.0.heap_size() - shared.sum::<usize>()
    }
}

impl Store {
    /// The bytes of memory that it holds, the archive included. Working space of a call comes on top of it, and a copy of
    /// all but the archive while a frozen view is kept and the store is written to.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        size_of::<Self>() + self.heap_size()
    }
}
