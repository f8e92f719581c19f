//! `coverage`: every means pays once, for the part of it not yet shown in this episode.
//!
//! ```text
//! r_t = G_t Σ_{i not a terminal} [φ_i(x_t) − max_{u<t} φ_i(x_u)]⁺ · Σ_q w_q [v_iq − b_q]⁺
//! ```
//!
//! Terminals absorb activation and pay nothing: ends are paid by the terminal term of the reward.
//! A memory whose weighted advantage is negative charges its full activation at every step, ungated:
//! harm is neither habituated nor discounted.

use std::collections::BTreeMap;

use crate::score::Trajectory;
use crate::score::functional::{Functional, Payment};

pub(crate) struct Coverage;

impl Functional for Coverage {
    fn pay(&self, trajectory: &Trajectory<'_>, payments: &mut dyn FnMut(Payment)) {
        let worth = trajectory.worth;
        let scored = trajectory.scored();
        // max_{u<t} φ_i(x_u), prompt included, by slot.
        let mut shown = BTreeMap::new();
        for (t, activation) in trajectory.activations.iter().enumerate() {
            for answer in &activation.answers {
                let level = shown.entry(answer.slot).or_insert(0.0f64);
                let gain = (answer.phi - *level).max(0.0);
                *level = level.max(answer.phi);
                if !scored.contains(&t) {
                    continue;
                }
                let share = if worth.total_advantage(answer.slot) < 0.0 {
                    answer.phi
                } else if worth.is_terminal(answer.slot) {
                    continue;
                } else {
                    trajectory.gates[t].open * gain * worth.freshness(answer.slot)
                };
                for q in 0..worth.channels() {
                    payments(Payment {
                        step: t,
                        channel: q,
                        memory: Some(answer.slot),
                        amount: share * worth.advantage(answer.slot, q),
                    });
                }
            }
        }
    }
}
