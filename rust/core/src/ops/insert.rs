//! Appending memories as they are.

use crate::archive::Operation;
use crate::base::cancel;
use crate::base::slot::Slot;
use crate::config::Equation;
use crate::error::{Error, Result};
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
        if drives.len() != n * scalars {
            return Err(Error::invalid(
                "drives",
                format!(
                    "{} numbers are not {n} rows of {scalars} scalar channels",
                    drives.len()
                ),
            ));
        }
        self.check_drives(drives)?;
        let texts = texts.unwrap_or_default();
        if !texts.is_empty() && texts.len() != n {
            return Err(Error::invalid(
                "texts",
                format!("{} texts for {n} keys", texts.len()),
            ));
        }
        if let Some(capacity) = self.config.capacity
            && self.len() + n > capacity
        {
            return Err(Error::invalid(
                "keys",
                format!("{n} more memories would exceed the capacity of {capacity}"),
            ));
        }
        let rows: Vec<u32> = (0..n as u32).collect();
        let (first, slots) = (self.next_memory, self.memories.slots());
        let mut begun = false;
        let inserted = self.append_rows(keys, drives, texts, &rows, &mut begun);
        if begun && inserted.is_err() {
            self.take_back(first, slots);
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

    /// Undoes an insertion that was given up: memories from `first` on were not there, nor was its record.
    fn take_back(&mut self, first: i64, slots: usize) {
        self.forget_since(first, slots);
        self.unrecord();
    }

    /// Memories from `first` on were not there, when there were so many slots; they lead nowhere, and nothing to them.
    ///
    /// Those in slots of their own go at once, however many they are.
    pub(crate) fn forget_since(&mut self, first: i64, slots: usize) {
        let order = self.memories.in_order();
        let since = order.partition_point(|&slot| self.memories.id(slot) < first);
        // Free slots are taken first, so those in new ones are the latest.
        let reused = order[since..]
            .iter()
            .take_while(|&&slot| (slot as usize) < slots);
        let reused: Vec<Slot> = reused.copied().collect();
        self.values.truncate(slots);
        self.memories.truncate(slots);
        for slot in reused.into_iter().rev() {
            self.forget(slot);
        }
        self.next_memory = first;
    }

    /// Any finite drive for `return`, none below 0 for `stopping`; NaN is "not observed".
    pub(crate) fn check_drives(&self, drives: &[f32]) -> Result<()> {
        let scalars = self.scalar_count().max(1);
        let stopping = self.config.equation == Equation::Stopping;
        for (at, &drive) in drives.iter().enumerate() {
            let (row, column) = (at / scalars, at % scalars);
            if drive.is_infinite() {
                return Err(Error::invalid(
                    "drives",
                    format!("row {row}, column {column} is infinite"),
                ));
            }
            if stopping && drive < 0.0 {
                return Err(Error::invalid(
                    "drives",
                    format!(
                        "row {row}, column {column} is {drive}: the stopping equation needs drives ≥ 0"
                    ),
                ));
            }
        }
        Ok(())
    }
}
