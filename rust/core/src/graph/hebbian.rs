//! Hebb's rule: fire together, wire together, with the decay of a running mean.

use std::collections::BTreeMap;

use crate::activation::Activation;
use crate::config::Config;
use crate::graph::{Edge, Graph, insert_source};
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
    let row = &mut graph.rows[from as usize];
    match row.binary_search_by_key(&memories.id(to), |edge| memories.id(edge.target)) {
        Ok(at) => row[at].sum += amount,
        Err(at) => {
            row.insert(
                at,
                Edge {
                    target: to,
                    sum: amount,
                },
            );
            insert_source(&mut graph.sources[to as usize], from, memories);
        }
    }
}

/// Keeps the `max_out` largest sums of a row; a pruned successor starts again from 0.
fn prune(graph: &mut Graph, memories: &Memories, slot: Slot, max_out: usize) {
    let mut row = std::mem::take(&mut graph.rows[slot as usize]);
    for gone in keep_largest(&mut row, max_out, memories) {
        graph.sources[gone as usize].retain(|&source| source != slot);
    }
    graph.rows[slot as usize] = row;
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
pub(crate) fn forget(graph: &mut Graph, slot: Slot) -> Vec<Slot> {
    for edge in std::mem::take(&mut graph.rows[slot as usize]) {
        graph.sources[edge.target as usize].retain(|&source| source != slot);
    }
    graph.mass[slot as usize] = 0.0;
    let sources = std::mem::take(&mut graph.sources[slot as usize]);
    for &source in &sources {
        graph.rows[source as usize].retain(|edge| edge.target != slot);
    }
    sources
}
