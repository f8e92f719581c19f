//! How much memory a store holds, from the sizes of what it is made of.

use crate::base::heap::{HeapSize, heap_size};
use crate::store::Store;

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
    journal,
});

impl Store {
    /// The bytes of memory that it holds, the archive included. Working space of a call comes on top of it, and a copy of
    /// all but the archive while a frozen view is kept and the store is written to.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        size_of::<Self>() + self.heap_size()
    }
}
