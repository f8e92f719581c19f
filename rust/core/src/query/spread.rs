//! Spreading activation: what a step brings to mind, near and far (Collins & Loftus 1975).
//!
//! ```text
//! a ← φ(x)        then, a number of times,        a_j ← (1 − damping)·φ_j(x) + damping·Σ_i a_i P_ij
//! ```
//!
//! That is a personalised `PageRank` that starts again from the memories that answer to the step (Haveliwala
//! 2002), stopped after so many rounds.

use std::collections::HashSet;

use crate::base::{Slot, threads};
use crate::error::{Error, Result, in_range};
use crate::graph::Flow;
use crate::index::Kernel;
use crate::store::Store;

/// How to spread activation.
#[derive(Clone, Copy, Debug)]
pub struct AssociateRequest<'a> {
    /// How often it flows.
    pub steps: usize,
    /// The share that flows on, in [0, 1].
    pub damping: f64,
    /// Memories returned for each query.
    pub k: usize,
    /// How memories answer to the query.
    pub kernel: Kernel,
    /// The ids of the memories that may answer and be returned: all if absent. Activation flows through the others, too.
    pub among: Option<&'a [i64]>,
    /// The default number if absent.
    pub threads: Option<usize>,
}

/// The `k` most active memories, ties by lower id, of each query.
pub(crate) fn associate(
    store: &Store,
    queries: &[f32],
    request: &AssociateRequest<'_>,
) -> Result<Vec<Vec<(i64, f64)>>> {
    let &AssociateRequest {
        steps, damping, k, ..
    } = request;
    in_range("damping", damping, 0.0, 1.0)?;
    in_range("k", k, 1, 1 << 20)?;
    let memories = &store.memories;
    let slot = |&id: &i64| {
        memories
            .slot(id)
            .ok_or_else(|| Error::unknown("memory", id))
    };
    let among: Option<HashSet<Slot>> = match request.among {
        Some(ids) => Some(ids.iter().map(slot).collect::<Result<_>>()?),
        None => None,
    };
    let among = |slot: Slot| among.as_ref().is_none_or(|slots| slots.contains(&slot));
    let threads = request.threads;
    let activations = store.activate_among(queries, &request.kernel, among, threads)?;
    let begin = || (Flow::new(memories.slots()), Vec::new());
    let work = |(flow, found): &mut (Flow, Vec<_>), query: usize| {
        let answers = activations[query].answers.iter();
        let mut start: Vec<(Slot, f64)> = answers.map(|a| (a.slot, a.phi)).collect();
        start.sort_by_key(|&(slot, _)| memories.id(slot));
        flow.begin(start.iter().copied(), memories);
        for _ in 0..steps {
            let sources = start
                .iter()
                .map(|&(slot, phi)| (slot, (1.0 - damping) * phi));
            flow.step(sources, damping, &store.graph, memories);
        }
        let active = flow.weights().filter(|&(slot, _)| among(slot));
        let mut active: Vec<(i64, f64)> = active.map(|(s, a)| (memories.id(s), a)).collect();
        flow.clear();
        active.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        active.truncate(k);
        found.push((query, active));
    };
    let found = threads::take_cells(activations.len(), threads, begin, work)?;
    let mut found: Vec<_> = found.into_iter().flat_map(|(_, found)| found).collect();
    found.sort_unstable_by_key(|&(query, _)| query);
    Ok(found.into_iter().map(|(_, found)| found).collect())
}
