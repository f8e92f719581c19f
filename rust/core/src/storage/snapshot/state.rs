//! The part of a snapshot that is no array: JSON in the metadata of the file.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::archive::Entry;
use crate::config::Config;
use crate::error::{Error, Result, damaged_if};
use crate::memory::{Channel, Episode};

pub(crate) const FORMAT: &str = "sharpwave-snapshot";
pub(crate) const VERSION: &str = "1";

/// What is not an array: borrowed from a store that is written, owned by a file that is read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State<'a> {
    pub(crate) config: Cow<'a, Config>,
    pub(crate) given: Cow<'a, Config>,
    pub(crate) embedder: Option<Cow<'a, str>>,
    pub(crate) channels: Cow<'a, [Channel]>,
    pub(crate) clock: u64,
    pub(crate) inserts: u64,
    pub(crate) next_memory: i64,
    pub(crate) next_episode: i64,
    pub(crate) proposals: Cow<'a, [Episode]>,
    pub(crate) history: Option<Cow<'a, [Arc<Entry>]>>,
    /// Lengths of the pooled arrays: proposals first, then history.
    pub(crate) pooled: Vec<usize>,
    /// The number of the journal that goes on from here, in a store's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) journal: Option<u64>,
}

impl State<'_> {
    /// Gives every array its part of the pool back.
    pub(crate) fn unpool(&mut self, mut pool: &[f32]) -> Result<()> {
        let lengths = std::mem::take(&mut self.pooled);
        let proposals = self.proposals.to_mut().iter_mut();
        let proposals = proposals.flat_map(|episode| [&mut episode.steps, &mut episode.drives]);
        let history = self.history.iter_mut().flat_map(Cow::to_mut);
        let history = history.flat_map(|entry| Arc::make_mut(entry).operation.arrays_mut());
        let arrays: Vec<_> = proposals.chain(history).collect();
        let whole = arrays.len() == lengths.len();
        damaged_if!(!whole, "archive", "arrays are missing");
        for (array, length) in arrays.into_iter().zip(lengths) {
            let Some((head, tail)) = pool.split_at_checked(length) else {
                return Err(Error::format("archive", "shorter than its parts"));
            };
            array.extend_from_slice(head);
            pool = tail;
        }
        damaged_if!(!pool.is_empty(), "archive", "longer than its parts");
        Ok(())
    }
}
