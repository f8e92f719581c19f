//! What a column of the memories can do: rows of a fixed width by slot.

use crate::base::huge::Huge;
use crate::base::slot::Slot;

/// A column: `width` elements for each slot, one after the other.
pub(crate) trait Column {
    type Element;

    /// Appends a row of `fill`.
    fn push(&mut self, width: usize, fill: Self::Element);

    /// Makes every element of a slot `fill`.
    fn reset(&mut self, slot: Slot, width: usize, fill: Self::Element);

    /// The rows of the slots in `order`, with room for `spare` more where a column is dear to grow.
    fn permuted(&self, order: &[Slot], width: usize, spare: usize) -> Self;
}

impl<T: Clone> Column for Vec<T> {
    type Element = T;

    fn push(&mut self, width: usize, fill: T) {
        self.resize(self.len() + width, fill);
    }

    fn reset(&mut self, slot: Slot, width: usize, fill: T) {
        self[slot as usize * width..(slot as usize + 1) * width].fill(fill);
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

    fn reset(&mut self, slot: Slot, width: usize, fill: f32) {
        self[slot as usize * width..(slot as usize + 1) * width].fill(fill);
    }

    fn permuted(&self, order: &[Slot], width: usize, spare: usize) -> Self {
        let mut permuted = Self::default();
        permuted.reserve((order.len() + spare) * width);
        for &slot in order {
            permuted.append(&self[slot as usize * width..(slot as usize + 1) * width]);
        }
        permuted
    }
}

/// Rows of `width` elements each, in another order.
pub(crate) fn rows<T: Clone>(from: &[T], width: usize, order: &[Slot]) -> Vec<T> {
    let row = |&slot: &Slot| &from[slot as usize * width..(slot as usize + 1) * width];
    order.iter().flat_map(row).cloned().collect()
}
