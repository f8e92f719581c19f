//! How strongly memories answer to a step (`docs/model.md`, Activation and support).

use crate::base::Slot;
use crate::config::Config;
use crate::error::Result;
use crate::index::Hit;

/// The memories that answer to one step, by falling activation, ties by lower id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activation {
    /// σ(x) ∈ [0, 1].
    pub(crate) support: f64,
    /// Only memories with φ > 0.
    pub(crate) answers: Vec<Answer>,
}

/// One memory's answer to a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) slot: Slot,
    pub(crate) id: i64,
    /// The cosine s.
    pub(crate) similarity: f32,
    /// φ.
    pub(crate) phi: f64,
}

/// How memories answer to the queries of one call. A number that is absent is that of the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel {
    /// How many memories answer.
    pub k: Option<usize>,
    /// p: the higher, the more of the activation the nearest have.
    pub power: Option<u32>,
    /// τ: the cosine below which a memory does not answer.
    pub tau: Option<f32>,
}

impl Kernel {
    /// The configuration with these numbers.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) naming the number that is out of range.
    pub(crate) fn on(&self, config: &Config) -> Result<Config> {
        let config = Config {
            k: self.k.unwrap_or(config.k),
            power: self.power.unwrap_or(config.power),
            tau: self.tau.unwrap_or(config.tau),
            ..config.clone()
        };
        config.validate()?;
        Ok(config)
    }
}

/// κ = clip((s − τ)/(1 − τ), 0, 1)^p, by repeated multiplication (no powf: it differs between CPUs).
pub(crate) fn kappa(s: f32, config: &Config) -> f64 {
    let tau = f64::from(config.tau);
    let base = ((f64::from(s) - tau) / (1.0 - tau)).clamp(0.0, 1.0);
    let mut kappa = base;
    for _ in 1..config.power {
        kappa *= base;
    }
    kappa
}

/// ν: the novelty below which a step is merged.
///
/// κ rises with the cosine, so that merging above a cosine is merging below a novelty, whatever τ and p are.
pub(crate) fn merge_novelty(config: &Config) -> f64 {
    config.merge_cosine.map_or(config.min_novelty, |cosine| {
        1.0 - kappa(cosine as f32, config)
    })
}

/// `φ_i = κ_i / (ε + Σ_j κ_j)` over the hits, which come by falling similarity.
pub(crate) fn activate(hits: &[Hit], config: &Config) -> Activation {
    let mut answers: Vec<Answer> = hits
        .iter()
        .map(|hit| Answer {
            slot: hit.slot,
            id: hit.id,
            similarity: hit.similarity,
            phi: kappa(hit.similarity, config),
        })
        .take_while(|answer| answer.phi > 0.0)
        .collect();
    let support = answers.first().map_or(0.0, |answer| answer.phi);
    let total = answers.iter().fold(0.0, |sum, answer| sum + answer.phi);
    for answer in &mut answers {
        answer.phi /= config.epsilon + total;
    }
    Activation { support, answers }
}
