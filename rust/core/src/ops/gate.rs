//! The gate: writing premised on worth.
//!
//! ```text
//! worth(x) = w_n·novelty + w_s·|surprise| + w_d·drive,     novelty = 1 − σ(x)
//! novelty ≥ ν and worth ≥ θ   a new memory
//! novelty < ν                 merged into the nearest memory
//! otherwise                   dropped
//! ```

use crate::base::Slot;
use crate::config::Equation;
use crate::index::{Activation, Hit, kappa, merge_novelty};
use crate::linalg;
use crate::memory::{Episode, Kind, NewMemory, Provenance};
use crate::store::Store;

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is a memory of its own.
    New,
    /// It went into the nearest memory.
    Merged,
    /// It was novel but not worth keeping.
    Dropped,
    /// Its episode was put aside, to be written when a replay consolidates.
    Proposed,
}

/// Where a step went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    /// `None` where dropped.
    pub(crate) memory: Option<(i64, Slot)>,
    pub(crate) outcome: Outcome,
}

/// `r_q` of every step of an episode, `(T, Q)`: what the step itself satisfies.
pub(crate) fn step_drives(store: &Store, episode: &Episode, steps: &[f32]) -> Vec<f32> {
    let dim = store.config().dim;
    let scalars = store.scalar_count();
    let mut drives = Vec::with_capacity(episode.len() * store.channels().len());
    for (t, x) in steps.chunks_exact(dim).enumerate() {
        let mut scalar = 0;
        for channel in store.channels() {
            drives.push(match &channel.kind {
                Kind::Terminal { memory } => {
                    let slot = store.memories.held(*memory);
                    channel.drive(linalg::dot(x, store.memories.key(slot)))
                }
                Kind::Scalar => {
                    let observed = episode.drives[t * scalars + scalar];
                    scalar += 1;
                    if observed.is_nan() { 0.0 } else { observed }
                }
            });
        }
    }
    drives
}

/// `|surprise|` of every step, from the values before the episode:
/// `Σ_q |target_q − Φ_q(x_t)|`, target = max(r, γΦ(x_{t+1})) or r + γΦ(x_{t+1}), r at an end.
pub(crate) fn surprises(
    store: &Store,
    episode: &Episode,
    drives: &[f32],
    before: &[Activation],
) -> Vec<f64> {
    let channels = store.channels().len();
    let phi: Vec<Vec<f64>> = before.iter().map(|a| store.phi(a)).collect();
    (0..episode.len())
        .map(|t| {
            (0..channels).fold(0.0, |sum, q| {
                let r = f64::from(drives[t * channels + q]);
                let target = if episode.continues(t) {
                    let ahead = store.config().gamma * phi[t + 1][q];
                    match store.config().equation {
                        Equation::Stopping => r.max(ahead),
                        Equation::Return => r + ahead,
                    }
                } else {
                    r
                };
                sum + (target - phi[t][q]).abs()
            })
        })
        .collect()
}

impl Store {
    /// `1 − σ` of a step.
    fn novelty(&self, nearest: Option<Hit>) -> f64 {
        1.0 - nearest.map_or(0.0, |hit| kappa(hit.similarity, &self.config))
    }

    /// Passes one step through the gate.
    pub(crate) fn admit(
        &mut self,
        episode: &Episode,
        t: usize,
        x: &[f32],
        nearest: Option<Hit>,
        surprise: f64,
        drive: f64,
    ) -> Admission {
        let novelty = self.novelty(nearest);
        let config = &self.config;
        let merged_below = merge_novelty(config);
        let worth =
            config.w_novelty * novelty + config.w_surprise * surprise + config.w_drive * drive;
        let provenance = Provenance {
            origin: self.clock as i64,
            step: episode.positions[t],
        };
        match nearest {
            Some(hit) if novelty < merged_below => {
                self.memories.merge(hit.slot, x, provenance, self.clock);
                self.note_drives(hit.slot, episode, t);
                Admission {
                    memory: Some((hit.id, hit.slot)),
                    outcome: Outcome::Merged,
                }
            }
            _ if novelty >= merged_below && worth >= config.min_worth => {
                let new = NewMemory {
                    key: x,
                    terminal: false,
                    merged: 1,
                    clock: self.clock,
                    text: episode.texts.get(t).map(String::as_str),
                    provenance: Some(provenance),
                };
                let (id, slot) = self.create(&new);
                self.note_drives(slot, episode, t);
                Admission {
                    memory: Some((id, slot)),
                    outcome: Outcome::New,
                }
            }
            _ => Admission {
                memory: None,
                outcome: Outcome::Dropped,
            },
        }
    }

    /// Adds the step's observed scalar drives to its memory and derives the memory's drives anew.
    fn note_drives(&mut self, slot: Slot, episode: &Episode, t: usize) {
        let before = self.memories.drives(slot).to_vec();
        let scalars = self.scalar_count();
        for scalar in 0..scalars {
            let drive = episode.drives[t * scalars + scalar];
            if !drive.is_nan() {
                self.memories.observe_drive(slot, scalar, drive);
            }
        }
        self.memories.refresh_drives(slot, &self.channels);
        if self.memories.drives(slot) != before {
            self.changed(slot);
        }
    }
}
