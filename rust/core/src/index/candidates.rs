//! Which memories could be among the k best of one query.
//!
//! A first pass knows each similarity only to within a slack. It keeps the k best *lower* bounds. A memory whose
//! *upper* bound reaches the k-th of them stays a candidate. So the true k best are all candidates, ties for the last
//! place included.

use crate::base::Slot;

/// The longest list that is shifted as a whole.
const MAX_SHIFTED: usize = 48;
/// Bounds of a vector register: short lists are whole ones.
pub(crate) const LANES: usize = 16;
/// Initial capacity: most queries have fewer candidates.
const INITIAL_CANDIDATES: usize = 256;

/// The candidates of one query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    k: usize,
    /// The best lower bounds, falling. A short list is always full, with −∞ for what is still missing; entries
    /// beyond the first k are ignored.
    pub(crate) lower: Vec<f32>,
    /// At least the k-th best lower bound here, and at most that of the whole store: no memory below it can matter.
    pub(crate) threshold: f32,
    /// Upper bound and slot of the memories that passed the threshold when they were offered.
    pub(crate) seen: Vec<(f32, Slot)>,
    /// With more than this many, a plain scan costs less.
    most: usize,
    exploded: bool,
}

impl Candidates {
    pub(crate) fn new(k: usize, most: usize) -> Self {
        Self {
            k,
            lower: vec![
                f32::NEG_INFINITY;
                if k <= MAX_SHIFTED {
                    k.next_multiple_of(LANES)
                } else {
                    0
                }
            ],
            threshold: f32::NEG_INFINITY,
            seen: Vec::new(),
            most,
            exploded: false,
        }
    }

    /// No candidates: the query needs another pass.
    pub(crate) fn useless() -> Self {
        Self {
            exploded: true,
            ..Self::default()
        }
    }

    /// Empty candidates for another part of the store, with the same threshold.
    pub(crate) fn above(&self) -> Self {
        Self {
            threshold: self.threshold,
            ..Self::new(self.k, self.most)
        }
    }

    /// Raises the threshold to `floor`, which k memories of any part of the store are known to reach.
    pub(crate) fn raise(&mut self, floor: f32) {
        self.threshold = self.threshold.max(floor);
    }

    /// Replaces the slot of every candidate.
    pub(crate) fn rename(&mut self, name: impl Fn(Slot) -> Slot) {
        for (_, slot) in &mut self.seen {
            *slot = name(*slot);
        }
    }

    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// The best lower bounds in whole registers, or none if the list is a long one.
    pub(crate) fn short_list(&mut self) -> &mut [f32] {
        let len = if self.k <= MAX_SHIFTED {
            self.lower.len()
        } else {
            0
        };
        &mut self.lower[..len]
    }

    /// Adds a memory whose similarity lies within `slack` of `about`, unless that is below the threshold.
    #[inline]
    pub(crate) fn offer(&mut self, slot: Slot, about: f32, slack: f32) {
        if about + slack < self.threshold || self.exploded {
            return;
        }
        self.note(about - slack);
        self.see(slot, about + slack);
    }

    /// Adds a memory whose upper bound passed the threshold and whose lower bound is already in the list.
    #[inline]
    pub(crate) fn see(&mut self, slot: Slot, upper: f32) {
        if self.exploded {
            return;
        }
        if self.seen.capacity() == 0 {
            self.seen.reserve(INITIAL_CANDIDATES.min(self.most + 1));
        }
        self.seen.push((upper, slot));
        if self.seen.len() > self.most {
            self.prune();
            if self.seen.len() > self.most / 2 {
                self.exploded = true;
                self.seen = Vec::new();
            }
        }
    }

    /// Keeps a lower bound if it is one of the k best.
    #[inline]
    fn note(&mut self, lower: f32) {
        if lower <= self.threshold {
            return;
        }
        if self.k <= MAX_SHIFTED {
            // Every element takes the greater of itself and, in turn, the new one or its predecessor: where the
            // new one belongs is unpredictable, so this is quicker than to look for the place.
            let mut before = f32::INFINITY;
            for best in &mut self.lower[..self.k] {
                let here = *best;
                let moved = if lower < before { lower } else { before };
                *best = if here > moved { here } else { moved };
                before = here;
            }
        } else {
            if self.lower.len() == self.k {
                self.lower.pop();
            }
            let at = self.lower.partition_point(|&other| other > lower);
            self.lower.insert(at, lower);
        }
        if self.lower.len() >= self.k {
            // Those of a part begin at the threshold of the others.
            self.threshold = self.threshold.max(self.lower[self.k - 1]);
        }
    }

    /// Adds the candidates of another part of the store.
    pub(crate) fn join(&mut self, other: &Self) {
        if self.seen.is_empty() && self.threshold == f32::NEG_INFINITY && !self.exploded {
            self.clone_from(other);
            return;
        }
        self.raise(other.threshold);
        for &lower in other.lower.iter().take(self.k) {
            self.note(lower);
        }
        self.exploded |= other.exploded;
        self.seen.extend_from_slice(&other.seen);
    }

    fn prune(&mut self) {
        let threshold = self.threshold;
        self.seen.retain(|&(upper, _)| upper >= threshold);
    }

    /// The remaining candidates by falling upper bound and rising slot, or `None` if there were too many.
    pub(crate) fn left(&self) -> Option<Vec<(f32, Slot)>> {
        if self.exploded {
            return None;
        }
        let seen = self.seen.iter().copied();
        let mut left: Vec<(f32, Slot)> =
            seen.filter(|&(upper, _)| upper >= self.threshold).collect();
        left.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        Some(left)
    }
}
