//! The baseline: the value of the median memory, over which others have an advantage.
//!
//! `b_q` is the median of `v_q` over the memories that are not terminals. A sleep moves few values, so the
//! values around the middle are kept in order from one sleep to the next, and only the pages that changed
//! are read. The result is the exact median.

use std::sync::Arc;

use crate::base::{HeapSize, heap_sized};
use crate::linalg::{from_ordered_bits, ordered_bits};
use crate::memory::Memories;

/// Slots a page: as many as a word of marks has bits.
pub(crate) const PAGE_SLOTS: usize = 64;
/// Values kept in order around the middle.
const WINDOW_VALUES: usize = 4096;

/// The windows around the medians, and the values that they were computed from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Medians {
    pages: Vec<Arc<[f32]>>,
    /// A bit a slot: not free and not a terminal.
    ordinary: Vec<u64>,
    windows: Vec<Window>,
}

impl Medians {
    /// Bytes held, but for the pages that `pages` holds too.
    pub(crate) fn heap_size_beside(&self, pages: &[Arc<[f32]>]) -> usize {
        let Self {
            pages: before,
            ordinary,
            windows,
        } = self;
        let shared: usize = before
            .iter()
            .zip(pages)
            .filter(|(before, now)| Arc::ptr_eq(before, now))
            .map(|(before, _)| before.heap_size())
            .sum();
        before.heap_size() - shared + ordinary.heap_size() + windows.heap_size()
    }
}

heap_sized! {
    /// The values of one channel from `low` to `high`, and how many lie below.
    #[derive(Clone, Debug, Default)]
    struct Window {
        low: u32,
        high: u32,
        below: usize,
        total: usize,
        /// Distinct values by rising key, and how often each is there.
        inside: Vec<(u32, u32)>,
        within: usize,
    }
}

fn ordinary(memories: &Memories) -> Vec<u64> {
    let ids = memories
        .columns()
        .ids
        .chunks(PAGE_SLOTS)
        .zip(memories.columns().terminal.chunks(PAGE_SLOTS));
    let word = |(ids, terminal): (&[i64], &[bool])| {
        let bits = ids.iter().zip(terminal).enumerate();
        bits.fold(0, |word, (bit, (&id, &terminal))| {
            word | u64::from(id >= 0 && !terminal) << bit
        })
    };
    ids.map(word).collect()
}

impl Medians {
    /// The median of every channel of `(slot, Q)` values in pages.
    pub(crate) fn medians(
        &mut self,
        pages: &[Arc<[f32]>],
        channels: usize,
        memories: &Memories,
    ) -> Vec<f32> {
        let before = Self {
            pages: std::mem::replace(&mut self.pages, pages.to_vec()),
            ordinary: std::mem::replace(&mut self.ordinary, ordinary(memories)),
            windows: Vec::new(),
        };
        if self.windows.len() == channels && !before.pages.is_empty() {
            self.follow(&before, channels);
        } else {
            self.windows = (0..channels).map(|q| self.look(q, channels)).collect();
        }
        let median = |q: usize| {
            if self.windows[q].median().is_none() {
                self.windows[q] = self.look(q, channels);
            }
            let found = self.windows[q].median();
            found.expect("the window is around the middle")
        };
        (0..channels).map(median).collect()
    }

    /// Updates the windows from the values before to those now.
    fn follow(&mut self, before: &Self, channels: usize) {
        for (page, v) in self.pages.iter().enumerate() {
            let (now, then) = (self.ordinary[page], before.ordinary.get(page).copied());
            let old = before.pages.get(page);
            if old.is_some_and(|old| Arc::ptr_eq(old, v)) && then == Some(now) {
                continue;
            }
            let then = then.unwrap_or(0);
            for slot in 0..PAGE_SLOTS {
                let row = slot * channels..(slot + 1) * channels;
                let gone = old
                    .filter(|_| then >> slot & 1 == 1)
                    .map(|old| &old[row.clone()]);
                let come = (now >> slot & 1 == 1).then(|| &v[row]);
                if same(gone, come) {
                    continue;
                }
                for (q, window) in self.windows.iter_mut().enumerate() {
                    if let Some(gone) = gone {
                        window.remove(ordered_bits(gone[q]));
                    }
                    if let Some(come) = come {
                        window.add(ordered_bits(come[q]));
                    }
                }
            }
        }
    }

    /// Recomputes the window of channel `q`.
    fn look(&self, q: usize, channels: usize) -> Window {
        let pages = self.pages.iter().zip(&self.ordinary);
        let keys = pages.flat_map(|(v, &word)| {
            let there = (0..PAGE_SLOTS).filter(move |slot| word >> slot & 1 == 1);
            there.map(move |slot| ordered_bits(v[slot * channels + q]))
        });
        Window::around_the_middle(keys.collect())
    }
}

impl Window {
    /// The window of `WINDOW_VALUES` values, and those equal to its ends, around the middle of `keys`.
    fn around_the_middle(mut keys: Vec<u32>) -> Self {
        let total = keys.len();
        if total == 0 {
            return Self::default();
        }
        let (first, last) = (
            (total / 2).saturating_sub(WINDOW_VALUES / 2),
            (total / 2 + WINDOW_VALUES / 2).min(total - 1),
        );
        let low = *keys.select_nth_unstable(first).1;
        let high = *keys[first..].select_nth_unstable(last - first).1;
        let below = keys.iter().filter(|&&key| key < low).count();
        keys.retain(|key| (low..=high).contains(key));
        keys.sort_unstable();
        let run = |run: &[u32]| (run[0], run.len() as u32);
        Self {
            low,
            high,
            below,
            total,
            inside: keys.chunk_by(|a, b| a == b).map(run).collect(),
            within: keys.len(),
        }
    }

    fn add(&mut self, key: u32) {
        self.total += 1;
        if key < self.low {
            self.below += 1;
        } else if key <= self.high {
            self.within += 1;
            match self.inside.binary_search_by_key(&key, |&(key, _)| key) {
                Ok(at) => self.inside[at].1 += 1,
                Err(at) => self.inside.insert(at, (key, 1)),
            }
        }
    }

    fn remove(&mut self, key: u32) {
        self.total -= 1;
        if key < self.low {
            self.below -= 1;
        } else if key <= self.high {
            self.within -= 1;
            let at = self.inside.binary_search_by_key(&key, |&(key, _)| key);
            let at = at.expect("what is removed was there");
            self.inside[at].1 -= 1;
            if self.inside[at].1 == 0 {
                self.inside.remove(at);
            }
        }
    }

    /// The median, the mean of the middle two of an even number, 0 of none; `None` if it has left the window.
    fn median(&self) -> Option<f32> {
        if self.total == 0 {
            return Some(0.0);
        }
        let middle = self.total / 2;
        let upper = self.ranked(middle)?;
        if self.total % 2 == 1 {
            return Some(upper);
        }
        let lower = self.ranked(middle - 1)?;
        Some(f64::midpoint(f64::from(lower), f64::from(upper)) as f32)
    }

    /// The value of a rank (from 0), if it lies in the window.
    fn ranked(&self, rank: usize) -> Option<f32> {
        let mut left = rank
            .checked_sub(self.below)
            .filter(|&left| left < self.within)?;
        for &(key, count) in &self.inside {
            match left.checked_sub(count as usize) {
                Some(less) => left = less,
                None => return Some(from_ordered_bits(key)),
            }
        }
        None
    }
}

/// Whether both rows are absent, or equal bit for bit.
fn same(gone: Option<&[f32]>, come: Option<&[f32]>) -> bool {
    match (gone, come) {
        (Some(gone), Some(come)) => gone
            .iter()
            .zip(come)
            .all(|(a, b)| a.to_bits() == b.to_bits()),
        (gone, come) => gone.is_none() && come.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::splitmix64;

    fn sorted_median(values: &[f32]) -> f32 {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let n = sorted.len();
        match (n, n % 2) {
            (0, _) => 0.0,
            (_, 1) => sorted[n / 2],
            _ => f64::midpoint(f64::from(sorted[n / 2 - 1]), f64::from(sorted[n / 2])) as f32,
        }
    }

    /// Values come, go and drift away from where the window was; ties are common.
    #[test]
    fn a_window_gives_the_median_of_what_is_there() {
        let mut window = Window::around_the_middle(Vec::new());
        let mut there: Vec<f32> = Vec::new();
        let mut rebuilt = 0;
        for i in 0..40_000u64 {
            let dice = splitmix64(i);
            if dice.is_multiple_of(4) && !there.is_empty() {
                let gone = there.swap_remove((dice >> 20) as usize % there.len());
                window.remove(ordered_bits(gone));
            } else {
                let v = ((dice >> 40) % 5000) as f32 / 100.0 + i as f32 / 1000.0 - 20.0;
                there.push(v);
                window.add(ordered_bits(v));
            }
            if i % 97 == 0 {
                let found = window.median().unwrap_or_else(|| {
                    rebuilt += 1;
                    window = Window::around_the_middle(
                        there.iter().copied().map(ordered_bits).collect(),
                    );
                    window.median().expect("it is around the middle")
                });
                assert_eq!(
                    found.to_bits(),
                    sorted_median(&there).to_bits(),
                    "after {i}"
                );
            }
        }
        assert!((2..100).contains(&rebuilt), "{rebuilt} of 412");
    }
}
