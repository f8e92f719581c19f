//! Replay that looks ahead: a floor under every gain, and the last backup continued by what comes next.
//!
//! Both are due to [Mattar & Daw (2018)](https://doi.org/10.1038/s41593-018-0232-z). With need computed from the current
//! position, sequences run forwards along the most likely successors; prioritised replay alone runs backwards from changes.

use serde::{Deserialize, Serialize};

use crate::base::Slot;
use crate::values::{Budget, Model, Needs, PushOutcome, Queue, SweepThreshold, Values, distance};

/// Most places of a backup of several steps: its last one moves its first by γ^63 at most.
const MAX_PLACES: usize = 64;

/// The most backups whose places a sleep reports.
const MAX_TRAIL: usize = 1 << 20;

/// Extensions of prioritised replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lookahead {
    /// The least that every gain counts, so that replay goes on by need when no gain is left; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")] // as written before it existed
    pub floor: f64,
    /// Whether the last backup may be continued by the most likely successor of its last place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extend: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks for it")]
fn is_zero(floor: &f64) -> bool {
    *floor == 0.0
}

impl Lookahead {
    /// Whether any extension is on.
    pub(crate) fn any(self) -> bool {
        self.floor > 0.0 || self.extend
    }
}

/// The places of the last backup, in the order in which they lead to each other.
struct Sequence {
    places: Vec<Slot>,
    /// What a backup of it would write, `(places, Q)`, from the last place on.
    written: Vec<f32>,
    /// By slot: one more than its row in `written`, 0 for none.
    row: Vec<u32>,
}

impl Sequence {
    fn new(model: Model<'_>) -> Self {
        Self {
            places: Vec::new(),
            written: Vec::new(),
            row: vec![0; model.memories.slots()],
        }
    }

    /// The most likely successor of the last place, ties to the lower id; none if the sequence has been there, if it has
    /// no successors itself, or if the sequence is as long as may be.
    fn next(&self, model: Model<'_>) -> Option<Slot> {
        if self.places.len() == MAX_PLACES {
            return None;
        }
        let mut likely: Option<(Slot, f64)> = None;
        for (successor, p) in model.graph.successors(*self.places.last()?) {
            if likely.is_none_or(|(_, most)| p > most) {
                likely = Some((successor, p));
            }
        }
        let (next, _) = likely?;
        (model.has_successors(next) && !self.places.contains(&next)).then_some(next)
    }

    /// `Σ need·gain` of the places and of `next` when they are backed up one after the other, the last one first.
    fn worth(&mut self, next: Slot, values: &Values, queue: &Queue<'_>, model: Model<'_>) -> f64 {
        let channels = values.channels();
        let mut backed = vec![0.0; channels];
        let mut sum = 0.0;
        self.written.clear();
        let from_the_last = || std::iter::once(next).chain(self.places.iter().rev().copied());
        for (row, slot) in (1..).zip(from_the_last()) {
            let of = |slot: Slot| match self.row[slot as usize] as usize {
                0 => values.of(slot),
                row => &self.written[(row - 1) * channels..row * channels],
            };
            model.propose_all(slot, of, &mut backed);
            sum += queue.worth(slot, distance(values.of(slot), &backed), model);
            self.written.extend_from_slice(&backed);
            self.row[slot as usize] = row;
        }
        for slot in from_the_last() {
            self.row[slot as usize] = 0;
        }
        sum
    }

    /// Backs up each place from the last to the first, then queues those places and the predecessors of those that changed.
    fn backup(&self, values: &mut Values, queue: &mut Queue<'_>, model: Model<'_>) {
        let mut changed = Vec::new();
        for &slot in self.places.iter().rev() {
            if values.backup(slot, model) {
                changed.push(slot);
            }
        }
        for &slot in &self.places {
            queue.update(slot, values, model);
        }
        for slot in changed {
            for &predecessor in model.graph.predecessors(slot) {
                queue.update(predecessor, values, model);
            }
        }
    }
}

/// Backs up the memory of largest `need·max_q|Δv|` first, until no gain exceeds `threshold` and no need counts, the budget
/// is spent, or sweeps are cheaper. Need only orders the backups: a memory without need is backed up last.
///
/// Returns why it ended and, with lookahead, the last place of each backup. With lookahead it never sweeps: the order is
/// the purpose.
pub(crate) fn replay(
    values: &mut Values,
    model: Model<'_>,
    needs: &Needs,
    threshold: f64,
    lookahead: Lookahead,
    switch: SweepThreshold,
    budget: &mut Budget,
) -> (PushOutcome, Vec<i64>) {
    let mut queue = Queue::new(needs, threshold, lookahead.floor, model);
    let most = if lookahead.any() {
        usize::MAX
    } else {
        switch.least.max(model.graph.edges() / switch.share)
    };
    let first: Vec<Slot> = if lookahead.floor > 0.0 {
        model.memories.in_order().to_vec()
    } else {
        let dirty = values.dirty_slots();
        dirty
            .filter(|&slot| values.owed(slot) > threshold)
            .collect()
    };
    let mut trail = Vec::new();
    for slot in first {
        queue.update(slot, values, model);
        if queue.active > most {
            return (PushOutcome::SweepsAreCheaper, trail);
        }
    }
    let mut last = Sequence::new(model);
    while let Some(first) = queue.first() {
        if queue.active > most {
            return (PushOutcome::SweepsAreCheaper, trail);
        }
        if !budget.take() {
            return (PushOutcome::Spent, trail);
        }
        let next = lookahead.extend.then(|| last.next(model)).flatten();
        if let Some(next) = next
            && last.worth(next, values, &queue, model) > first
        {
            last.places.push(next);
        } else if let Some(slot) = queue.pop(model) {
            last.places.clear();
            last.places.push(slot);
        }
        last.backup(values, &mut queue, model);
        queue.remove_clean(model);
        if let Some(&slot) = last.places.last()
            && lookahead.any()
            && trail.len() < MAX_TRAIL
        {
            trail.push(model.memories.id(slot));
        }
    }
    (PushOutcome::Done, trail)
}
