//! `coverage`: every means pays once, for the part of it not yet shown in this episode.
//!
//! ```text
//! φ'_iq(x) = φ_i(x)·(1 − f·reach_q(x))
//! r_t = G_t Σ_{i not a terminal} Σ_q [φ'_iq(x_t) − max_{u<t} φ'_iq(x_u)]⁺ · w_q [v_iq − b_q]⁺
//! ```
//!
//! Ends are paid by the terminal term of the reward, not here: terminals absorb activation and pay
//! nothing, and a step that is an end of channel q itself is no means to it (`fade`).
//! A memory whose weighted advantage is negative charges its full activation at every step, ungated:
//! harm is neither habituated, faded nor discounted.

use std::collections::BTreeMap;

use crate::score::Trajectory;
use crate::score::functional::{Functional, Payment};

pub(crate) struct Coverage;

impl Functional for Coverage {
    fn pay(&self, trajectory: &Trajectory<'_>, payments: &mut dyn FnMut(Payment)) {
        let worth = trajectory.worth;
        let scored = trajectory.scored();
        // max_{u<t} φ'_iq(x_u), prompt included, by slot.
        let mut shown = BTreeMap::new();
        for (t, activation) in trajectory.activations.iter().enumerate() {
            for answer in &activation.answers {
                let slot = answer.slot;
                let levels = shown
                    .entry(slot)
                    .or_insert_with(|| vec![0.0f64; worth.channels()]);
                let harmful = worth.total_advantage(slot) < 0.0;
                let pays = harmful || !worth.is_terminal(slot);
                for (q, level) in levels.iter_mut().enumerate() {
                    let faded = answer.phi * trajectory.fade(t, q);
                    let gain = (faded - *level).max(0.0);
                    *level = level.max(faded);
                    if !(pays && scored.contains(&t)) {
                        continue;
                    }
                    let share = if harmful {
                        answer.phi
                    } else {
                        trajectory.gates[t].open * gain * worth.freshness(slot)
                    };
                    payments(Payment {
                        step: t,
                        channel: q,
                        memory: Some(slot),
                        amount: share * worth.advantage(slot, q),
                    });
                }
            }
        }
    }
}
