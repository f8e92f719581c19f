//! Which memories could be among the k best of one query.
//!
//! A first pass knows each similarity only to within a slack. It keeps the k best *lower* bounds; whoever's
//! *upper* bound reaches the k-th of them stays a candidate. So the true k best are all candidates, ties for
//! the last place included.

use crate::memory::Slot;

/// The candidates of one query.
#[derive(Clone, Debug)]
pub(crate) struct Candidates {
    k: usize,
    /// The best lower bounds, falling.
    lower: Vec<f32>,
    /// The k-th best lower bound: nobody below it can matter.
    pub(crate) threshold: f32,
    /// Upper bound and slot of whoever passed when it was seen.
    seen: Vec<(f32, Slot)>,
    /// More than this many are no help: a plain scan costs less.
    most: usize,
    exploded: bool,
}

impl Candidates {
    pub(crate) fn new(k: usize, most: usize) -> Self {
        Self {
            k,
            lower: Vec::with_capacity(k.min(1024) + 1),
            threshold: f32::NEG_INFINITY,
            seen: Vec::new(),
            most,
            exploded: false,
        }
    }

    /// Takes a memory whose similarity lies within `slack` of `about`, if it can matter.
    pub(crate) fn offer(&mut self, slot: Slot, about: f32, slack: f32) {
        if about + slack < self.threshold || self.exploded {
            return;
        }
        self.seen.push((about + slack, slot));
        self.note(about - slack);
        if self.seen.len() > self.most {
            self.prune();
            if self.seen.len() > self.most / 2 {
                self.exploded = true;
                self.seen = Vec::new();
            }
        }
    }

    fn note(&mut self, lower: f32) {
        if self.lower.len() == self.k {
            if lower <= self.threshold {
                return;
            }
            self.lower.pop();
        }
        let at = self.lower.partition_point(|&other| other > lower);
        self.lower.insert(at, lower);
        if self.lower.len() == self.k {
            self.threshold = self.lower[self.k - 1];
        }
    }

    /// Joins what was found in another part of the store.
    pub(crate) fn join(&mut self, other: Self) {
        for lower in other.lower {
            self.note(lower);
        }
        self.exploded |= other.exploded;
        self.seen.extend(other.seen);
    }

    fn prune(&mut self) {
        let threshold = self.threshold;
        self.seen.retain(|&(upper, _)| upper >= threshold);
    }

    /// The slots left, or `None` if there were too many to be of use.
    pub(crate) fn left(&self) -> Option<Vec<Slot>> {
        let left = self
            .seen
            .iter()
            .filter(|(upper, _)| *upper >= self.threshold);
        (!self.exploded).then(|| left.map(|&(_, slot)| slot).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_true_best_are_always_left(
            about in prop::collection::vec((-9i8..9, 0u8..4, -1i8..=1), 1..60),
            k in 1usize..6,
            cut in 0usize..60,
        ) {
            let exact = |&(a, s, where_): &(i8, u8, i8)| f32::from(a) + f32::from(s) * f32::from(where_);
            let mut parts = [Candidates::new(k, 1000), Candidates::new(k, 1000)];
            for (i, item) in about.iter().enumerate() {
                let part = &mut parts[usize::from(i >= cut)];
                part.offer(i as Slot, f32::from(item.0), f32::from(item.1));
            }
            let [mut all, other] = parts;
            all.join(other);
            let left = all.left().unwrap();
            let mut best: Vec<f32> = about.iter().map(exact).collect();
            best.sort_by(|a, b| b.total_cmp(a));
            let last = best[k.min(best.len()) - 1];
            for (i, item) in about.iter().enumerate() {
                prop_assert!(exact(item) < last || left.contains(&(i as Slot)));
            }
        }
    }
}
