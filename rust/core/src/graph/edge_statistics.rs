//! How well the store's predictions ([`crate::graph::predict`]) agree with the steps that follow.

use serde::{Deserialize, Serialize};

use crate::base::{heap_sized, splitmix64};
use crate::config::Config;
use crate::linalg;
use crate::memory::Memories;

/// Bins of the histograms over cosines in [−1, 1].
const BINS: usize = 400;
/// The fewest pairs for which the histograms are used.
const MIN_PAIRS: u64 = 32;

heap_sized! {
    /// The cosines of predictions with the steps that came (`followed`) and with arbitrary memories (`unrelated`), always
    /// taken before the episode is written: in-sample both would be far too high.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub(crate) struct EdgeStatistics {
        pub(crate) followed: Vec<u64>,
        pub(crate) unrelated: Vec<u64>,
    }
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
        self.followed[bin(linalg::dot(mu, came))] += 1;
        let ordinary = memories.ordinary_count() as u64;
        if ordinary > 0 {
            let slot = memories.nth_ordinary((splitmix64(pairs) % ordinary) as usize);
            self.unrelated[bin(linalg::dot(mu, memories.key(slot)))] += 1;
        }
    }

    /// `e_lo`: median of the unrelated, `e_hi`: 0.90 quantile of the followed; the configured ones
    /// until there is enough to go by.
    pub(crate) fn range(&self, config: &Config) -> EdgeRange {
        let pairs: u64 = self.followed.iter().sum();
        let unrelated: u64 = self.unrelated.iter().sum();
        if pairs < MIN_PAIRS || unrelated < MIN_PAIRS {
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
