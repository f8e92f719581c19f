//! The gates: is the step known, did a known way lead here, and is it new within the episode?

use std::ops::Range;

use crate::error::Result;
use crate::graph::{EdgeRange, predict};
use crate::index::Activation;
use crate::linalg;
use crate::memory::{Batch, Kind};
use crate::query::score::worth::Worth;
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
    edges: &[f64],
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
            let edge = edges[t];
            let nearest = (scored..t)
                .map(|u| linalg::dot(batch.step(u), batch.step(t)))
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

/// E of every step of a batch: its agreement with what its predecessor led the store to expect; 0 where nothing was
/// expected, for prompt steps and for the first of an episode.
pub(crate) fn edge_supports(
    store: &Store,
    batch: &Batch,
    context: &[usize],
    activations: &[Activation],
    range: EdgeRange,
    threads: Option<usize>,
) -> Result<Vec<f64>> {
    let scored: Vec<usize> = (0..batch.episodes())
        .flat_map(|e| batch.range(e).skip(context[e].max(1)))
        .collect();
    let before: Vec<&Activation> = scored.iter().map(|&t| &activations[t - 1]).collect();
    let agreements = predict(&before, &store.graph, &store.memories, threads, |at, mu| {
        mu.map_or(0.0, |mu| {
            range.support(linalg::dot(mu, batch.step(scored[at])))
        })
    })?;
    let mut edges = vec![0.0; batch.len()];
    for (&t, edge) in scored.iter().zip(agreements) {
        edges[t] = edge;
    }
    Ok(edges)
}

/// `fade_q(x) = 1 − f·r_q(x)`, `(T, Q)` for the steps in `range`: an end is not a means to itself.
///
/// It is what is left of channel q's pay at a step that satisfies q itself by `r_q(x) = clip((⟨x, terminal_q⟩ −
/// low)/(high − low), 0, 1)²`. Without it, listing paraphrases of the terminals scores as well as telling how one gets
/// there: such steps activate what leads to the terminals without leading there. A channel to avoid does not fade, or the
/// other channels could pay more than the memory's whole advantage; nor does a scalar channel, whose drive is not observed
/// in scoring.
pub(crate) fn fades(
    store: &Store,
    worth: &Worth<'_>,
    batch: &Batch,
    range: Range<usize>,
) -> Vec<f64> {
    let strength = store.config().fade;
    let mut fades = Vec::with_capacity(range.len() * store.channels().len());
    for t in range {
        for (q, channel) in store.channels().iter().enumerate() {
            fades.push(match &channel.kind {
                Kind::Terminal { memory } if worth.weight(q) > 0.0 => {
                    let terminal = store.memories.held(*memory);
                    let s = linalg::dot(batch.step(t), store.memories.key(terminal));
                    1.0 - strength * f64::from(channel.drive(s))
                }
                _ => 1.0,
            });
        }
    }
    fades
}
