//! Spreading activation: what a step brings to mind, near and far (Collins & Loftus 1975).
//!
//! ```text
//! a ← φ(x)        then, a number of times,        a_j ← (1 − damping)·φ_j(x) + damping·Σ_i a_i P_ij
//! ```
//!
//! That is a personalised `PageRank` that starts again from the memories that answer to the step (Haveliwala
//! 2002), stopped after so many rounds.

use crate::base::slot::Slot;
use crate::base::threads;
use crate::error::{Result, invalid_if};
use crate::index::activation::Activation;
use crate::store::Store;

/// The `k` most active memories, ties by lower id, of each query.
pub(crate) fn associate(
    store: &Store,
    queries: &[f32],
    steps: usize,
    damping: f64,
    k: usize,
    threads: Option<usize>,
) -> Result<Vec<Vec<(i64, f64)>>> {
    invalid_if!(
        !(0.0..=1.0).contains(&damping),
        "damping",
        "{damping} is not in [0, 1]"
    );
    invalid_if!(
        !(1..=1 << 20).contains(&k),
        "k",
        "{k} is not in [1, {}]",
        1 << 20
    );
    let activations = store.activate_rows(queries, threads)?;
    let begin = || (Spread::over(store), Vec::new());
    let work = |(spread, found): &mut (Spread<'_>, Vec<_>), query: usize| {
        found.push((query, spread.from(&activations[query], steps, damping, k)));
    };
    let found = threads::take_cells(activations.len(), threads, begin, work)?;
    let mut found: Vec<_> = found.into_iter().flat_map(|(_, found)| found).collect();
    found.sort_unstable_by_key(|&(query, _)| query);
    Ok(found.into_iter().map(|(_, found)| found).collect())
}

struct Spread<'a> {
    store: &'a Store,
    /// By slot; 0 outside of `active`.
    now: Vec<f64>,
    next: Vec<f64>,
    /// By rising id, so that sums have one order.
    active: Vec<Slot>,
}

impl<'a> Spread<'a> {
    fn over(store: &'a Store) -> Self {
        let slots = store.memories.slots();
        Self {
            store,
            now: vec![0.0; slots],
            next: vec![0.0; slots],
            active: Vec::new(),
        }
    }

    fn from(
        &mut self,
        activation: &Activation,
        steps: usize,
        damping: f64,
        k: usize,
    ) -> Vec<(i64, f64)> {
        let mut start: Vec<(Slot, f64)> = activation
            .answers
            .iter()
            .map(|answer| (answer.slot, answer.phi))
            .collect();
        start.sort_by_key(|&(slot, _)| self.store.memories.id(slot));
        for &(slot, phi) in &start {
            self.now[slot as usize] = phi;
            self.active.push(slot);
        }
        for _ in 0..steps {
            self.step(&start, damping);
        }
        let memories = &self.store.memories;
        let mut found: Vec<(i64, f64)> = self
            .active
            .drain(..)
            .map(|slot| {
                let a = std::mem::take(&mut self.now[slot as usize]);
                (memories.id(slot), a)
            })
            .collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found.truncate(k);
        found
    }

    fn step(&mut self, start: &[(Slot, f64)], damping: f64) {
        let mut reached = Vec::new();
        let next = &mut self.next;
        let mut flow = |slot: Slot, a: f64| {
            if a > 0.0 {
                let next = &mut next[slot as usize];
                if *next == 0.0 {
                    reached.push(slot);
                }
                *next += a;
            }
        };
        for &(slot, phi) in start {
            flow(slot, (1.0 - damping) * phi);
        }
        for slot in self.active.drain(..) {
            let here = damping * std::mem::take(&mut self.now[slot as usize]);
            for (successor, p) in self.store.graph.successors(slot) {
                flow(successor, here * p);
            }
        }
        reached.sort_unstable_by_key(|&slot| self.store.memories.id(slot));
        std::mem::swap(&mut self.now, &mut self.next);
        self.active = reached;
    }
}
