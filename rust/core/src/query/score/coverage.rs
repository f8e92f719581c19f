//! `coverage`: every means pays once, for the part of it not yet shown in this episode.
//!
//! ```text
//! r_t = G_t Σ_{i not a terminal} [φ_i(x_t) − max_{u<t} φ_i(x_u)]⁺ · Σ_q fade_q(x_t) w_q [v_iq − b_q]⁺
//! ```
//!
//! Ends are paid by the terminal term of the reward, not here: terminals absorb activation and pay
//! nothing, and a step that is an end of channel q itself is no means to it (`fade`).
//! A memory whose weighted advantage is negative charges its full activation at every step, ungated:
//! harm is neither habituated, faded nor discounted.

use std::collections::BTreeMap;

use crate::query::score::{Functional, Share, Trajectory};

pub(crate) struct Coverage;

impl Functional for Coverage {
    fn pay(&self, trajectory: &Trajectory<'_>, payments: &mut dyn FnMut(Share)) {
        let worth = trajectory.worth;
        let scored = trajectory.scored();
        // max_{u<t} φ_i(x_u), prompt included, by slot.
        let mut shown = BTreeMap::new();
        for (t, activation) in trajectory.activations.iter().enumerate() {
            for answer in &activation.answers {
                let slot = answer.slot;
                let level = shown.entry(slot).or_insert(0.0f64);
                let gain = (answer.phi - *level).max(0.0);
                *level = level.max(answer.phi);
                let harmful = worth.total_advantage(slot) < 0.0;
                if !scored.contains(&t) || (worth.is_terminal(slot) && !harmful) {
                    continue;
                }
                for q in 0..worth.channels() {
                    let share = if harmful {
                        answer.phi
                    } else {
                        trajectory.gates[t].open
                            * gain
                            * worth.freshness(slot)
                            * trajectory.fade(t, q)
                    };
                    payments(Share {
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
