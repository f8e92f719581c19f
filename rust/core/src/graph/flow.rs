//! Weight that flows along associations: of needs, and of activation that spreads.

use crate::base::Slot;
use crate::graph::Graph;
use crate::memory::Memories;

/// Weights by slot. Only memories that some weight has reached are visited, by rising id, so that sums have one order.
pub(crate) struct Flow {
    /// By slot; 0 outside of `active`.
    now: Vec<f64>,
    next: Vec<f64>,
    active: Vec<Slot>,
}

impl Flow {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            now: vec![0.0; slots],
            next: vec![0.0; slots],
            active: Vec::new(),
        }
    }

    /// Starts with the given weights. All weights must be zero before.
    pub(crate) fn begin(
        &mut self,
        weights: impl Iterator<Item = (Slot, f64)>,
        memories: &Memories,
    ) {
        for (slot, weight) in weights {
            if self.now[slot as usize] == 0.0 {
                self.active.push(slot);
            }
            self.now[slot as usize] += weight;
        }
        self.active.sort_unstable_by_key(|&slot| memories.id(slot));
    }

    /// Replaces the weights: `a_j ← source_j + share·Σ_i a_i P_ij`.
    pub(crate) fn step(
        &mut self,
        sources: impl Iterator<Item = (Slot, f64)>,
        share: f64,
        graph: &Graph,
        memories: &Memories,
    ) {
        let mut reached = Vec::new();
        let next = &mut self.next;
        let mut add = |slot: Slot, weight: f64| {
            if weight > 0.0 {
                let next = &mut next[slot as usize];
                if *next == 0.0 {
                    reached.push(slot);
                }
                *next += weight;
            }
        };
        for (slot, weight) in sources {
            add(slot, weight);
        }
        for slot in self.active.drain(..) {
            let here = share * std::mem::take(&mut self.now[slot as usize]);
            for (successor, p) in graph.successors(slot) {
                add(successor, here * p);
            }
        }
        reached.sort_unstable_by_key(|&slot| memories.id(slot));
        std::mem::swap(&mut self.now, &mut self.next);
        self.active = reached;
    }

    /// The memories of positive weight, by rising id.
    pub(crate) fn weights(&self) -> impl Iterator<Item = (Slot, f64)> + '_ {
        self.active
            .iter()
            .map(|&slot| (slot, self.now[slot as usize]))
    }

    /// Sets all weights to zero.
    pub(crate) fn clear(&mut self) {
        for slot in self.active.drain(..) {
            self.now[slot as usize] = 0.0;
        }
    }
}
