//! Iterative retrieval: paths along associations toward value.

use std::collections::BTreeSet;

use crate::base::{Slot, afford, cancel, threads};
use crate::error::{Result, invalid_if};
use crate::index::{Activation, Kernel};
use crate::memory::normalise;
use crate::query::score::worth::checked_weights;
use crate::store::Store;
use crate::values::Model;

/// One path through the value graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// The memories from start to end.
    pub ids: Vec<i64>,
    /// `φ(start)·Π(γP)·(w·v of the end)`.
    pub score: f64,
    /// `w·v` of each memory.
    pub values: Vec<f32>,
}

#[derive(Clone)]
struct Beam {
    slots: Vec<Slot>,
    reach: f64,
    score: f64,
}

/// How to look for paths.
#[derive(Clone, Copy, Debug)]
pub struct RecallRequest<'a> {
    /// Most memories of a path.
    pub depth: usize,
    /// Paths followed at a time, and paths returned.
    pub beams: usize,
    /// `w_q`; 1/Q each if absent.
    pub weights: Option<&'a [f64]>,
    /// How often a query is first drawn to what the store knows, `x ← normalise(Σ_i φ_i k_i)`
    /// (Hopfield 1982; Ramsauer et al. 2021).
    pub cleanup: usize,
    /// Only the best path to each end.
    pub distinct: bool,
    /// How memories answer to a query.
    pub kernel: Kernel,
    /// Threads for a batch; the default number if absent.
    pub threads: Option<usize>,
}

/// The paths of each query, by falling score.
///
/// A path is complete when stopping is at least as good as going on, when nothing follows that it has
/// not visited, or when it holds `depth` memories.
pub(crate) fn recall(
    store: &Store,
    queries: Vec<f32>,
    request: &RecallRequest<'_>,
) -> Result<Vec<Vec<Path>>> {
    invalid_if!(request.depth == 0, "depth", "0 is not in [1, …]");
    invalid_if!(request.beams == 0, "beams", "0 is not in [1, …]");
    let longest = request.depth.min(store.len());
    afford(
        "beams",
        request.beams.saturating_mul(longest),
        size_of::<Slot>(),
    )?;
    let weights = checked_weights(store, request.weights)?;
    let mut queries = queries;
    let activate =
        |queries: &[f32]| store.activate_among(queries, &request.kernel, |_| true, request.threads);
    for _ in 0..request.cleanup {
        let activations = activate(&queries)?;
        if !clean_up(store, &mut queries, &activations)? {
            break;
        }
    }
    let activations = activate(&queries)?;
    threads::map(activations.len(), request.threads, |at| {
        paths(store, &activations[at], &weights, request)
    })
}

/// Draws every query to the memories that answer to it; one that none answers to stays. Returns whether
/// any moved.
fn clean_up(store: &Store, queries: &mut [f32], activations: &[Activation]) -> Result<bool> {
    let dim = store.config().dim;
    let mut moved = false;
    for (query, activation) in queries.chunks_exact_mut(dim).zip(activations) {
        cancel::check()?;
        let mut sum = vec![0.0f32; dim];
        for answer in &activation.answers {
            let phi = answer.phi as f32;
            for (sum, key) in sum.iter_mut().zip(store.memories.key(answer.slot)) {
                *sum += phi * key;
            }
        }
        let before = query.to_vec();
        if normalise(&sum, query).is_some() && before != query {
            moved = true;
        }
    }
    Ok(moved)
}

fn paths(
    store: &Store,
    activation: &Activation,
    weights: &[f64],
    request: &RecallRequest<'_>,
) -> Vec<Path> {
    let (depth, beams) = (request.depth, request.beams);
    let worth = |slot: Slot, of: &[f32]| {
        debug_assert!(store.memories.id(slot) >= 0);
        weights
            .iter()
            .zip(of)
            .fold(0.0, |sum, (w, &v)| sum + w * f64::from(v))
    };
    let value = |slot: Slot| worth(slot, store.values.of(slot));
    let model: Model<'_> = store.model();
    let mut open: Vec<Beam> = activation
        .answers
        .iter()
        .map(|answer| Beam {
            slots: vec![answer.slot],
            reach: answer.phi,
            score: answer.phi * value(answer.slot),
        })
        .collect();
    let mut complete = Vec::new();
    for length in 1..=depth {
        keep_best(&mut open, beams, store);
        let mut longer = Vec::new();
        for beam in open {
            let here = *beam.slots.last().expect("a path begins somewhere");
            let onward: Vec<Beam> = model
                .graph
                .successors(here)
                .filter(|(next, _)| !beam.slots.contains(next))
                .map(|(next, p)| {
                    let reach = beam.reach * model.config.gamma * p;
                    let mut slots = beam.slots.clone();
                    slots.push(next);
                    Beam {
                        slots,
                        reach,
                        score: reach * value(next),
                    }
                })
                .collect();
            let stopping = worth(here, store.memories.drives(here));
            let going_on = model.graph.successors(here).fold(0.0, |sum, (next, p)| {
                sum + model.config.gamma * p * value(next)
            });
            if length == depth || onward.is_empty() || stopping >= going_on {
                complete.push(beam);
            } else {
                longer.extend(onward);
            }
        }
        open = longer;
    }
    if request.distinct {
        keep_best(&mut complete, usize::MAX, store);
        let mut ends = BTreeSet::new();
        complete.retain(|beam| ends.insert(beam.slots.last().copied()));
    }
    keep_best(&mut complete, beams, store);
    complete
        .into_iter()
        .map(|beam| Path {
            ids: beam.slots.iter().map(|&s| store.memories.id(s)).collect(),
            score: beam.score,
            values: beam.slots.iter().map(|&s| value(s) as f32).collect(),
        })
        .collect()
}

/// By falling score, ties by the ids along the path. A score of −0 ties with one of 0.
fn keep_best(paths: &mut Vec<Beam>, most: usize, store: &Store) {
    let ids = |beam: &Beam| -> Vec<i64> {
        beam.slots
            .iter()
            .map(|&slot| store.memories.id(slot))
            .collect()
    };
    paths.sort_by(|a, b| {
        (b.score + 0.0) // −0 and 0 are a tie
            .total_cmp(&(a.score + 0.0))
            .then_with(|| ids(a).cmp(&ids(b)))
    });
    paths.truncate(most);
}
