//! What a functional is, and the list of all of them.
//!
//! To add one: write a unit struct with [`Functional`] (here, or in a file of its own) and add its
//! name to [`ALL`]. Nothing else in Rust needs to change.

use crate::error::{Error, Result};
use crate::query::score::Trajectory;
use crate::query::score::coverage::Coverage;
use crate::query::score::potential::Potential;
use crate::query::score::progress::Progress;
use crate::query::score::share::{Functional, Share};

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
