//! The prediction of the next step: `μ = normalise(Σ_i φ_i Σ_j P_ij k_j)`.
//!
//! A well-known step leads to hundreds of memories, whose keys lie all over the store; reading them is most of the work.
//! So many steps are predicted at once, block by block of the keys: a key that was read for one step is still in the
//! cache for the next. The weights of a step are added up per target in the order of its
//! answers, and its targets are added by rising id, however many steps and blocks there are.

use std::ops::Range;

use crate::base::{Slot, threads};
use crate::error::Result;
use crate::graph::Graph;
use crate::index::Activation;
use crate::linalg;
use crate::memory::{Memories, normalise};

/// Bytes of a block of keys: they fit in a part of the last-level cache.
const BLOCK_BYTES: usize = 8 << 20;
/// Steps for which a block is read once.
const STEPS_PER_PASS: usize = 2048;

/// `(j, Σ_i φ_i P_ij)` over the successors of the active memories, by rising id of j.
pub(crate) fn successors(
    activation: &Activation,
    graph: &Graph,
    memories: &Memories,
) -> Vec<(Slot, f64)> {
    let mut successors = Successors::default();
    successors.gather(activation, graph, memories);
    successors
        .by_id()
        .map(|(_, slot, sum)| (slot, sum))
        .collect()
}

/// Sums by slot, each in the order of its contributions.
#[derive(Default)]
struct Successors {
    found: Vec<(Slot, f64)>,
    /// Id and, in the low 32 bits, place in `found` of each slot found, sorted.
    order: Vec<u128>,
    /// Open addressing: one more than the place in `found`, or 0; a power of two, at least half of it free.
    table: Vec<u32>,
}

impl Successors {
    /// Clears, then sums the successors of an activation.
    fn gather(&mut self, activation: &Activation, graph: &Graph, memories: &Memories) {
        self.found.clear();
        self.table.fill(0);
        for answer in &activation.answers {
            for (slot, p) in graph.successors(answer.slot) {
                self.add(slot, answer.phi * p);
            }
        }
        let places = self.found.iter().zip(0u32..);
        // Ids are not negative.
        let named =
            places.map(|(&(slot, _), at)| (memories.id(slot) as u128) << 32 | u128::from(at));
        self.order.clear();
        self.order.extend(named);
        self.order.sort_unstable();
    }

    /// `(id, slot, sum)` by rising id.
    fn by_id(&self) -> impl Iterator<Item = (i64, Slot, f64)> + '_ {
        self.order.iter().map(|&named| {
            let (slot, sum) = self.found[named as u32 as usize];
            ((named >> 32) as i64, slot, sum)
        })
    }

    fn add(&mut self, slot: Slot, weight: f64) {
        if self.found.len() * 2 >= self.table.len() {
            self.grow();
        }
        let place = self.place(slot);
        if let Some(at) = self.table[place].checked_sub(1) {
            self.found[at as usize].1 += weight;
        } else {
            self.found.push((slot, weight));
            self.table[place] = self.found.len() as u32;
        }
    }

    /// The place of `slot` in the table, or the free place where it belongs.
    fn place(&self, slot: Slot) -> usize {
        let mask = self.table.len() - 1;
        let mut place = slot.wrapping_mul(0x9E37_79B1) as usize & mask;
        while let Some(at) = self.table[place].checked_sub(1)
            && self.found[at as usize].0 != slot
        {
            place = (place + 1) & mask;
        }
        place
    }

    fn grow(&mut self) {
        self.table = vec![0; (self.table.len() * 2).max(1024)];
        for at in 0..self.found.len() {
            let place = self.place(self.found[at].0);
            self.table[place] = at as u32 + 1;
        }
    }
}

/// `f(at, μ)` of every activation's prediction, in order; `None` where nothing is predicted.
pub(crate) fn predict<T: Send>(
    before: &[&Activation],
    graph: &Graph,
    memories: &Memories,
    threads: Option<usize>,
    f: impl Fn(usize, Option<&[f32]>) -> T + Sync + Send,
) -> Result<Vec<T>> {
    let parts = threads::map(before.len().div_ceil(STEPS_PER_PASS), threads, |part| {
        let first = part * STEPS_PER_PASS;
        let before = &before[first..before.len().min(first + STEPS_PER_PASS)];
        let mut mu = vec![0.0; memories.dim()];
        let block = (BLOCK_BYTES / (memories.dim() * size_of::<f32>())).max(1);
        let sums = Targets::of(before, graph, memories, block).sums(memories);
        let each = sums.chunks_exact(memories.dim()).enumerate();
        each.map(|(at, sum)| {
            let known = normalise(sum, &mut mu).is_some();
            f(first + at, known.then_some(&mu))
        })
        .collect::<Vec<T>>()
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// The targets of some steps, cut where the blocks of keys end.
struct Targets {
    blocks: usize,
    /// Step after step; within a step by rising id.
    all: Vec<(Slot, f32)>,
    /// `(n, blocks)` ends in `all`.
    ends: Vec<usize>,
}

impl Targets {
    /// The targets of each step, cut into blocks of `block` keys.
    fn of(before: &[&Activation], graph: &Graph, memories: &Memories, block: usize) -> Self {
        let answers = before.iter().flat_map(|activation| &activation.answers);
        let most = answers.map(|answer| graph.row(answer.slot).len()).sum();
        let bounds = bounds(most, memories, block);
        let mut targets = Self {
            blocks: bounds.len(),
            all: Vec::with_capacity(most),
            ends: Vec::with_capacity(before.len() * bounds.len()),
        };
        let mut successors = Successors::default();
        for (at, activation) in before.iter().enumerate() {
            if let Some(next) = before.get(at + 1) {
                for answer in &next.answers {
                    graph.prefetch(answer.slot);
                }
            }
            successors.gather(activation, graph, memories);
            let mut block = 0;
            for (id, slot, sum) in successors.by_id() {
                while id >= bounds[block] {
                    targets.ends.push(targets.all.len());
                    block += 1;
                }
                targets.all.push((slot, sum as f32));
            }
            let left = bounds.len() - block;
            targets.ends.extend(vec![targets.all.len(); left]);
        }
        targets
    }

    /// The targets of step `at` in a block.
    fn within(&self, at: usize, block: usize) -> Range<usize> {
        let place = at * self.blocks + block;
        place.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[place]
    }

    /// `Σ_j w_j k_j` of each step.
    fn sums(&self, memories: &Memories) -> Vec<f32> {
        let (dim, n) = (memories.dim(), self.ends.len() / self.blocks);
        let mut sums = vec![0.0f32; n * dim];
        for block in 0..self.blocks {
            for (at, sum) in sums.chunks_exact_mut(dim).enumerate() {
                let soon = if at + 1 < n {
                    self.within(at + 1, block)
                } else {
                    0..0
                };
                let rows = &self.all[self.within(at, block)];
                linalg::add_rows(&memories.columns().keys, rows, &self.all[soon], sum);
            }
        }
        sums
    }
}

/// The ids at which blocks of keys end; one block unless a key is used more than twice on average.
fn bounds(wanted: usize, memories: &Memories, block: usize) -> Vec<i64> {
    let mut bounds = Vec::new();
    if wanted > 2 * memories.len() {
        let first_of_each = memories.in_order().iter().step_by(block).skip(1);
        bounds.extend(first_of_each.map(|&slot| memories.id(slot)));
    }
    bounds.push(i64::MAX);
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::splitmix64;
    use crate::config::Config;
    use crate::memory::Episodes;
    use crate::ops::observe::Observation;
    use crate::store::Store;

    /// A store whose slots are not in the order of its ids: it merges, evicts and uses slots again.
    fn lived(dim: usize, steps: &[f32]) -> Store {
        let mut store = Store::new(Config {
            min_novelty: 0.05,
            tau: -0.2,
            capacity: Some(150),
            half_life: 1,
            keep_episodes: true,
            ..Config::new(dim)
        })
        .unwrap();
        let offsets: Vec<i64> = (0..=steps.len() / dim / 20)
            .map(|e| e as i64 * 20)
            .collect();
        let observation = Observation {
            episodes: Episodes {
                steps,
                offsets: &offsets,
            },
            ..Observation::default()
        };
        store.observe(&observation).unwrap();
        let order = store.memories.in_order();
        assert!(order.windows(2).any(|two| two[0] > two[1]));
        store
    }

    /// The definition of the sum, one target after the other.
    fn expected(store: &Store, activation: &Activation) -> Vec<f32> {
        let mut sums = std::collections::BTreeMap::new();
        for answer in &activation.answers {
            for (slot, p) in store.graph.successors(answer.slot) {
                let named = sums.entry(store.memories.id(slot)).or_insert((slot, 0.0));
                named.1 += answer.phi * p;
            }
        }
        let mut sum = vec![0.0f32; store.config.dim];
        for (slot, weight) in sums.into_values() {
            for (sum, k) in sum.iter_mut().zip(store.memories.key(slot)) {
                *sum += weight as f32 * k;
            }
        }
        sum
    }

    #[test]
    fn blocks_change_no_bit() {
        for dim in [5, 16, 150, 400] {
            let noise = |i: u64| (splitmix64(i) >> 40) as f32 / 8_388_608.0 - 1.0;
            let steps: Vec<f32> = (0..800 * dim as u64).map(noise).collect();
            let mut store = lived(dim, &steps);
            for round in 0..3 {
                let queries = &steps[..300 * dim];
                let units =
                    crate::memory::episodes::normalised_rows("steps", queries, dim).unwrap();
                let activations = store.activate_rows(&units, None).unwrap();
                let before: Vec<&Activation> = activations.iter().collect();
                let (graph, memories) = (&store.graph, &store.memories);
                for block in [1, 7, 64, 1000] {
                    let targets = Targets::of(&before, graph, memories, block);
                    assert_eq!(targets.blocks, store.len().div_ceil(block));
                    for (sum, activation) in targets.sums(memories).chunks_exact(dim).zip(&before) {
                        assert_eq!(sum, expected(&store, activation), "{dim} {round} {block}");
                    }
                }
                // Keys that are not wanted twice are not worth blocks.
                assert_eq!(bounds(2 * store.len(), memories, 7).len(), 1);
                if round == 0 {
                    store = Store::from_bytes(&store.to_bytes().unwrap()).unwrap();
                } else {
                    store.veto_episodes(vec![round]).unwrap();
                }
            }
        }
    }
}
