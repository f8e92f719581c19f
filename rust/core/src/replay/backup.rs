//! The value equations, one backup at a time. The only writer of values.
//!
//! ```text
//! stopping   v_iq ← max( r_iq , γ Σ_j P_ij v_jq )
//! return     v_iq ← r_iq + γ Σ_j P_ij v_jq
//! ```
//!
//! The sum runs in f64 by rising id of j; values are stored in f32.

use crate::config::{Config, Equation};
use crate::graph::Graph;
use crate::memory::{Memories, Slot, narrow, widen};

/// `v_iq` and what is known about its being up to date.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    channels: usize,
    /// `(slot, Q)`.
    v: Vec<f32>,
    /// Set when a memory's row, mass, drive or a successor's value changed since its last backup.
    /// A memory that is not dirty would be left as it is by a backup, bit for bit.
    dirty: Vec<bool>,
    /// `b_q`: what the ordinary memory is worth; see [`super::baseline`].
    pub(crate) baseline: Vec<f32>,
}

/// What the equation needs to know.
#[derive(Clone, Copy)]
pub(crate) struct Model<'a> {
    pub(crate) config: &'a Config,
    pub(crate) memories: &'a Memories,
    pub(crate) graph: &'a Graph,
}

impl Model<'_> {
    pub(crate) fn has_successors(&self, slot: Slot) -> bool {
        !self.graph.row(slot).is_empty()
    }
}

impl Values {
    pub(crate) fn of(&self, slot: Slot) -> &[f32] {
        let at = slot as usize * self.channels;
        &self.v[at..at + self.channels]
    }

    pub(crate) fn is_dirty(&self, slot: Slot) -> bool {
        self.dirty[slot as usize]
    }

    pub(crate) fn mark(&mut self, slot: Slot) {
        self.dirty[slot as usize] = true;
    }

    /// A memory begins with its drive as its value.
    pub(crate) fn start(&mut self, slot: Slot, drives: &[f32]) {
        let n = slot as usize + 1;
        if self.dirty.len() < n {
            self.dirty.resize(n, false);
            self.v.resize(n * self.channels, 0.0);
        }
        self.dirty[slot as usize] = false;
        self.write(slot, drives);
    }

    pub(crate) fn restore(&mut self, slot: Slot, v: &[f32], dirty: bool) {
        self.start(slot, v);
        self.dirty[slot as usize] = dirty;
    }

    /// Adds a column that begins with the drives. Every memory with successors is dirty then.
    pub(crate) fn add_column(&mut self, memories: &Memories, graph: &Graph) {
        widen(&mut self.v, self.channels, 0.0);
        self.channels += 1;
        self.v.resize(self.dirty.len() * self.channels, 0.0);
        self.baseline.push(0.0);
        let q = self.channels - 1;
        for &slot in memories.in_order() {
            self.v[slot as usize * self.channels + q] = memories.drives(slot)[q];
            if !graph.row(slot).is_empty() {
                self.mark(slot);
            }
        }
    }

    pub(crate) fn remove_column(&mut self, q: usize) {
        narrow(&mut self.v, self.channels, q);
        self.channels -= 1;
        self.baseline.remove(q);
    }

    /// Replaces all values, for ablations: `v` is `(N, Q)` by rising id.
    pub(crate) fn replace(&mut self, memories: &Memories, v: &[f32]) {
        for (rank, &slot) in memories.in_order().iter().enumerate() {
            self.write(slot, &v[rank * self.channels..(rank + 1) * self.channels]);
        }
    }

    fn write(&mut self, slot: Slot, v: &[f32]) {
        let at = slot as usize * self.channels;
        self.v[at..at + self.channels].copy_from_slice(v);
    }

    /// What a backup of `slot` would write.
    pub(crate) fn proposed(&self, slot: Slot, model: Model<'_>) -> Vec<f32> {
        let drives = model.memories.drives(slot);
        if !model.has_successors(slot) {
            return drives.to_vec();
        }
        let mut ahead = vec![0.0f64; self.channels];
        for (successor, p) in model.graph.successors(slot) {
            for (ahead, &v) in ahead.iter_mut().zip(self.of(successor)) {
                *ahead += p * f64::from(v);
            }
        }
        let gamma = model.config.gamma;
        ahead
            .iter()
            .zip(drives)
            .map(|(&ahead, &r)| match model.config.equation {
                Equation::Stopping => f64::from(r).max(gamma * ahead) as f32,
                Equation::Return => (f64::from(r) + gamma * ahead) as f32,
            })
            .collect()
    }

    /// `max_q |Δv_iq|` that a backup of `slot` would make.
    pub(crate) fn gain(&self, slot: Slot, model: Model<'_>) -> f64 {
        distance(self.of(slot), &self.proposed(slot, model))
    }

    /// Writes `v` to `slot` and cleans it. Returns whether that changed anything: then the
    /// predecessors must be marked.
    pub(crate) fn overwrite(&mut self, slot: Slot, v: &[f32]) -> bool {
        let changed = self.of(slot) != v;
        self.write(slot, v);
        self.dirty[slot as usize] = false;
        changed
    }

    pub(crate) fn mark_predecessors(&mut self, slot: Slot, graph: &Graph) {
        for &predecessor in graph.predecessors(slot) {
            self.mark(predecessor);
        }
    }

    /// One backup. Returns whether the value changed.
    pub(crate) fn backup(&mut self, slot: Slot, model: Model<'_>) -> bool {
        let v = self.proposed(slot, model);
        let changed = self.overwrite(slot, &v);
        if changed {
            self.mark_predecessors(slot, model.graph);
        }
        changed
    }

    /// A bound on the sup distance to the fixed point: the largest gain left over `1 − γ`, because
    /// the backup is a γ-contraction (Banach; Puterman 1994, 6.3).
    pub(crate) fn residual(&self, model: Model<'_>) -> f64 {
        let left = model
            .memories
            .in_order()
            .iter()
            .filter(|&&slot| self.is_dirty(slot))
            .fold(0.0, |most: f64, &slot| most.max(self.gain(slot, model)));
        left / (1.0 - model.config.gamma)
    }
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).fold(0.0, |most: f64, (a, b)| {
        most.max((f64::from(*a) - f64::from(*b)).abs())
    })
}
