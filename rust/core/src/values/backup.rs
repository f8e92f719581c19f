//! The value equations, one backup at a time. With the sweeps that call them, the only writer of values.
//!
//! ```text
//! stopping   v_iq ← max( r_iq , γ Σ_j P_ij v_jq )
//! return     v_iq ← r_iq + γ Σ_j P_ij v_jq
//! ```
//!
//! The sum runs in f64 by rising id of j; values are stored in f32.

use crate::base::Slot;
use crate::config::{Config, Equation};
use crate::graph::Graph;
use crate::memory::Memories;
use crate::values::Values;

/// Channels computed in one pass over a row.
const LANES: usize = 8;

/// What a backup reads, besides the values.
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

/// One channel of the value equation, with `ahead` = `Σ_j P_ij v_jq`.
#[inline]
pub(crate) fn solve(equation: Equation, gamma: f64, r: f32, ahead: f64) -> f32 {
    match equation {
        Equation::Stopping => f64::from(r).max(gamma * ahead) as f32,
        Equation::Return => (f64::from(r) + gamma * ahead) as f32,
    }
}

impl Model<'_> {
    /// What a backup of `slot` would write to the channels `q..q + out.len()`, given the values `of` each slot.
    #[inline]
    fn propose<'v>(&self, slot: Slot, of: impl Fn(Slot) -> &'v [f32], q: usize, out: &mut [f32]) {
        let drives = &self.memories.drives(slot)[q..q + out.len()];
        if !self.has_successors(slot) {
            out.copy_from_slice(drives);
            return;
        }
        let mut ahead = [0.0f64; LANES];
        for (successor, p) in self.graph.successors(slot) {
            for (ahead, &v) in ahead.iter_mut().zip(&of(successor)[q..q + out.len()]) {
                *ahead += p * f64::from(v);
            }
        }
        let Config {
            gamma, equation, ..
        } = *self.config;
        for ((out, &ahead), &r) in out.iter_mut().zip(&ahead).zip(drives) {
            *out = solve(equation, gamma, r, ahead);
        }
    }

    /// All channels of [`Model::propose`].
    pub(crate) fn propose_all<'v>(
        &self,
        slot: Slot,
        of: impl Fn(Slot) -> &'v [f32],
        out: &mut [f32],
    ) {
        for (part, out) in out.chunks_mut(LANES).enumerate() {
            self.propose(slot, &of, part * LANES, out);
        }
    }
}

impl Values {
    /// `max_q |Δv_iq|` that a backup of `slot` would make.
    pub(crate) fn gain(&self, slot: Slot, model: Model<'_>) -> f64 {
        let mut gain = 0.0;
        for q in (0..self.channels()).step_by(LANES) {
            let now = &self.of(slot)[q..self.channels().min(q + LANES)];
            let mut lanes = [0.0; LANES];
            let proposed = &mut lanes[..now.len()];
            model.propose(slot, |successor| self.of(successor), q, proposed);
            gain = distance(now, proposed).max(gain);
        }
        gain
    }

    /// One backup: the memory is clean then, and its predecessors dirty if its value changed. Returns
    /// whether it did.
    pub(crate) fn backup(&mut self, slot: Slot, model: Model<'_>) -> bool {
        let mut changed = false;
        // No memory leads to itself, so that the channels may be written one after the other.
        for q in (0..self.channels()).step_by(LANES) {
            let mut lanes = [0.0; LANES];
            let proposed = &mut lanes[..LANES.min(self.channels() - q)];
            model.propose(slot, |successor| self.of(successor), q, proposed);
            changed |= self.write(slot, q, proposed);
        }
        self.clean(slot);
        if changed {
            self.mark_predecessors(slot, model.graph);
        }
        changed
    }

    /// A bound on the sup distance to the fixed point: the largest gain left over `1 − γ`, because
    /// the backup is a γ-contraction (Banach; Puterman 1994, 6.3).
    pub(crate) fn residual(&self, model: Model<'_>) -> f64 {
        self.residual_up_to(f64::INFINITY, model)
    }

    /// The residual or, if it exceeds `tol`, some lower bound of it that exceeds `tol` too.
    pub(crate) fn residual_up_to(&self, tol: f64, model: Model<'_>) -> f64 {
        let contraction = 1.0 - model.config.gamma;
        let mut left = 0.0f64;
        for slot in self.dirty_slots() {
            if self.owed(slot) > left {
                left = left.max(self.gain(slot, model));
                if left / contraction > tol {
                    break;
                }
            }
        }
        left / contraction
    }
}

/// `max_q |a_q − b_q|`.
#[inline]
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).fold(0.0, |most: f64, (a, b)| {
        most.max((f64::from(*a) - f64::from(*b)).abs())
    })
}
