//! Memories in other slots.

use crate::base::slot::Slot;

/// Where each slot of a store goes.
pub(crate) struct SlotMap<'a> {
    /// The slots that were, in the order in which they will be.
    pub(crate) order: &'a [Slot],
    to: Vec<Slot>,
}

impl<'a> SlotMap<'a> {
    pub(crate) fn of(order: &'a [Slot], slots: usize) -> Self {
        let mut to = vec![Slot::MAX; slots];
        for (new, &old) in order.iter().enumerate() {
            to[old as usize] = new as Slot;
        }
        Self { order, to }
    }

    /// The new place of a live slot.
    pub(crate) fn to(&self, old: Slot) -> Slot {
        self.to[old as usize]
    }
}
