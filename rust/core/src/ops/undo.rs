//! Taking back the steps of an episode that was given up while it was written.
//!
//! A long episode makes memories for seconds: each of its steps is compared with all that the steps before it made. Until
//! the associations are written, all that changes are its memories, their values, and the statistics of predictions. They
//! are put back as they were, bit for bit. Short episodes are not worth the copies: they are written in one go.

use std::collections::BTreeMap;

use crate::base::slot::Slot;
use crate::graph::edge_statistics::EdgeStatistics;
use crate::memory::columns::Before;
use crate::ops::observe::ObserveReport;
use crate::store::Store;
use crate::values::table::Values;

/// Steps up to which an episode is written in one go: a few milliseconds.
pub(crate) const SHORT: usize = 64;

/// What was before an episode.
pub(crate) struct Undo {
    next_memory: i64,
    slots: usize,
    /// Their pages are shared until one is written.
    values: Values,
    edges: EdgeStatistics,
    /// The memories that steps were merged into.
    merged: BTreeMap<Slot, Before>,
    reported: usize,
}

impl Undo {
    pub(crate) fn of(store: &Store, report: &ObserveReport) -> Self {
        Self {
            next_memory: store.next_memory,
            slots: store.memories.slots(),
            values: store.values.clone(),
            edges: store.edges.clone(),
            merged: BTreeMap::new(),
            reported: report.memory_ids.len(),
        }
    }

    /// Notes a memory before a step is merged into it.
    pub(crate) fn note(&mut self, store: &Store, slot: Slot) {
        if store.memories.id(slot) < self.next_memory {
            let before = || store.memories.before(slot);
            self.merged.entry(slot).or_insert_with(before);
        }
    }

    /// Makes a store and a report again what they were.
    pub(crate) fn take_back(self, store: &mut Store, report: &mut ObserveReport) {
        store.forget_since(self.next_memory, self.slots);
        for (slot, before) in self.merged {
            store.memories.put_back(slot, &before, &store.channels);
        }
        store.values = self.values;
        store.edges = self.edges;
        report.memory_ids.truncate(self.reported);
        report.outcomes.truncate(self.reported);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::base::rng::splitmix64;
    use crate::config::Config;
    use crate::error::{Error, Result};
    use crate::memory::episodes::Episodes;
    use crate::ops::observe::{Drives, Observation};

    const DIM: usize = 6;

    /// Rows of which many are close to each other.
    fn rows(n: usize, seed: u64) -> Vec<f32> {
        (0..(n * DIM) as u64)
            .map(|i| (splitmix64(seed << 32 | i) >> 61) as f32 - 3.4)
            .collect()
    }

    fn observe(store: &mut Store, steps: &[f32], lengths: &[usize]) -> Result<ObserveReport> {
        let mut offsets = vec![0i64];
        for &length in lengths {
            offsets.push(offsets[offsets.len() - 1] + length as i64);
        }
        let drives: Vec<f32> = (0..steps.len() / DIM).map(|t| t as f32 / 100.0).collect();
        let observation = Observation {
            episodes: Episodes {
                steps,
                offsets: &offsets,
            },
            drives: Some(Drives::Steps(&drives)),
            texts: None,
            ids: None,
            source: None,
            propose: false,
        };
        store.observe(&observation, &|| false)
    }

    /// A store that merged, evicted, slept and has free slots.
    fn lived(capacity: Option<usize>) -> Store {
        let mut store = Store::new(Config {
            capacity,
            half_life: 1,
            novelty: 0.15,
            w_surprise: 0.5,
            ..Config::new(DIM)
        })
        .unwrap();
        store.add_channel("v", 0.0, 10.0).unwrap();
        for (name, seed) in [("goal", 9), ("a", 10), ("b", 11), ("c", 12)] {
            store
                .add_terminal(name, &rows(1, seed), None, None)
                .unwrap();
        }
        observe(&mut store, &rows(600, 1), &[100, 3, 297, 200]).unwrap();
        store
            .replay(&crate::ReplayRequest::default(), &|| false)
            .unwrap();
        let last = store.ids()[store.len() - 1];
        store.veto_memory(last).unwrap();
        observe(&mut store, &rows(90, 2), &[40, 50]).unwrap();
        for name in ["a", "b", "c"] {
            store.remove_channel(name).unwrap();
        }
        store
    }

    /// Does `work`, which is given up when it asks for the `last`-th time.
    fn until<T>(last: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let asked = Rc::new(Cell::new(0));
        let ask = move || {
            asked.set(asked.get() + 1);
            asked.get() >= last
        };
        crate::interruptible(ask, work)
    }

    /// What is given up anywhere leaves the bytes of the store, archive included, as they were; and it goes on as if
    /// nobody had begun.
    fn leaves_no_trace(
        capacity: Option<usize>,
        partitioned: bool,
        mut work: impl FnMut(&mut Store) -> Result<()>,
    ) {
        let (mut store, mut twin) = (lived(capacity), lived(capacity));
        if partitioned {
            store.partition(Some(5), 1, None).unwrap();
        }
        let before = store.to_bytes().unwrap();
        let mut given_up = 0;
        loop {
            match until(1 + given_up, || work(&mut store)) {
                Ok(()) => break,
                Err(error) => assert!(matches!(error, Error::Interrupted)),
            }
            given_up += 1;
            assert_eq!(store.to_bytes().unwrap(), before, "{given_up}");
        }
        assert!(given_up > 100, "{given_up}");
        work(&mut twin).unwrap();
        assert_eq!(store.digest(), twin.digest());
        let more = rows(300, 5);
        for store in [&mut store, &mut twin] {
            observe(store, &more, &[150, 2, 148]).unwrap();
            store
                .replay(&crate::ReplayRequest::default(), &|| false)
                .unwrap();
        }
        assert_eq!(store.to_bytes().unwrap(), twin.to_bytes().unwrap());
        let found = |store: &Store| store.search(&more, 7, None).unwrap();
        assert_eq!(found(&store), found(&twin));
    }

    #[test]
    fn a_long_episode_that_is_given_up_leaves_no_trace() {
        let steps = rows(200, 3);
        for partitioned in [false, true] {
            leaves_no_trace(Some(120), partitioned, |store| {
                let report = observe(store, &steps, &[200])?;
                let new = report
                    .outcomes
                    .iter()
                    .filter(|o| **o == crate::Outcome::New);
                assert!((1..200).contains(&new.count()), "some are merged");
                Ok(())
            });
        }
    }

    #[test]
    fn an_insertion_that_is_given_up_leaves_no_trace() {
        let keys = rows(200, 4);
        for partitioned in [false, true] {
            leaves_no_trace(None, partitioned, |store| {
                store.insert(&keys, None, None).map(drop)
            });
        }
    }
}
