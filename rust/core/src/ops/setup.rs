//! Setting up: calibration and channels.

use crate::archive::Operation;
use crate::error::{Error, Result, invalid_if};
use crate::memory::channels::{Channel, Kind};
use crate::memory::columns::NewMemory;
use crate::memory::episodes::{Episodes, normalised_rows};
use crate::ops::calibrate::{self, Calibration};
use crate::store::Store;

impl Store {
    /// Measures τ, the redundancy range and the sample on base episodes (`docs/model.md`, Activation).
    ///
    /// # Errors
    /// [`Error::State`] if the store holds a memory already, [`Error::Invalid`] for bad or no steps,
    /// [`Error::Interrupted`] if the call is cancelled ([`crate::Cancel`]): nothing is set then.
    pub fn calibrate(&mut self, episodes: &Episodes<'_>) -> Result<Calibration> {
        if !self.is_empty() {
            return Err(Error::State(
                "calibrate works on an empty store only: its numbers shape every memory".into(),
            ));
        }
        let batch = episodes.checked(self.config.dim)?;
        invalid_if!(
            batch.len() < 2,
            "steps",
            "calibration needs two steps or more"
        );
        let sample = calibrate::sample(&batch, self.config.dim);
        let mut config = self.config.clone();
        let set = calibrate::calibrate(&mut config, &batch, &sample)?;
        self.record(|| Operation::Calibrate {
            steps: episodes.steps.to_vec(),
            offsets: episodes.offsets.to_vec(),
        })?;
        self.sample = sample;
        self.config = config;
        Ok(set)
    }

    /// Adds an embedding channel and the terminal memory that holds its key. Returns its column.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad key, a taken name or an empty range.
    pub fn add_terminal(
        &mut self,
        name: &str,
        key: &[f32],
        low: Option<f32>,
        high: Option<f32>,
    ) -> Result<usize> {
        invalid_if!(
            key.len() != self.config.dim,
            "key",
            "{} numbers, not {}",
            key.len(),
            self.config.dim
        );
        let unit = normalised_rows("key", key, self.config.dim)?;
        let measured = calibrate::terminal_range(&self.sample, &unit);
        let (from, to) = (low.unwrap_or(measured.0), high.unwrap_or(measured.1));
        self.channels.check(name, from, to)?;
        self.record(|| Operation::AddTerminal {
            name: name.to_owned(),
            key: key.to_vec(),
            low,
            high,
        })?;
        let (id, _) = self.create(&NewMemory {
            key: &unit,
            terminal: true,
            merged: 0,
            clock: self.clock,
            text: Some(name),
            provenance: None,
        });
        Ok(self.add_column(Channel {
            name: name.to_owned(),
            kind: Kind::Terminal { memory: id },
            low: from,
            high: to,
        }))
    }

    /// Adds a scalar channel, fed by the drives of observed episodes. Returns its column.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a taken name or an empty range.
    pub fn add_channel(&mut self, name: &str, low: f32, high: f32) -> Result<usize> {
        self.channels.check(name, low, high)?;
        self.record(|| Operation::AddChannel {
            name: name.to_owned(),
            low,
            high,
        })?;
        for proposal in &mut self.proposals {
            let (steps, scalars) = (proposal.len(), self.channels.scalars());
            if scalars == 0 {
                proposal.drives = vec![f32::NAN; steps];
            } else {
                crate::memory::columns::widen(&mut proposal.drives, scalars, f32::NAN);
            }
        }
        Ok(self.add_column(Channel {
            name: name.to_owned(),
            kind: Kind::Scalar,
            low,
            high,
        }))
    }

    fn add_column(&mut self, channel: Channel) -> usize {
        let q = self.channels.push(channel);
        self.memories.add_column(&self.channels);
        self.values.add_column(&self.memories, &self.graph);
        q
    }

    /// Removes a channel and, if it has one, its terminal.
    ///
    /// # Errors
    /// [`Error::Unknown`] if there is no such channel.
    pub fn remove_channel(&mut self, name: &str) -> Result<()> {
        let q = self.channels.position(name)?;
        self.record(|| Operation::RemoveChannel {
            name: name.to_owned(),
        })?;
        let scalar = self.channels.scalar_column(q);
        if let Some(scalar) = scalar {
            let scalars = self.channels.scalars();
            for proposal in &mut self.proposals {
                crate::memory::columns::narrow(&mut proposal.drives, scalars, scalar);
            }
        }
        let channel = self.channels.remove(q);
        self.memories.remove_column(q, scalar);
        self.values.remove_column(q);
        if let Kind::Terminal { memory } = channel.kind {
            let slot = self.memories.held(memory);
            self.forget(slot);
        }
        Ok(())
    }
}
