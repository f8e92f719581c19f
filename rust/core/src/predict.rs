//! Where the store thinks a step leads, and how well such predictions fare.

use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::config::Config;
use crate::episodes::normalise;
use crate::graph::Graph;
use crate::memory::{Memories, Slot};
use crate::rng::splitmix64;
use crate::simd;

/// Bins of the histograms over cosines in [−1, 1].
const BINS: usize = 400;
/// Pairs from which the histograms are believed.
const ENOUGH: u64 = 32;

/// `(j, Σ_i φ_i P_ij)` over the successors of what answered, by rising id of j.
pub(crate) fn successors(
    activation: &Activation,
    graph: &Graph,
    memories: &Memories,
) -> Vec<(Slot, f64)> {
    let mut ahead = Ahead::default();
    for answer in &activation.answers {
        for (slot, p) in graph.successors(answer.slot) {
            ahead.add(slot, answer.phi * p);
        }
    }
    let mut by_id: Vec<(i64, (Slot, f64))> = ahead
        .found
        .iter()
        .map(|&sum| (memories.id(sum.0), sum))
        .collect();
    by_id.sort_unstable_by_key(|&(id, _)| id); // An id is met once.
    by_id.into_iter().map(|(_, sum)| sum).collect()
}

/// Sums by slot, each in the order of its contributions.
#[derive(Default)]
struct Ahead {
    found: Vec<(Slot, f64)>,
    /// Open addressing: one more than the place in `found`, or 0; a power of two, at least half of it free.
    table: Vec<u32>,
}

impl Ahead {
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

    /// Where `slot` stands in the table, or would.
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

/// Rows that are added up at once.
const ROWS: usize = 4;
/// Rows that are fetched before they are needed.
const FETCHED: usize = 2 * ROWS;

/// `μ = normalise(Σ_i φ_i Σ_j P_ij k_j)`, or `None` where nothing is predicted.
pub(crate) fn predict(
    activation: &Activation,
    graph: &Graph,
    memories: &Memories,
    dim: usize,
) -> Option<Vec<f32>> {
    let mut ahead = successors(activation, graph, memories);
    let &(any, _) = ahead.first()?;
    let count = ahead.len();
    // What fills up the last four counts nothing: y + 0·x is y, whatever x (and a sum that began at +0 is never −0).
    ahead.resize(count.next_multiple_of(ROWS), (any, 0.0));
    let mut sum = vec![0.0f32; dim];
    for (at, four) in ahead.chunks_exact(ROWS).enumerate() {
        for &(slot, _) in ahead.iter().skip(at * ROWS + FETCHED).take(ROWS) {
            simd::prefetch(memories.key(slot));
        }
        let alpha = [0, 1, 2, 3].map(|i| four[i].1 as f32);
        let rows = [0, 1, 2, 3].map(|i| memories.key(four[i].0));
        simd::axpy4(alpha, rows, &mut sum);
    }
    let mut mu = vec![0.0f32; dim];
    normalise(&sum, &mut mu).map(|()| mu)
}

/// How predictions agreed with what came (`followed`) and with what had nothing to do with it
/// (`unrelated`), always before the episode was written: in-sample both would be far too high.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EdgeStatistics {
    pub(crate) followed: Vec<u64>,
    pub(crate) unrelated: Vec<u64>,
}

impl Default for EdgeStatistics {
    fn default() -> Self {
        Self {
            followed: vec![0; BINS],
            unrelated: vec![0; BINS],
        }
    }
}

/// The cosines between which edge support rises from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EdgeRange {
    pub(crate) lo: f64,
    pub(crate) hi: f64,
}

impl EdgeRange {
    /// `clip((s − e_lo)/(e_hi − e_lo), 0, 1)`.
    pub(crate) fn support(&self, s: f32) -> f64 {
        ((f64::from(s) - self.lo) / (self.hi - self.lo)).clamp(0.0, 1.0)
    }
}

impl EdgeStatistics {
    /// Whether the histograms have the shape a snapshot must have.
    pub(crate) fn is_sound(&self) -> bool {
        self.followed.len() == BINS && self.unrelated.len() == BINS
    }

    /// Counts one prediction against the step that came and against an arbitrary ordinary memory.
    pub(crate) fn count(&mut self, mu: &[f32], came: &[f32], memories: &Memories) {
        let pairs: u64 = self.followed.iter().sum();
        self.followed[bin(simd::dot(mu, came))] += 1;
        let ordinary = memories.ordinary_count() as u64;
        if ordinary > 0 {
            let slot = memories.nth_ordinary((splitmix64(pairs) % ordinary) as usize);
            self.unrelated[bin(simd::dot(mu, memories.key(slot)))] += 1;
        }
    }

    /// `e_lo`: median of the unrelated, `e_hi`: 0.90 quantile of the followed; the configured ones
    /// until there is enough to go by.
    pub(crate) fn range(&self, config: &Config) -> EdgeRange {
        let pairs: u64 = self.followed.iter().sum();
        let unrelated: u64 = self.unrelated.iter().sum();
        if pairs < ENOUGH || unrelated < ENOUGH {
            return EdgeRange {
                lo: config.e_lo,
                hi: config.e_hi,
            };
        }
        let lo = quantile(&self.unrelated, 0.5);
        let hi = quantile(&self.followed, 0.9);
        EdgeRange {
            lo,
            hi: if hi - lo < 0.01 { lo + 0.01 } else { hi },
        }
    }
}

fn bin(s: f32) -> usize {
    let at = (f64::from(s) + 1.0) * (BINS / 2) as f64;
    (at.max(0.0) as usize).min(BINS - 1)
}

/// The centre of the first bin at which the share of the counts reaches `q`.
fn quantile(histogram: &[u64], q: f64) -> f64 {
    let wanted = q * histogram.iter().sum::<u64>() as f64;
    let mut seen = 0;
    let at = histogram
        .iter()
        .position(|&n| {
            seen += n;
            seen as f64 >= wanted && seen > 0
        })
        .unwrap_or(BINS - 1);
    (at as f64 + 0.5) / BINS as f64 * 2.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bin_centres() {
        let mut histogram = vec![0; BINS];
        histogram[bin(0.5)] = 9;
        histogram[bin(0.9025)] = 1;
        assert!((quantile(&histogram, 0.5) - 0.5025).abs() < 1e-9);
        assert!((quantile(&histogram, 0.95) - 0.9025).abs() < 1e-9);
    }

    #[test]
    fn the_configured_range_holds_until_there_is_enough() {
        let config = Config::new(3);
        let range = EdgeStatistics::default().range(&config);
        assert!((range.lo - 0.1).abs() < 1e-12 && (range.hi - 0.6).abs() < 1e-12);
        assert_eq!(range.support(0.1f32 - 0.05), 0.0);
        assert_eq!(range.support(0.9), 1.0);
    }
}
