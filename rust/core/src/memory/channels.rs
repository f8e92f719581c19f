//! Channels: the terminal values that everything else is a means to.

use serde::{Deserialize, Serialize};

use crate::base::{HeapSize, heap_sized, no_heap};
use crate::error::{Error, Result, invalid_if};

/// How a channel gets its drives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An embedding to approach: the drive is derived from the key.
    Terminal {
        /// The memory that holds the terminal's key.
        memory: i64,
    },
    /// A scalar reward source: the drive is the mean of what was observed.
    Scalar,
}

heap_sized! {
    /// One terminal value.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Channel {
        /// Its name, unique in the store.
        pub name: String,
        /// Where its drives come from.
        pub kind: Kind,
        /// The cosine (or the observation) that counts as nothing.
        pub low: f32,
        /// The cosine (or the observation) that counts as everything.
        pub high: f32,
    }
}

impl Channel {
    /// `clip((s − low)/(high − low), 0, 1)²`: the drive of a step whose cosine to the terminal is `s`.
    pub(crate) fn drive(&self, s: f32) -> f32 {
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        let reach = ((f64::from(s) - low) / (high - low)).clamp(0.0, 1.0);
        (reach * reach) as f32
    }

    pub(crate) fn is_scalar(&self) -> bool {
        matches!(self.kind, Kind::Scalar)
    }
}

/// The channels in the order of their adding: the columns of every `(…, Q)` array.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Channels(Vec<Channel>);

impl HeapSize for Channels {
    fn heap_size(&self) -> usize {
        self.0.heap_size()
    }
}

no_heap!(Kind);

impl Channels {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn as_slice(&self) -> &[Channel] {
        &self.0
    }

    pub(crate) fn scalars(&self) -> usize {
        self.0.iter().filter(|c| c.is_scalar()).count()
    }

    /// The scalar column of channel `q`, if it is scalar.
    pub(crate) fn scalar_column(&self, q: usize) -> Option<usize> {
        self.0[q]
            .is_scalar()
            .then(|| self.0[..q].iter().filter(|c| c.is_scalar()).count())
    }

    pub(crate) fn position(&self, name: &str) -> Result<usize> {
        self.0
            .iter()
            .position(|c| c.name == name)
            .ok_or_else(|| Error::unknown("channel", format!("{name:?}")))
    }

    /// Checks name and range without adding anything.
    pub(crate) fn check(&self, name: &str, low: f32, high: f32) -> Result<()> {
        invalid_if!(name.is_empty(), "name", "must not be empty");
        let taken = self.0.iter().any(|c| c.name == name);
        invalid_if!(taken, "name", "there is a channel {name:?} already");
        invalid_if!(!low.is_finite(), "low", "{low} is not finite");
        let above = high.is_finite() && high > low;
        invalid_if!(!above, "high", "{high} is not above low = {low}");
        Ok(())
    }

    pub(crate) fn push(&mut self, channel: Channel) -> usize {
        self.0.push(channel);
        self.0.len() - 1
    }

    pub(crate) fn remove(&mut self, q: usize) -> Channel {
        self.0.remove(q)
    }
}
