//! One search for many steps, kept true while their episodes are written.
//!
//! Writing moves keys, adds memories and evicts some, and every step must see that. But it touches few memories: the
//! hits of a search made before, without the touched ones, together with the touched ones as they now are, still hold
//! the nearest, as long as the last of them beats everything that the search left out. That is done twice: for the
//! episodes of a [`Window`], and within an episode for its steps ([`Nearest`]).

use std::collections::BTreeSet;

use crate::base::slot::Slot;
use crate::config::Config;
use crate::error::Result;
use crate::index::activation::{Activation, activate};
use crate::index::indexed::Indexed;
use crate::index::search::nearest;
use crate::index::topk::{Hit, TopK};
use crate::linalg;

/// Hits kept beyond k, to make up for the touched ones; twice as many for a window.
const SPARE_HITS: usize = 8;

/// Steps that are searched for together at most, unless one episode has more.
pub(crate) const MAX_WINDOW_STEPS: usize = 256;

/// The nearest memories of the steps of episodes that will be written one after the other.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// `(n, d)`, of unit length.
    steps: Vec<f32>,
    k: usize,
    found: Vec<Vec<Hit>>,
    /// The first step of the next episode.
    next: usize,
    /// Whether the search found all memories that there were.
    complete: bool,
    touched: BTreeSet<Slot>,
}

impl Window {
    /// Searches for unit `steps`.
    pub(crate) fn of(memories: &Indexed, steps: Vec<f32>, k: usize) -> Result<Self> {
        let most = k + 2 * SPARE_HITS;
        Ok(Self {
            found: nearest(memories, &steps, most, None)?,
            steps,
            k,
            next: 0,
            complete: memories.len() <= most,
            touched: BTreeSet::new(),
        })
    }

    /// How many steps are left.
    pub(crate) fn left(&self) -> usize {
        self.found.len() - self.next
    }

    /// The next `count` steps, and their nearest memories as things now stand.
    pub(crate) fn next(&mut self, memories: &Indexed, count: usize) -> Result<(Vec<f32>, Nearest)> {
        let (dim, rows) = (memories.dim(), self.next..self.next + count);
        self.next += count;
        let steps = self.steps[rows.start * dim..rows.end * dim].to_vec();
        let most = self.k + SPARE_HITS;
        let mut hits = Vec::with_capacity(count);
        for (found, x) in self.found[rows].iter().zip(steps.chunks_exact(dim)) {
            let mut now = merged(memories, x, found, &self.touched, most);
            if !self.complete {
                let beyond = |hit: &Hit| found.last().is_none_or(|last| last.beats(hit));
                now.truncate(now.iter().position(beyond).unwrap_or(now.len()));
            }
            hits.push(now);
        }
        let mut complete = self.complete && memories.len() <= most;
        if !self.complete && hits.iter().any(|hits| hits.len() < self.k) {
            hits = nearest(memories, &steps, most, None)?;
            complete = memories.len() <= most;
        }
        let nearest = Nearest {
            k: self.k,
            before: hits,
            complete,
            touched: BTreeSet::new(),
        };
        Ok((steps, nearest))
    }

    /// Memories are new, moved or gone.
    pub(crate) fn touch(&mut self, slots: impl IntoIterator<Item = Slot>) {
        self.touched.extend(slots);
    }
}

/// The `k` nearest among the hits of a former search and the memories touched since, as these now are.
fn merged(
    memories: &Indexed,
    x: &[f32],
    found: &[Hit],
    touched: &BTreeSet<Slot>,
    k: usize,
) -> Vec<Hit> {
    let mut top = TopK::new(k);
    for &hit in found.iter().filter(|hit| !touched.contains(&hit.slot)) {
        top.offer(hit);
    }
    for &slot in touched {
        let id = memories.id(slot);
        if id >= 0 {
            top.offer(Hit {
                slot,
                id,
                similarity: linalg::dot(x, memories.key(slot)),
            });
        }
    }
    top.into_sorted()
}

/// The nearest memories of the steps of one episode.
pub(crate) struct Nearest {
    k: usize,
    /// Nothing that is left out of a list beats its last.
    before: Vec<Vec<Hit>>,
    /// Whether the lists hold all memories that there were.
    complete: bool,
    touched: BTreeSet<Slot>,
}

impl Nearest {
    /// The activations before the episode.
    pub(crate) fn activations(&self, config: &Config) -> Vec<Activation> {
        let first = |hits: &Vec<Hit>| activate(&hits[..hits.len().min(self.k)], config);
        self.before.iter().map(first).collect()
    }

    /// A memory is new or its key moved.
    pub(crate) fn touch(&mut self, slot: Slot) {
        self.touched.insert(slot);
    }

    /// The memories touched.
    pub(crate) fn into_touched(self) -> BTreeSet<Slot> {
        self.touched
    }

    /// The `k` nearest memories of `x`, step `t`, as things now stand: exactly what a new search would find.
    pub(crate) fn now(
        &self,
        memories: &Indexed,
        x: &[f32],
        t: usize,
        k: usize,
    ) -> Result<Vec<Hit>> {
        let before = &self.before[t];
        let hits = merged(memories, x, before, &self.touched, k);
        let certain = self.complete
            || (hits.len() == k
                && before
                    .last()
                    .is_some_and(|worst| !worst.beats(&hits[k - 1])));
        if certain {
            Ok(hits)
        } else {
            Ok(nearest(memories, x, k, None)?.pop().unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::splitmix64;
    use crate::memory::episodes::Episodes;
    use crate::ops::observe::Observation;
    use crate::store::Store;

    fn observe(store: &mut Store, steps: &[f32], lengths: &[usize]) {
        let mut offsets = vec![0i64];
        for &length in lengths {
            offsets.push(offsets[offsets.len() - 1] + length as i64);
        }
        let observation = Observation {
            episodes: Episodes {
                steps,
                offsets: &offsets,
            },
            drives: None,
            texts: None,
            ids: None,
            source: None,
            propose: false,
        };
        store.observe(&observation).unwrap();
    }

    /// Few dimensions and few memories, so that nearly all of them are touched in every window; much merging, eviction
    /// and empty episodes.
    #[test]
    fn a_batch_is_written_as_its_episodes_one_by_one() {
        for (case, capacity) in [(0, None), (1, Some(18)), (2, Some(40)), (3, Some(300))] {
            for novelty in [0.02, 0.4, 0.9] {
                let dim = [3, 8, 24][case as usize % 3];
                let config = Config {
                    min_novelty: novelty,
                    capacity,
                    tau: -0.3,
                    half_life: 2,
                    ..Config::new(dim)
                };
                let (mut whole, mut single) = (
                    Store::new(config.clone()).unwrap(),
                    Store::new(config).unwrap(),
                );
                for round in 0..4u64 {
                    let lengths: Vec<usize> = (0..60)
                        .map(|e| (splitmix64(round << 8 | e) % 17) as usize)
                        .collect();
                    let n = lengths.iter().sum::<usize>() * dim;
                    let steps: Vec<f32> = (0..n as u64)
                        .map(|i| {
                            (splitmix64(case << 50 | round << 40 | i) >> 40) as f32 / 8_388_608.0
                                - 1.0
                        })
                        .collect();
                    observe(&mut whole, &steps, &lengths);
                    let mut rest = steps.as_slice();
                    for &length in &lengths {
                        let (episode, later) = rest.split_at(length * dim);
                        observe(&mut single, episode, &[length]);
                        rest = later;
                    }
                    assert_eq!(whole.digest(), single.digest(), "{case} {novelty} {round}");
                }
            }
        }
    }
}
