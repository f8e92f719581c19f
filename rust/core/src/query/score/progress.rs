//! `progress`: new highs of each channel's value, for goal-directed tasks.
//!
//! ```text
//! r_t = G_t Σ_q w_q (B_q(t) − B_q(t−1)),   B_q(t) = max(B_q(t−1), Φ_q(x_t)),   B_q(−1) = 0
//! ```

use crate::query::score::Trajectory;
use crate::query::score::share::{Functional, Share};

pub(crate) struct Progress;

impl Functional for Progress {
    fn pay(&self, trajectory: &Trajectory<'_>, payments: &mut dyn FnMut(Share)) {
        let worth = trajectory.worth;
        let scored = trajectory.scored();
        let mut best = vec![0.0f64; worth.channels()];
        for (t, activation) in trajectory.activations.iter().enumerate() {
            for (q, best) in best.iter_mut().enumerate() {
                let phi = activation
                    .answers
                    .iter()
                    .fold(0.0, |sum, a| sum + a.phi * worth.value(a.slot, q));
                let rise = (phi - *best).max(0.0);
                *best = best.max(phi);
                if scored.contains(&t) {
                    payments(Share {
                        step: t,
                        channel: q,
                        memory: None,
                        amount: trajectory.gates[t].open * worth.weight(q) * rise,
                    });
                }
            }
        }
    }
}
