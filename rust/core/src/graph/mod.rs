//! Which memory leads to which: forward and reverse adjacency.
//!
//! Sums and masses are stored, `P_ij = C_ij / n_i` is derived. [`hebbian`] is the only writer of weights.

pub(crate) mod hebbian;

use crate::memory::{Memories, Slot};

/// One association `i → target`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Edge {
    pub(crate) target: Slot,
    /// `C_ij`.
    pub(crate) sum: f64,
}

/// Rows by slot; within a row edges by rising id of the target, so that sums have one order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    rows: Vec<Vec<Edge>>,
    /// `n_i`: association mass.
    mass: Vec<f64>,
    /// The sources of the edges into a slot, by rising id.
    sources: Vec<Vec<Slot>>,
}

impl Graph {
    pub(crate) fn row(&self, slot: Slot) -> &[Edge] {
        &self.rows[slot as usize]
    }

    pub(crate) fn mass(&self, slot: Slot) -> f64 {
        self.mass[slot as usize]
    }

    /// `(j, P_ij)` of every successor of `slot`, by rising id of j.
    pub(crate) fn successors(&self, slot: Slot) -> impl Iterator<Item = (Slot, f64)> + '_ {
        let mass = self.mass(slot);
        self.row(slot)
            .iter()
            .map(move |edge| (edge.target, edge.sum / mass))
    }

    pub(crate) fn predecessors(&self, slot: Slot) -> &[Slot] {
        &self.sources[slot as usize]
    }

    /// Makes room for a memory in `slot`.
    pub(crate) fn ensure(&mut self, slot: Slot) {
        let n = slot as usize + 1;
        if self.rows.len() < n {
            self.rows.resize(n, Vec::new());
            self.mass.resize(n, 0.0);
            self.sources.resize(n, Vec::new());
        }
    }

    /// Writes a whole row, as a snapshot holds it: edges by rising id of their targets.
    pub(crate) fn restore_row(
        &mut self,
        slot: Slot,
        row: Vec<Edge>,
        mass: f64,
        memories: &Memories,
    ) {
        for edge in &row {
            insert_source(&mut self.sources[edge.target as usize], slot, memories);
        }
        self.rows[slot as usize] = row;
        self.mass[slot as usize] = mass;
    }

    /// Every row replaced by one and the same, with unit mass: the "constant P" ablation.
    pub(crate) fn with_constant_rows(&self, memories: &Memories, max_out: usize) -> Self {
        let mut column = vec![0.0f64; self.rows.len()];
        let mut total = 0.0;
        for &slot in memories.in_order() {
            total += self.mass(slot);
            for edge in self.row(slot) {
                column[edge.target as usize] += edge.sum;
            }
        }
        let mut row: Vec<Edge> = memories
            .in_order()
            .iter()
            .filter(|&&slot| column[slot as usize] > 0.0)
            .map(|&target| Edge {
                target,
                sum: column[target as usize] / total,
            })
            .collect();
        hebbian::keep_largest(&mut row, max_out, memories);
        let mut constant = Self::default();
        for &slot in memories.in_order() {
            constant.ensure(slot);
        }
        for &slot in memories.in_order() {
            let own = row.iter().copied().filter(|e| e.target != slot).collect();
            constant.restore_row(slot, own, 1.0, memories);
        }
        constant
    }
}

fn insert_source(sources: &mut Vec<Slot>, source: Slot, memories: &Memories) {
    let id = memories.id(source);
    if let Err(at) = sources.binary_search_by_key(&id, |&s| memories.id(s)) {
        sources.insert(at, source);
    }
}
