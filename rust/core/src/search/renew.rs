//! One search an episode, kept true while the episode is written.
//!
//! Writing moves keys and adds memories, and every step must see that. But it touches few memories: the hits of
//! a search made before the episode, without the touched ones, together with the touched ones as they now are,
//! still hold the nearest, as long as the last of them beats everything that the search left out.

use std::collections::BTreeSet;

use crate::activation::{Activation, activate};
use crate::config::Config;
use crate::error::Result;
use crate::memory::{Memories, Slot};
use crate::search::exact::nearest;
use crate::search::topk::{Hit, TopK};
use crate::simd;

/// Hits kept beyond k, to make up for the touched ones.
const SPARE: usize = 8;

/// The nearest memories of the steps of one episode.
pub(crate) struct Nearest<'a> {
    steps: &'a [f32],
    dim: usize,
    k: usize,
    before: Vec<Vec<Hit>>,
    /// Whether the search found all there was.
    complete: bool,
    touched: BTreeSet<Slot>,
}

impl<'a> Nearest<'a> {
    /// Searches for every step.
    pub(crate) fn before(memories: &Memories, steps: &'a [f32], k: usize) -> Result<Self> {
        Ok(Self {
            steps,
            dim: memories.dim(),
            k,
            before: nearest(memories, steps, k + SPARE, None)?,
            complete: memories.len() <= k + SPARE,
            touched: BTreeSet::new(),
        })
    }

    /// The activations before the episode.
    pub(crate) fn activations(&self, config: &Config) -> Vec<Activation> {
        let first = |hits: &Vec<Hit>| activate(&hits[..hits.len().min(self.k)], config);
        self.before.iter().map(first).collect()
    }

    /// A memory is new or its key moved.
    pub(crate) fn touch(&mut self, slot: Slot) {
        self.touched.insert(slot);
    }

    /// The `k` nearest memories of step `t` as things now stand: exactly what a new search would find.
    pub(crate) fn now(&self, memories: &Memories, t: usize, k: usize) -> Result<Vec<Hit>> {
        let x = &self.steps[t * self.dim..(t + 1) * self.dim];
        let before = &self.before[t];
        let mut top = TopK::new(k);
        for &hit in before
            .iter()
            .filter(|hit| !self.touched.contains(&hit.slot))
        {
            top.offer(hit);
        }
        for &slot in &self.touched {
            top.offer(Hit {
                slot,
                id: memories.id(slot),
                similarity: simd::dot(x, memories.key(slot)),
            });
        }
        let hits = top.into_sorted();
        let left_out = before.last();
        let certain = self.complete
            || (hits.len() == k && left_out.is_some_and(|worst| !worst.beats(&hits[k - 1])));
        if certain {
            Ok(hits)
        } else {
            Ok(nearest(memories, x, k, None)?.pop().unwrap_or_default())
        }
    }
}
