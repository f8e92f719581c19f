//! The k best, ties by lower id.

use crate::base::Slot;

/// One memory found by a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Hit {
    pub(crate) slot: Slot,
    pub(crate) id: i64,
    pub(crate) similarity: f32,
}

impl Hit {
    /// Whether it comes before another.
    pub(crate) fn beats(&self, other: &Self) -> bool {
        self.similarity > other.similarity
            || (self.similarity == other.similarity && self.id < other.id)
    }
}

/// Keeps the k best of what it is offered, best first.
pub(crate) struct TopK {
    k: usize,
    best: Vec<Hit>,
}

impl TopK {
    pub(crate) fn new(k: usize) -> Self {
        Self {
            k,
            best: Vec::with_capacity(k.min(1024)),
        }
    }

    pub(crate) fn offer(&mut self, hit: Hit) {
        if self.best.len() == self.k {
            if self.best.last().is_none_or(|worst| !hit.beats(worst)) {
                return;
            }
            self.best.pop();
        }
        let at = self.best.partition_point(|other| other.beats(&hit));
        self.best.insert(at, hit);
    }

    /// The similarity of the k-th best, once there are k.
    pub(crate) fn worst(&self) -> Option<f32> {
        let full = self.best.len() == self.k;
        full.then(|| self.best.last().map_or(f32::INFINITY, |hit| hit.similarity))
    }

    pub(crate) fn into_sorted(self) -> Vec<Hit> {
        self.best
    }
}

/// Appends a row of `k` numbers, of which `fill` stands for those that are missing.
pub(crate) fn pad<T: Copy>(rows: &mut Vec<T>, k: usize, fill: T, row: impl Iterator<Item = T>) {
    let end = rows.len() + k;
    rows.extend(row);
    rows.resize(end, fill);
}
