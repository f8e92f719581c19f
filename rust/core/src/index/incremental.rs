//! One search for many steps, kept up to date while their episodes are written.
//!
//! Writing moves keys, adds memories and evicts some, and every step must see that. But it touches few memories. The
//! hits of an earlier search, with the touched memories compared again, still hold the nearest as long as the last of
//! them beats everything that the search left out. This is used twice: for the episodes of a [`Window`], and within an
//! episode for its steps ([`Nearest`]).

use std::collections::BTreeSet;

use crate::base::Slot;
use crate::config::Config;
use crate::error::Result;
use crate::index::{Activation, Hit, Indexed, TopK, activate, nearest};
use crate::linalg;

/// Hits kept beyond k, to make up for the touched ones; twice as many for a window.
const SPARE_HITS: usize = 8;

/// The most steps that are searched for together, unless one episode has more.
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
    /// Whether the search returned all memories.
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

    /// The next `count` steps, and their nearest memories at present.
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

    /// Marks memories that were added, moved or removed.
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
    /// No memory left out of a list beats its last.
    before: Vec<Vec<Hit>>,
    /// Whether the lists hold all memories.
    complete: bool,
    touched: BTreeSet<Slot>,
}

impl Nearest {
    /// The activations before the episode.
    pub(crate) fn activations(&self, config: &Config) -> Vec<Activation> {
        let first = |hits: &Vec<Hit>| activate(&hits[..hits.len().min(self.k)], config);
        self.before.iter().map(first).collect()
    }

    /// Marks a memory that was added or whose key moved.
    pub(crate) fn touch(&mut self, slot: Slot) {
        self.touched.insert(slot);
    }

    /// The memories touched.
    pub(crate) fn into_touched(self) -> BTreeSet<Slot> {
        self.touched
    }

    /// The `k` nearest memories of `x`, step `t`, at present: exactly what a new search would find.
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
