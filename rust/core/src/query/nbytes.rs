//! How much memory a store holds, from the sizes of what it is made of.

use std::mem::size_of;

use crate::base::alloc::reserved;
use crate::store::Store;

impl Store {
    /// The bytes of memory that it holds, the archive included. Working space of a call comes on top of it, and a copy of
    /// all but the archive while a frozen view is kept and the store is written to.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        let arrays: usize = self
            .archived()
            .map(|array| size_of_val(array) + size_of::<Vec<f32>>())
            .sum();
        let texts: usize = self
            .history
            .iter()
            .flatten()
            .flat_map(|entry| entry.operation.texts())
            .chain(self.proposals.iter().flat_map(|episode| &episode.texts))
            .map(|text| text.capacity() + size_of::<String>())
            .sum();
        self.memories.nbytes()
            + self.graph.bytes()
            + self.values.nbytes()
            + arrays
            + texts
            + reserved(&self.sample)
            + reserved(&self.episode_ids)
            + 2 * self.ordinals.capacity() * size_of::<(i64, u64)>()
            + size_of::<Self>()
    }
}
