//! The gates: is the step known, did a known way lead here, and is it new within the episode?

use std::ops::Range;

use crate::activation::Activation;
use crate::episodes::Batch;
use crate::predict::{EdgeRange, predict};
use crate::simd;
use crate::store::Store;

/// The gates of one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate {
    /// σ.
    pub(crate) support: f64,
    /// E.
    pub(crate) edge: f64,
    /// H.
    pub(crate) redundancy: f64,
    /// `G = min(1, σ/σ_0)·(ρ + (1 − ρ)E)·H`; 0 for prompt steps.
    pub(crate) open: f64,
}

/// The gates of the steps in `range`, of which the first `context` are prompt.
pub(crate) fn gates(
    store: &Store,
    batch: &Batch,
    range: Range<usize>,
    context: usize,
    activations: &[Activation],
    edges: EdgeRange,
) -> Vec<Gate> {
    let config = store.config();
    let first = range.start;
    let scored = (first + context).min(range.end);
    range
        .map(|t| {
            let support = activations[t].support;
            if t < scored {
                return Gate {
                    support,
                    edge: 0.0,
                    redundancy: 1.0,
                    open: 0.0,
                };
            }
            let edge = if t > first {
                edge_support(store, &activations[t - 1], batch.step(t), edges)
            } else {
                0.0
            };
            let nearest = (scored..t)
                .map(|u| simd::dot(batch.step(u), batch.step(t)))
                .fold(f32::NEG_INFINITY, f32::max);
            let redundancy =
                ((config.d_hi - f64::from(nearest)) / (config.d_hi - config.d_lo)).clamp(0.0, 1.0);
            let known = (support / config.sigma_0).min(1.0);
            Gate {
                support,
                edge,
                redundancy,
                open: known * (config.rho + (1.0 - config.rho) * edge) * redundancy,
            }
        })
        .collect()
}

/// E: the agreement of the step with what its predecessor led the store to expect.
fn edge_support(store: &Store, before: &Activation, x: &[f32], edges: EdgeRange) -> f64 {
    predict(before, store.graph(), store.memories(), x.len())
        .map_or(0.0, |mu| edges.support(simd::dot(&mu, x)))
}
