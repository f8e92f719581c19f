//! Appending memories as they are.

use crate::archive::Operation;
use crate::base::cancel;
use crate::config::Equation;
use crate::error::{Error, Result, invalid_if};
use crate::memory::{NewMemory, Provenance, normalised_rows};
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
        let given = texts.len();
        let fit = given == 0 || given == n;
        invalid_if!(!fit, "texts", "{given} texts for {n} keys");
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
    /// Cancelled after it has `begun`, it leaves a part, to be thrown away or taken back.
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
            let infinite = drive.is_infinite();
            invalid_if!(infinite, "drives", "row {row}, column {column} is infinite");
            invalid_if!(
                stopping && drive < 0.0,
                "drives",
                "row {row}, column {column} is {drive}: the stopping equation needs drives ≥ 0"
            );
        }
        Ok(())
    }
}
