//! Every number of the model, validated once and stored with the data.

use serde::{Deserialize, Serialize};

use crate::base::no_heap;
use crate::error::{Result, in_range, invalid_if};

/// Which value equation the store solves (`docs/model.md`, Value and replay).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Equation {
    /// `v = max(r, γ Σ P v)`: the best of stopping here or going on. Drives must be ≥ 0.
    Stopping,
    /// `v = r + γ Σ P v`: the usual discounted return.
    Return,
}

/// Every number of the model. Symbols in brackets are those of `docs/model.md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Dimension of the embeddings (d).
    pub dim: usize,
    /// How many nearest memories answer to a step (k).
    pub k: usize,
    /// Cosine below which nothing is known (τ).
    pub tau: f32,
    /// Integer exponent of the activation (p).
    pub power: u32,
    /// What keeps the activation sub-stochastic (ε).
    pub epsilon: f64,
    /// Discount of the value equation (γ).
    pub gamma: f64,
    /// Decay of the eligibility trace (λ).
    pub trace: f64,
    /// How many entries a trace keeps (`m_trace`).
    pub trace_size: usize,
    /// How many successors a row keeps (`max_out`).
    pub max_out: usize,
    /// Novelty from which a step is a memory of its own (ν).
    #[serde(rename = "novelty")]
    pub min_novelty: f64,
    /// Cosine above which a step is merged into the nearest memory; where it is given, ν follows from it.
    #[serde(default, skip_serializing_if = "Option::is_none")] // as written before it existed
    pub merge_cosine: Option<f64>,
    /// Worth from which a novel step is admitted (θ).
    #[serde(rename = "worth")]
    pub min_worth: f64,
    /// Weight of novelty in the worth (`w_n`).
    pub w_novelty: f64,
    /// Weight of surprise in the worth (`w_s`).
    pub w_surprise: f64,
    /// Weight of drive in the worth (`w_d`).
    pub w_drive: f64,
    /// Share of the pay that needs no edge support (ρ).
    pub rho: f64,
    /// Support from which the gate is fully open (`σ_0`).
    pub sigma_0: f64,
    /// How much of a channel's pay a step loses by being an end of it itself (f).
    pub fade: f64,
    /// The value equation.
    pub equation: Equation,
    /// Most memories the store holds, terminals included; `None` is no limit.
    pub capacity: Option<usize>,
    /// Observed episodes after which the weight of merges in the retention halves (h).
    pub half_life: u64,
    /// Cosine of prediction and step at which edge support begins, until measured (`e_lo`).
    pub e_lo: f64,
    /// Cosine of prediction and step at which edge support is full, until measured (`e_hi`).
    pub e_hi: f64,
    /// Within-episode cosine at which redundancy begins to cost (`d_lo`).
    pub d_lo: f64,
    /// Within-episode cosine at which a step pays nothing (`d_hi`).
    pub d_hi: f64,
    /// Keep the raw episodes, so that `veto` can replay history without one of them.
    pub keep_episodes: bool,
}

no_heap!(Config);

impl Config {
    /// The defaults of the model for embeddings of dimension `dim`.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        Self {
            dim,
            k: 16,
            tau: 0.20,
            power: 2,
            epsilon: 0.02,
            gamma: 0.70,
            trace: 0.0,
            trace_size: 64,
            max_out: 32,
            min_novelty: 0.9,
            merge_cosine: None,
            min_worth: 0.0,
            w_novelty: 1.0,
            w_surprise: 0.0,
            w_drive: 0.0,
            rho: 0.75,
            sigma_0: 0.02,
            fade: 1.0,
            equation: Equation::Stopping,
            capacity: None,
            half_life: 1024,
            e_lo: 0.1,
            e_hi: 0.6,
            d_lo: 0.52,
            d_hi: 0.79,
            keep_episodes: true,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] naming the first field that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let below = |name: &'static str, lo: f64, hi: f64| {
            // Both are numbers by now.
            invalid_if!(lo >= hi, name, "{lo} is not below {hi}");
            Ok(())
        };
        in_range("dim", self.dim, 1, 1 << 20)?;
        in_range("k", self.k, 1, 4096)?;
        in_range("tau", f64::from(self.tau), -1.0, f64::from(0.999_f32))?;
        in_range("power", self.power as usize, 1, 16)?;
        in_range("epsilon", self.epsilon, 1e-3, 1e3)?;
        in_range("gamma", self.gamma, 0.0, 0.9999)?;
        in_range("trace", self.trace, 0.0, 1.0)?;
        in_range("trace_size", self.trace_size, 1, 1 << 20)?;
        in_range("max_out", self.max_out, 1, 1 << 20)?;
        in_range("min_novelty", self.min_novelty, 0.0, 1.0)?;
        if let Some(cosine) = self.merge_cosine {
            in_range("merge_cosine", cosine, -1.0, 1.0)?;
        }
        for (name, x) in [
            ("min_worth", self.min_worth),
            ("w_novelty", self.w_novelty),
            ("w_surprise", self.w_surprise),
            ("w_drive", self.w_drive),
        ] {
            in_range(name, x, -1e9, 1e9)?;
        }
        in_range("rho", self.rho, 0.0, 1.0)?;
        in_range("fade", self.fade, 0.0, 1.0)?;
        in_range("sigma_0", self.sigma_0, 1e-12, 1.0)?;
        invalid_if!(self.capacity == Some(0), "capacity", "0 is not in [1, …]");
        invalid_if!(self.half_life == 0, "half_life", "0 is not in [1, …]");
        for (name, x) in [
            ("e_lo", self.e_lo),
            ("e_hi", self.e_hi),
            ("d_lo", self.d_lo),
            ("d_hi", self.d_hi),
        ] {
            in_range(name, x, -2.0, 2.0)?;
        }
        below("e_lo", self.e_lo, self.e_hi)?;
        below("d_lo", self.d_lo, self.d_hi)
    }
}
