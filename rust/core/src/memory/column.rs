//! What a column of the memories can do, and memories in other slots.

use std::ops::DerefMut;

use crate::base::{Huge, Slot};
use crate::linalg::row;

/// A column: `width` elements for each slot, one after the other.
pub(crate) trait Column: DerefMut<Target = [Self::Element]> {
    type Element: Clone;

    /// Appends a row of `fill`.
    fn push(&mut self, width: usize, fill: Self::Element);

    /// Makes every element of a slot `fill`.
    fn reset(&mut self, slot: Slot, width: usize, fill: Self::Element) {
        self[row(slot, width)].fill(fill);
    }

    /// The rows of the slots in `order`, with room for `spare` more where a column is dear to grow.
    fn permuted(&self, order: &[Slot], width: usize, spare: usize) -> Self;
}

impl<T: Clone> Column for Vec<T> {
    type Element = T;

    fn push(&mut self, width: usize, fill: T) {
        self.resize(self.len() + width, fill);
    }

    fn permuted(&self, order: &[Slot], width: usize, _: usize) -> Self {
        rows(self, width, order)
    }
}

impl Column for Huge<f32> {
    type Element = f32;

    fn push(&mut self, width: usize, fill: f32) {
        self.extend(width, fill);
    }

    fn permuted(&self, order: &[Slot], width: usize, spare: usize) -> Self {
        let mut permuted = Self::default();
        permuted.reserve((order.len() + spare) * width);
        for &slot in order {
            permuted.append(&self[row(slot, width)]);
        }
        permuted
    }
}

/// Rows of `width` elements each, in another order.
pub(crate) fn rows<T: Clone>(from: &[T], width: usize, order: &[Slot]) -> Vec<T> {
    let rows = order.iter().flat_map(|&slot| &from[row(slot, width)]);
    rows.cloned().collect()
}

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
