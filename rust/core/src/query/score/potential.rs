//! `potential`: policy-invariant dense shaping (Ng, Harada & Russell 1999), ungated.
//!
//! ```text
//! without a prompt   r_t = γ'Φ(x_{t+1}) − Φ(x_t)     the steps are the states
//! with a prompt      r_t = γ'Φ(x_t) − Φ(x_{t−1})     the state before a step is the step before it
//! ```
//!
//! `Φ = Σ_q w_q Φ_q`, and zero at termination: after the last step of the first form, at the last step of
//! the second. So `Σ γ'^t r_t` is −Φ of the state in which the policy began: a constant of the prompt.

use crate::query::score::Trajectory;
use crate::query::score::share::{Functional, Share};

pub(crate) struct Potential;

impl Functional for Potential {
    fn pay(&self, trajectory: &Trajectory<'_>, payments: &mut dyn FnMut(Share)) {
        let worth = trajectory.worth;
        let last = trajectory.len().saturating_sub(1);
        for t in trajectory.scored() {
            let (from, to) = if trajectory.context == 0 {
                (t, t + 1)
            } else {
                (t - 1, t)
            };
            for q in 0..worth.channels() {
                let phi = |t: usize| {
                    trajectory.activations[t]
                        .answers
                        .iter()
                        .fold(0.0, |sum, a| sum + a.phi * worth.value(a.slot, q))
                };
                let ahead = if t == last { 0.0 } else { phi(to) };
                payments(Share {
                    step: t,
                    channel: q,
                    memory: None,
                    amount: worth.weight(q) * (trajectory.discount * ahead - phi(from)),
                });
            }
        }
    }
}
