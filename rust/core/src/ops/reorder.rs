//! Memories laid out in the order of their age, which is the order in which they lead to each other.
//!
//! What follows each other was lived at about the same time: of the orders that were tried (by age, by bandwidth, by clusters
//! of keys) sweeps are the quickest in that of age. A store that forgets gives the slots of what it forgot to what is new, and so
//! comes out of that order; a snapshot that is read is in it, and so is a store after [`Store::reordered`]. No result depends on it.

use crate::base::cancel;
use crate::error::Result;
use crate::memory::SlotMap;
use crate::store::Store;

impl Store {
    /// The same store, memories in the order of their age, if so many are out of it that a copy is worth its time: a
    /// quarter. `None` for one in blocks ([`Store::partition`]), which have an order of their own.
    pub(crate) fn reordered(&self) -> Result<Option<Self>> {
        let order = self.memories.in_order();
        let breaks = order.windows(2).filter(|pair| pair[1] != pair[0] + 1);
        if self.memories.partition().is_some() || breaks.count() <= order.len() / 4 {
            return Ok(None);
        }
        let map = SlotMap::of(order, self.memories.slots());
        let memories = self.memories.permuted(&map)?;
        cancel::check()?;
        let store = self.around(
            memories,
            self.graph.permuted(&map),
            self.values.permuted(&map),
        );
        Ok(Some(Self {
            proposals: self.proposals.clone(),
            history: self.history.clone(),
            checkpoints: self.checkpoints.clone(),
            ..store
        }))
    }
}
