//! What a functional is, and the list of all of them.
//!
//! To add one: write a unit struct with [`Functional`] (here, or in a file of its own) and add its
//! name to [`ALL`]. Nothing else in Rust needs to change.

use crate::error::{Error, Result};
use crate::query::score::coverage::Coverage;
use crate::query::score::{Functional, Share, Trajectory};

/// Every functional by name.
static ALL: [(&str, &dyn Functional); 4] = [
    ("coverage", &Coverage),
    ("progress", &Progress),
    ("potential", &Potential),
    ("mean", &Mean),
];

/// The names of all functionals, the default first.
#[must_use]
pub fn functionals() -> Vec<&'static str> {
    ALL.iter().map(|&(name, _)| name).collect()
}

pub(crate) fn by_name(name: &str) -> Result<&'static dyn Functional> {
    ALL.iter()
        .find(|&&(known, _)| known == name)
        .map(|&(_, functional)| functional)
        .ok_or_else(|| {
            let names = functionals().join(", ");
            Error::invalid("functional", format!("{name:?} is not one of {names}"))
        })
}

/// `mean`: the mean of `Σ_q w_q Φ_q(x_t)` over the scored steps, ungated.
///
/// The naive baseline: it pays for repetition, and is kept to be compared with.
struct Mean;

impl Functional for Mean {
    fn pay(&self, trajectory: &Trajectory<'_>, payments: &mut dyn FnMut(Share)) {
        let steps = trajectory.scored();
        let n = steps.len() as f64;
        for t in steps {
            for answer in &trajectory.activations[t].answers {
                for q in 0..trajectory.worth.channels() {
                    let value = trajectory.worth.value(answer.slot, q);
                    payments(Share {
                        step: t,
                        channel: q,
                        memory: Some(answer.slot),
                        amount: trajectory.worth.weight(q) * answer.phi * value / n,
                    });
                }
            }
        }
    }
}

/// `progress`: new highs of each channel's value, for goal-directed tasks.
///
/// ```text
/// r_t = G_t Σ_q w_q (B_q(t) − B_q(t−1)),   B_q(t) = max(B_q(t−1), Φ_q(x_t)),   B_q(−1) = 0
/// ```
struct Progress;

impl Functional for Progress {
    fn pay(&self, trajectory: &Trajectory<'_>, payments: &mut dyn FnMut(Share)) {
        let worth = trajectory.worth;
        let scored = trajectory.scored();
        let mut best = vec![0.0f64; worth.channels()];
        for t in 0..trajectory.len() {
            for (q, best) in best.iter_mut().enumerate() {
                let phi = trajectory.phi(t, q);
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

/// `potential`: policy-invariant dense shaping (Ng, Harada & Russell 1999), ungated.
///
/// ```text
/// without a prompt   r_t = γ'Φ(x_{t+1}) − Φ(x_t)     the steps are the states
/// with a prompt      r_t = γ'Φ(x_t) − Φ(x_{t−1})     the state before a step is the step before it
/// ```
///
/// `Φ = Σ_q w_q Φ_q`, and zero at termination: after the last step of the first form, at the last step of
/// the second. So `Σ γ'^t r_t` is −Φ of the state in which the policy began: a constant of the prompt.
struct Potential;

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
                let ahead = if t == last {
                    0.0
                } else {
                    trajectory.phi(to, q)
                };
                let from = trajectory.phi(from, q);
                payments(Share {
                    step: t,
                    channel: q,
                    memory: None,
                    amount: worth.weight(q) * (trajectory.discount * ahead - from),
                });
            }
        }
    }
}
