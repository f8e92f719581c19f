//! Hebb's rule: fire together, wire together, with the decay of a running mean.

use std::collections::BTreeMap;

use crate::activation::Activation;
use crate::config::Config;
use crate::graph::{Edge, Graph};
use crate::memory::{Memories, Slot};
use crate::trace::Trace;

/// Writes the transitions of one episode: `C_ij += e_i φ_j(x_{t+1})`, `n_i += e'_i`, i ≠ j.
///
/// `follows(t)` tells whether step t + 1 really followed step t. Returns the slots whose rows changed,
/// by rising id.
pub(crate) fn associate(
    graph: &mut Graph,
    memories: &Memories,
    activations: &[Activation],
    follows: impl Fn(usize) -> bool,
    config: &Config,
) -> Vec<Slot> {
    let mut trace = Trace::default();
    let mut touched = BTreeMap::new();
    for t in 0..activations.len() {
        if !follows(t) {
            trace.reset();
            continue;
        }
        trace.add(&activations[t], config);
        for from in trace.entries() {
            touched.insert(memories.id(from.slot), from.slot);
            graph.mass[from.slot as usize] += from.mass;
            for to in &activations[t + 1].answers {
                if to.slot != from.slot && from.e > 0.0 {
                    strengthen(graph, memories, from.slot, to.slot, from.e * to.phi);
                }
            }
        }
    }
    let touched: Vec<Slot> = touched.into_values().collect();
    for &slot in &touched {
        prune(graph, memories, slot, config.max_out);
    }
    touched
}

fn strengthen(graph: &mut Graph, memories: &Memories, from: Slot, to: Slot, amount: f64) {
    match place(graph.rows.names(from), to, memories) {
        Ok(at) => graph.rows.weights_mut(from)[at] += amount,
        Err(at) => {
            graph.rows.insert(from, at, to, amount);
            if let Err(at) = place(graph.sources.names(to), from, memories) {
                graph.sources.insert(to, at, from, ());
            }
        }
    }
}

/// Where a memory is, or belongs, among others by rising id.
fn place(among: &[Slot], slot: Slot, memories: &Memories) -> Result<usize, usize> {
    let id = memories.id(slot);
    among.binary_search_by_key(&id, |&other| memories.id(other))
}

/// Keeps the `max_out` largest sums of a row; a pruned successor starts again from 0.
fn prune(graph: &mut Graph, memories: &Memories, slot: Slot, max_out: usize) {
    if graph.row(slot).len() <= max_out {
        return;
    }
    let mut row: Vec<Edge> = graph.row(slot).into_iter().collect();
    for gone in keep_largest(&mut row, max_out, memories) {
        if let Ok(at) = place(graph.rows.names(slot), gone, memories) {
            graph.rows.remove(slot, at);
        }
        if let Ok(at) = place(graph.sources.names(gone), slot, memories) {
            graph.sources.remove(gone, at);
        }
    }
}

/// Cuts a row to its `most` largest sums, ties by lower id, and returns the targets cut off.
pub(crate) fn keep_largest(row: &mut Vec<Edge>, most: usize, memories: &Memories) -> Vec<Slot> {
    if row.len() <= most {
        return Vec::new();
    }
    row.sort_by(|a, b| {
        let ids = memories.id(a.target).cmp(&memories.id(b.target));
        b.sum.total_cmp(&a.sum).then(ids)
    });
    let gone = row.split_off(most).iter().map(|edge| edge.target).collect();
    row.sort_by_key(|edge| memories.id(edge.target));
    gone
}

/// Forgets the row and the column of a memory; nothing is renormalised.
///
/// Returns the former predecessors, whose values may now be wrong.
pub(crate) fn forget(graph: &mut Graph, memories: &Memories, slot: Slot) -> Vec<Slot> {
    for target in graph.rows.names(slot).to_vec() {
        if let Ok(at) = place(graph.sources.names(target), slot, memories) {
            graph.sources.remove(target, at);
        }
    }
    graph.rows.clear(slot);
    graph.mass[slot as usize] = 0.0;
    let sources = graph.sources.names(slot).to_vec();
    graph.sources.clear(slot);
    for &source in &sources {
        if let Ok(at) = place(graph.rows.names(source), slot, memories) {
            graph.rows.remove(source, at);
        }
    }
    sources
}
