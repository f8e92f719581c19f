//! The eligibility trace: which memories were active lately.

use crate::base::slot::Slot;
use crate::config::Config;
use crate::index::activation::Activation;

/// One memory's trace, decayed in two ways.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Eligible {
    pub(crate) slot: Slot,
    id: i64,
    /// e ← γλe + φ: what the sums grow by.
    pub(crate) e: f64,
    /// e' ← λe' + φ: what the mass grows by. e ≤ e', so rows stay sub-stochastic.
    pub(crate) mass: f64,
}

/// The traces of one episode, by rising id.
#[derive(Default)]
pub(crate) struct Trace(Vec<Eligible>);

impl Trace {
    pub(crate) fn reset(&mut self) {
        self.0.clear();
    }

    pub(crate) fn entries(&self) -> &[Eligible] {
        &self.0
    }

    /// Decays, adds the activation and keeps the `trace_size` largest e, ties by lower id.
    pub(crate) fn add(&mut self, activation: &Activation, config: &Config) {
        let Self(entries) = self;
        if config.trace == 0.0 {
            entries.clear();
        }
        for entry in entries.iter_mut() {
            entry.e *= config.gamma * config.trace;
            entry.mass *= config.trace;
        }
        for answer in &activation.answers {
            match entries.binary_search_by_key(&answer.id, |entry| entry.id) {
                Ok(at) => {
                    entries[at].e += answer.phi;
                    entries[at].mass += answer.phi;
                }
                Err(at) => entries.insert(
                    at,
                    Eligible {
                        slot: answer.slot,
                        id: answer.id,
                        e: answer.phi,
                        mass: answer.phi,
                    },
                ),
            }
        }
        if entries.len() > config.trace_size {
            entries.sort_by(|a, b| b.e.total_cmp(&a.e).then(a.id.cmp(&b.id)));
            entries.truncate(config.trace_size);
            entries.sort_by_key(|entry| entry.id);
        }
    }
}
