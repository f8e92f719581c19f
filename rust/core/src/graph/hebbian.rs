//! Hebb's rule: fire together, wire together, with the decay of a running mean.
//!
//! An episode strengthens a few associations of many memories several times, and most of the new ones are pruned at its
//! end. So each row is copied, strengthened, pruned and replaced once.

use crate::base::Slot;
use crate::config::Config;
use crate::graph::Graph;
use crate::index::Activation;
use crate::linalg;
use crate::memory::Memories;

/// One association of a row that is being changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    /// Of the target.
    pub(crate) id: i64,
    pub(crate) target: Slot,
    /// `C_ij`.
    pub(crate) sum: f64,
}

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
    // Eligible memories by rising id and then by time.
    let mut eligible: Vec<(i64, usize, Eligible)> = Vec::new();
    for (t, activation) in activations.iter().enumerate() {
        if !follows(t) {
            trace.reset();
            continue;
        }
        trace.add(activation, config);
        let now = trace.entries().iter();
        eligible.extend(now.map(|&from| (memories.id(from.slot), t, from)));
    }
    eligible.sort_unstable_by_key(|&(id, t, _)| (id, t));
    let answers: Vec<Vec<(i64, Slot, f64)>> = activations.iter().map(by_id).collect();
    let mut touched = Vec::new();
    let mut sources = eligible.chunk_by(|a, b| a.0 == b.0).peekable();
    while let Some(times) = sources.next() {
        if let Some(next) = sources.peek() {
            graph.prefetch(next[0].2.slot);
        }
        let slot = times[0].2.slot;
        let before = take_out(graph, memories, slot);
        let mut row = before.clone();
        for (_, t, from) in times {
            graph.mass[slot as usize] += from.mass;
            if from.e > 0.0 {
                row = strengthened(&row, from, &answers[t + 1]);
            }
        }
        keep_largest(&mut row, config.max_out);
        put_back(graph, memories, slot, &before, &row);
        touched.push(slot);
    }
    touched
}

/// `(id, slot, φ)` of the answers by rising id.
fn by_id(activation: &Activation) -> Vec<(i64, Slot, f64)> {
    let answers = activation.answers.iter();
    let mut named: Vec<_> = answers.map(|a| (a.id, a.slot, a.phi)).collect();
    named.sort_unstable_by_key(|&(id, ..)| id);
    named
}

fn take_out(graph: &Graph, memories: &Memories, slot: Slot) -> Vec<Outgoing> {
    let named = |edge: super::Edge| Outgoing {
        id: memories.id(edge.target),
        target: edge.target,
        sum: edge.sum,
    };
    graph.row(slot).edges().map(named).collect()
}

/// A row with `e·φ` added for every answer of the next step; all by rising id.
fn strengthened(row: &[Outgoing], from: &Eligible, answers: &[(i64, Slot, f64)]) -> Vec<Outgoing> {
    let mut after = Vec::with_capacity(row.len() + answers.len());
    let mut rest = row.iter().copied().peekable();
    for &(id, target, phi) in answers {
        if target == from.slot {
            continue;
        }
        while let Some(other) = rest.next_if(|other| other.id < id) {
            after.push(other);
        }
        let old = rest.next_if(|old| old.id == id).map_or(0.0, |old| old.sum);
        let sum = old + from.e * phi;
        after.push(Outgoing { id, target, sum });
    }
    after.extend(rest);
    after
}

/// Cuts a row to its `most` largest sums, ties by lower id; a pruned successor starts again from 0.
pub(crate) fn keep_largest(row: &mut Vec<Outgoing>, most: usize) {
    if row.len() <= most {
        return;
    }
    row.select_nth_unstable_by(most, |a, b| b.sum.total_cmp(&a.sum).then(a.id.cmp(&b.id)));
    row.truncate(most);
    row.sort_unstable_by_key(|out| out.id);
}

/// Replaces the row `before`, and updates the sources of the targets that were added or removed.
fn put_back(
    graph: &mut Graph,
    memories: &Memories,
    slot: Slot,
    before: &[Outgoing],
    after: &[Outgoing],
) {
    let changes = changes(before, after);
    for &(target, _) in &changes {
        // Each lies elsewhere in memory.
        linalg::prefetch(graph.sources.names(target));
    }
    for &(target, came) in &changes {
        if came {
            add_source(graph, memories, target, slot);
        } else {
            remove_source(graph, memories, target, slot);
        }
    }
    let targets: Vec<Slot> = after.iter().map(|out| out.target).collect();
    let sums: Vec<f64> = after.iter().map(|out| out.sum).collect();
    graph.rows.set(slot, &targets, &sums);
}

/// The targets that were added (`true`) or removed (`false`), by rising id.
fn changes(before: &[Outgoing], after: &[Outgoing]) -> Vec<(Slot, bool)> {
    let mut changes = Vec::new();
    let mut new = after.iter().peekable();
    for old in before {
        while let Some(came) = new.next_if(|new| new.id < old.id) {
            changes.push((came.target, true));
        }
        if new.next_if(|new| new.id == old.id).is_none() {
            changes.push((old.target, false));
        }
    }
    changes.extend(new.map(|came| (came.target, true)));
    changes
}

fn add_source(graph: &mut Graph, memories: &Memories, target: Slot, source: Slot) {
    if let Err(at) = place(graph.sources.names(target), source, memories) {
        graph.sources.insert(target, at, source, ());
    }
}

fn remove_source(graph: &mut Graph, memories: &Memories, target: Slot, source: Slot) {
    if let Ok(at) = place(graph.sources.names(target), source, memories) {
        graph.sources.remove(target, at);
    }
}

/// The place of a memory among others sorted by id, or the place to insert it.
fn place(among: &[Slot], slot: Slot, memories: &Memories) -> Result<usize, usize> {
    let id = memories.id(slot);
    among.binary_search_by_key(&id, |&other| memories.id(other))
}

/// Removes the row and the column of a memory; nothing is renormalised.
///
/// Returns the former predecessors, whose values may now be wrong.
pub(crate) fn forget(graph: &mut Graph, memories: &Memories, slot: Slot) -> Vec<Slot> {
    for target in graph.rows.names(slot).to_vec() {
        remove_source(graph, memories, target, slot);
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

/// One memory's trace, decayed in two ways.
#[derive(Clone, Copy, Debug)]
struct Eligible {
    slot: Slot,
    id: i64,
    /// e ← γλe + φ: what the sums grow by.
    e: f64,
    /// e' ← λe' + φ: what the mass grows by. e ≤ e', so rows stay sub-stochastic.
    mass: f64,
}

/// The eligibility traces of one episode: which memories were active lately, by rising id.
#[derive(Default)]
struct Trace(Vec<Eligible>);

impl Trace {
    fn reset(&mut self) {
        self.0.clear();
    }

    fn entries(&self) -> &[Eligible] {
        &self.0
    }

    /// Decays, adds the activation and keeps the `trace_size` largest e, ties by lower id.
    fn add(&mut self, activation: &Activation, config: &Config) {
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
