//! Prioritised replay: the backup that matters most comes first (Moore & Atkeson 1993).
//!
//! A push costs more than its share of a sweep, because the gains of all predecessors are computed again. So replay
//! pushes while little of the graph is active and sweeps once much of it is. The rule counts associations only, so
//! results never depend on time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::Slot;
use crate::values::{Model, Needs, Values};

/// When sweeps are cheaper than pushes: the queued memories have more than `least` associations, and more than one in
/// `share` of all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SweepThreshold {
    pub(crate) least: usize,
    pub(crate) share: usize,
}

impl SweepThreshold {
    /// Chosen from measured costs (`docs/model.md`, section 10).
    pub(crate) const MEASURED: Self = Self {
        least: 4096,
        share: 32,
    };
}

/// Why pushing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushOutcome {
    /// No gain is above the threshold.
    Done,
    /// The budget was spent.
    Spent,
    /// Sweeps are cheaper now.
    SweepsAreCheaper,
}

/// The queue by falling `need·gain`, ties by lower id.
pub(crate) struct Queue<'a> {
    needs: &'a Needs,
    /// Gains up to this are ignored.
    threshold: f64,
    /// What a backup counts at least; 0 where a backup that owes nothing is not made.
    floor: f64,
    /// An entry counts only while it is its memory's present priority.
    entries: BinaryHeap<(u64, Reverse<i64>, Slot)>,
    /// One more than the bits of `need·gain`, 0 for a memory that is not queued.
    priority: Vec<u64>,
    queued: usize,
    /// Associations of the queued memories.
    pub(crate) active: usize,
}

impl<'a> Queue<'a> {
    pub(crate) fn new(needs: &'a Needs, threshold: f64, floor: f64, model: Model<'_>) -> Self {
        Self {
            needs,
            threshold,
            floor,
            entries: BinaryHeap::new(),
            priority: vec![0; model.memories.slots()],
            queued: 0,
            active: 0,
        }
    }

    fn owes(&self, gain: f64) -> bool {
        gain > self.threshold
    }

    /// What a gain counts, times how much it is needed.
    pub(crate) fn worth(&self, slot: Slot, gain: f64, model: Model<'_>) -> f64 {
        let counted = if self.owes(gain) {
            gain.max(self.floor)
        } else {
            self.floor
        };
        self.needs.of(slot, model) * counted
    }

    /// Queues, moves or removes a memory by what a backup of it would now change.
    pub(crate) fn update(&mut self, slot: Slot, values: &mut Values, model: Model<'_>) {
        let gain = if values.is_dirty(slot) {
            let gain = values.gain(slot, model);
            values.owe(slot, gain);
            gain
        } else {
            0.0
        };
        let worth = self.worth(slot, gain, model);
        // A gain above the threshold is queued however small its need. A backup that changes nothing is queued only
        // if it is needed. The bits of non-negative floats are ordered as the floats are.
        let priority = if self.owes(gain) || (worth > 0.0 && model.has_successors(slot)) {
            worth.to_bits() + 1
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

    /// Drops stale entries once they are the majority.
    pub(crate) fn remove_clean(&mut self, model: Model<'_>) {
        if self.entries.len() > 2 * self.queued + 1024 {
            let present = self.priority.iter().enumerate().filter(|&(_, &p)| p > 0);
            self.entries = present
                .map(|(slot, &p)| (p, Reverse(model.memories.id(slot as Slot)), slot as Slot))
                .collect();
        }
    }

    /// What the first is worth.
    pub(crate) fn first(&mut self) -> Option<f64> {
        while let Some(&(priority, _, slot)) = self.entries.peek() {
            if self.priority[slot as usize] == priority {
                return Some(f64::from_bits(priority - 1));
            }
            self.entries.pop();
        }
        None
    }

    pub(crate) fn pop(&mut self, model: Model<'_>) -> Option<Slot> {
        while let Some((priority, _, slot)) = self.entries.pop() {
            if self.priority[slot as usize] == priority {
                self.remove(slot, model);
                return Some(slot);
            }
        }
        None
    }
}
