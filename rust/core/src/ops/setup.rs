//! Setting up: channels, and calibration: what counts as near, as redundant and as an end, measured on base text.

use crate::archive::Operation;
use crate::base::cancel;
use crate::config::Config;
use crate::error::{Error, Result, invalid_if};
use crate::linalg;
use crate::memory::{Batch, Channel, Episodes, Kind, NewMemory, normalised_rows};
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
        let few = batch.len() < 2;
        invalid_if!(few, "steps", "calibration needs two steps or more");
        let sample = sample_of(&batch, self.config.dim);
        let mut config = self.config.clone();
        let set = measure(&mut config, &batch, &sample)?;
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
        let (n, dim) = (key.len(), self.config.dim);
        invalid_if!(n != dim, "key", "{n} numbers, not {dim}");
        let unit = normalised_rows("key", key, self.config.dim)?;
        let measured = terminal_range(&self.sample, &unit);
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

/// Most steps the sample keeps.
const SAMPLE: usize = 1024;

/// What [`crate::Store::calibrate`] set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// τ: the 0.90 quantile of the cosine between pairs of the sample.
    pub tau: f32,
    /// Where redundancy begins: the 0.90 quantile of each step's highest cosine to an earlier one.
    pub d_lo: f64,
    /// Where redundancy is full: the maximum of the same.
    pub d_hi: f64,
    /// Steps kept as the sample.
    pub sample: usize,
}

/// Up to [`SAMPLE`] steps of a batch, evenly strided.
fn sample_of(batch: &Batch, dim: usize) -> Vec<f32> {
    let n = batch.len();
    if n <= SAMPLE {
        return batch.rows().to_vec();
    }
    let mut kept = Vec::with_capacity(SAMPLE * dim);
    for i in 0..SAMPLE {
        kept.extend_from_slice(batch.step(i * n / SAMPLE));
    }
    kept
}

/// Sets τ and, where episodes of several steps were given, the redundancy range.
fn measure(config: &mut Config, batch: &Batch, sample: &[f32]) -> Result<Calibration> {
    let rows: Vec<&[f32]> = sample.chunks_exact(config.dim).collect();
    let mut pairs = Vec::with_capacity(rows.len() * rows.len().saturating_sub(1) / 2);
    for (i, a) in rows.iter().enumerate() {
        cancel::check()?;
        pairs.extend(rows[i + 1..].iter().map(|b| linalg::dot(a, b)));
    }
    if !pairs.is_empty() {
        // τ stays below 1, or nothing could ever answer.
        config.tau = (quantile(&mut pairs, 0.90) as f32).clamp(-1.0, 0.99);
    }
    let mut nearest = Vec::new();
    for e in 0..batch.episodes() {
        let range = batch.range(e);
        for t in range.clone().skip(1) {
            cancel::check()?;
            let highest = (range.start..t)
                .map(|u| linalg::dot(batch.step(u), batch.step(t)))
                .fold(f32::NEG_INFINITY, f32::max);
            nearest.push(highest);
        }
    }
    if !nearest.is_empty() {
        let (lo, hi) = (quantile(&mut nearest, 0.90), quantile(&mut nearest, 1.0));
        if hi > lo + 1e-3 {
            config.d_lo = lo;
            config.d_hi = hi;
        }
    }
    Ok(Calibration {
        tau: config.tau,
        d_lo: config.d_lo,
        d_hi: config.d_hi,
        sample: rows.len(),
    })
}

/// The range of a terminal: median and maximum of its cosine to the sample, or 0 and 1.
fn terminal_range(sample: &[f32], key: &[f32]) -> (f32, f32) {
    let mut cosines: Vec<f32> = sample
        .chunks_exact(key.len())
        .map(|step| linalg::dot(step, key))
        .collect();
    if cosines.is_empty() {
        return (0.0, 1.0);
    }
    let low = quantile(&mut cosines, 0.5) as f32;
    let high = quantile(&mut cosines, 1.0) as f32;
    if low < high { (low, high) } else { (0.0, 1.0) }
}

/// The quantile by linear interpolation between order statistics (Hyndman & Fan 1996, type 7).
fn quantile(values: &mut [f32], q: f64) -> f64 {
    values.sort_unstable_by(f32::total_cmp);
    let at = q * (values.len() - 1) as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(values.len() - 1);
    let (a, b) = (f64::from(values[below]), f64::from(values[above]));
    a + (b - a) * (at - below as f64)
}
