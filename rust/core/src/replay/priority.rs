//! Prioritised replay: the backup that matters most comes first (Moore & Atkeson 1993).
//!
//! A push costs more than its share of a sweep: the gains of all predecessors are worked out anew. So
//! replay pushes while little of the graph is active and sweeps once much of it is. The rule counts
//! associations and nothing else, so that results never depend on time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::memory::Slot;
use crate::replay::backup::Model;
use crate::replay::need::Needs;
use crate::replay::sleep::Budget;
use crate::replay::values::Values;

/// From when on sweeps are cheaper than pushes: the associations of the queued memories are more than
/// `least`, and more than one in `share` of all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switch {
    pub(crate) least: usize,
    pub(crate) share: usize,
}

impl Switch {
    /// Chosen from measured costs (`docs/model.md`, section 10).
    pub(crate) const MEASURED: Self = Self {
        least: 4096,
        share: 32,
    };
}

/// Why pushing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// No gain is above the threshold.
    Done,
    /// The budget was spent.
    Spent,
    /// Sweeps are cheaper now.
    TooMuch,
}

/// The queue by falling `need·gain`, ties by lower id.
struct Queue<'a> {
    needs: &'a Needs,
    /// Gains up to this are left alone.
    threshold: f64,
    /// An entry counts only while it is its memory's present priority.
    entries: BinaryHeap<(u64, Reverse<i64>, Slot)>,
    /// One more than the bits of `need·gain`, 0 for a memory that is not queued.
    priority: Vec<u64>,
    queued: usize,
    /// Associations of the queued memories.
    active: usize,
}

impl Queue<'_> {
    /// Queues, moves or removes a memory by what a backup of it would now change.
    fn update(&mut self, slot: Slot, values: &mut Values, model: Model<'_>) {
        let gain = values.gain(slot, model);
        values.owe(slot, gain);
        // The bits of non-negative floats are ordered as the floats are.
        let priority = if gain > self.threshold {
            (self.needs.of(slot, model) * gain).to_bits() + 1
        } else {
            0
        };
        let old = self.priority[slot as usize];
        if priority == old {
            return;
        }
        self.remove(slot, model);
        if priority > 0 {
            self.priority[slot as usize] = priority;
            self.queued += 1;
            self.active += model.graph.row(slot).len();
            self.entries
                .push((priority, Reverse(model.memories.id(slot)), slot));
        }
    }

    fn remove(&mut self, slot: Slot, model: Model<'_>) {
        if std::mem::take(&mut self.priority[slot as usize]) > 0 {
            self.queued -= 1;
            self.active -= model.graph.row(slot).len();
        }
    }

    fn pop(&mut self, model: Model<'_>) -> Option<Slot> {
        while let Some((priority, _, slot)) = self.entries.pop() {
            if self.priority[slot as usize] == priority {
                self.remove(slot, model);
                return Some(slot);
            }
        }
        None
    }
}

/// Backs up the dirty memories, largest `need·max_q|Δv|` first, until no gain exceeds `threshold` or
/// sweeps are cheaper.
///
/// Need orders, it does not excuse: a memory that nobody needs comes last, but it comes.
pub(crate) fn replay(
    values: &mut Values,
    model: Model<'_>,
    needs: &Needs,
    threshold: f64,
    switch: Switch,
    budget: &mut Budget<'_>,
) -> Pushed {
    let most = switch.least.max(model.graph.edges() / switch.share);
    let mut queue = Queue {
        needs,
        threshold,
        entries: BinaryHeap::new(),
        priority: vec![0; model.memories.slots()],
        queued: 0,
        active: 0,
    };
    let dirty: Vec<Slot> = values
        .dirty_slots()
        .filter(|&slot| values.owed(slot) > threshold)
        .collect();
    for slot in dirty {
        queue.update(slot, values, model);
        if queue.active > most {
            return Pushed::TooMuch;
        }
    }
    while queue.queued > 0 {
        if queue.active > most {
            return Pushed::TooMuch;
        }
        if !budget.take() {
            return Pushed::Spent;
        }
        let Some(slot) = queue.pop(model) else { break };
        if values.backup(slot, model) {
            for &predecessor in model.graph.predecessors(slot) {
                queue.update(predecessor, values, model);
            }
        }
    }
    Pushed::Done
}
