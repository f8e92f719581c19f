//! Prioritised replay: the backup that matters most comes first (Moore & Atkeson 1993).

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::memory::Slot;
use crate::replay::backup::{Model, Values};
use crate::replay::sleep::Budget;

/// The queue by falling `need·gain`, ties by lower id.
struct Queue<'a> {
    need: &'a [f64],
    /// Gains up to this are left alone.
    threshold: f64,
    entries: BTreeSet<(Reverse<u64>, i64, Slot)>,
    priority: Vec<Option<u64>>,
}

impl Queue<'_> {
    /// Queues, moves or removes a memory by what a backup of it would now change.
    fn update(&mut self, slot: Slot, values: &Values, model: Model<'_>) {
        let id = model.memories.id(slot);
        if let Some(old) = self.priority[slot as usize].take() {
            self.entries.remove(&(Reverse(old), id, slot));
        }
        let gain = values.gain(slot, model);
        if gain > self.threshold {
            // The bits of non-negative floats are ordered as the floats are.
            let priority = (self.need[slot as usize] * gain).to_bits();
            self.priority[slot as usize] = Some(priority);
            self.entries.insert((Reverse(priority), id, slot));
        }
    }

    fn pop(&mut self) -> Option<Slot> {
        let (_, _, slot) = self.entries.pop_first()?;
        self.priority[slot as usize] = None;
        Some(slot)
    }
}

/// Backs up the dirty memories, largest `need·max_q|Δv|` first, until no gain exceeds `threshold`.
///
/// Need orders, it does not excuse: a memory that nobody needs comes last, but it comes.
pub(crate) fn replay(
    values: &mut Values,
    model: Model<'_>,
    need: &[f64],
    threshold: f64,
    budget: &mut Budget<'_>,
) {
    let mut queue = Queue {
        need,
        threshold,
        entries: BTreeSet::new(),
        priority: vec![None; model.memories.slots()],
    };
    for &slot in model.memories.in_order() {
        if values.is_dirty(slot) {
            queue.update(slot, values, model);
        }
    }
    while !queue.entries.is_empty() && budget.take() {
        let Some(slot) = queue.pop() else { break };
        if values.backup(slot, model) {
            for &predecessor in model.graph.predecessors(slot) {
                queue.update(predecessor, values, model);
            }
        }
    }
}
