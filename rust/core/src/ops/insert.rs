//! Appending memories as they are.

use crate::archive::Operation;
use crate::base::cancel;
use crate::config::Equation;
use crate::error::{Error, Result, invalid_if};
use crate::memory::columns::{NewMemory, Provenance};
use crate::memory::episodes::normalised_rows;
use crate::store::Store;

impl Store {
    /// Appends memories as they are: no gate, no merging, no associations. Returns their ids.
    ///
    /// # Errors
    /// [`Error::Invalid`] for bad keys, drives or texts, or if the capacity would be exceeded;
    /// [`Error::Interrupted`] if the call is cancelled ([`crate::Cancel`]). All stays as it was then.
    pub fn insert(
        &mut self,
        keys: &[f32],
        drives: Option<&[f32]>,
        texts: Option<&[String]>,
    ) -> Result<Vec<i64>> {
        let n = keys.len() / self.config.dim;
        let scalars = self.scalar_count();
        let unobserved = if drives.is_none() { n * scalars } else { 0 };
        let unobserved = vec![f32::NAN; unobserved];
        let drives = drives.unwrap_or(&unobserved);
        invalid_if!(
            drives.len() != n * scalars,
            "drives",
            "{} numbers are not {n} rows of {scalars} scalar channels",
            drives.len()
        );
        self.check_drives(drives)?;
        let texts = texts.unwrap_or_default();
        invalid_if!(
            !texts.is_empty() && texts.len() != n,
            "texts",
            "{} texts for {n} keys",
            texts.len()
        );
        if let Some(capacity) = self.config.capacity
            && self.len() + n > capacity
        {
            return Err(Error::invalid(
                "keys",
                format!("{n} more memories would exceed the capacity of {capacity}"),
            ));
        }
        let rows: Vec<u32> = (0..n as u32).collect();
        let first = self.next_memory;
        let mut begun = false;
        let inserted = self.append_rows(keys, drives, texts, &rows, &mut begun);
        if begun && inserted.is_err() {
            // Memories from `first` on were not there, nor was the record.
            while let Some(&last) = self.memories.in_order().last()
                && self.memories.id(last) >= first
            {
                self.forget(last);
            }
            self.next_memory = first;
            self.unrecord();
        }
        inserted
    }

    /// [`Store::insert`] once drives and texts are checked; `rows` are the rows' original places.
    ///
    /// # Errors
    /// [`Error::Interrupted`]: what there is then is a part, if it has `begun`, and to be thrown away or taken back.
    pub(crate) fn append_rows(
        &mut self,
        keys: &[f32],
        drives: &[f32],
        texts: &[String],
        rows: &[u32],
        begun: &mut bool,
    ) -> Result<Vec<i64>> {
        let units = normalised_rows("keys", keys, self.config.dim)?;
        let scalars = self.scalar_count();
        let first = self.next_memory;
        self.memories.reserve_for(rows.len());
        if self.is_recorded() {
            self.record_now(Operation::Insert {
                keys: keys.to_vec(),
                drives: drives.to_vec(),
                texts: texts.to_vec(),
                rows: rows.to_vec(),
            })?;
        }
        *begun = true;
        for (at, key) in units.chunks_exact(self.config.dim).enumerate() {
            cancel::check()?;
            let (_, slot) = self.create(&NewMemory {
                key,
                terminal: false,
                merged: 1,
                clock: self.clock,
                text: texts.get(at).map(String::as_str),
                provenance: Some(Provenance {
                    origin: -1 - self.inserts as i64,
                    step: rows[at],
                }),
            });
            for scalar in 0..scalars {
                let drive = drives[at * scalars + scalar];
                if !drive.is_nan() {
                    self.memories.observe_drive(slot, scalar, drive);
                }
            }
            self.memories.refresh_drives(slot, &self.channels);
            self.values.start(slot, self.memories.drives(slot));
        }
        self.inserts += 1;
        Ok((first..self.next_memory).collect())
    }

    /// Any finite drive for `return`, none below 0 for `stopping`; NaN is "not observed".
    pub(crate) fn check_drives(&self, drives: &[f32]) -> Result<()> {
        let scalars = self.scalar_count().max(1);
        let stopping = self.config.equation == Equation::Stopping;
        for (at, &drive) in drives.iter().enumerate() {
            let (row, column) = (at / scalars, at % scalars);
            invalid_if!(
                drive.is_infinite(),
                "drives",
                "row {row}, column {column} is infinite"
            );
            invalid_if!(
                stopping && drive < 0.0,
                "drives",
                "row {row}, column {column} is {drive}: the stopping equation needs drives ≥ 0"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::base::cancel::Cancel;
    use crate::base::rng::splitmix64;
    use crate::config::Config;
    use crate::memory::episodes::Episodes;
    use crate::ops::observe::{Drives, Observation, ObserveReport};

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
        store.observe(&observation)
    }

    /// A store that merged, evicted, slept and has free slots.
    fn lived(capacity: Option<usize>) -> Store {
        let mut store = Store::new(Config {
            capacity,
            half_life: 1,
            min_novelty: 0.15,
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
        store.replay(&crate::ReplayRequest::default()).unwrap();
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
        Cancel::new(ask).scope(work)
    }

    /// What is given up anywhere leaves the bytes of the store, archive included, as they were; and it goes on as if
    /// nobody had begun.
    fn leaves_no_trace(
        capacity: Option<usize>,
        partitioned: bool,
        least: usize,
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
        assert!(given_up > least, "{given_up}");
        work(&mut twin).unwrap();
        assert_eq!(store.digest(), twin.digest());
        let more = rows(300, 5);
        for store in [&mut store, &mut twin] {
            observe(store, &more, &[150, 2, 148]).unwrap();
            store.replay(&crate::ReplayRequest::default()).unwrap();
        }
        assert_eq!(store.to_bytes().unwrap(), twin.to_bytes().unwrap());
        let found = |store: &Store| store.search(&more, 7, None).unwrap();
        assert_eq!(found(&store), found(&twin));
    }

    #[test]
    fn a_long_episode_that_is_given_up_leaves_no_trace() {
        let steps = rows(200, 3);
        for partitioned in [false, true] {
            leaves_no_trace(Some(120), partitioned, 3, |store| {
                let report = observe(store, &steps, &[200])?;
                if report.interrupted && report.episode_ids.is_empty() {
                    return Err(Error::Interrupted);
                }
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
            leaves_no_trace(None, partitioned, 100, |store| {
                store.insert(&keys, None, None).map(drop)
            });
        }
    }
}
