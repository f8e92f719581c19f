//! The part of a snapshot that is no array: JSON in the metadata of the file.

use serde::Deserialize;

use crate::archive::Entry;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::memory::channels::Channel;
use crate::memory::episodes::Episode;

pub(crate) const FORMAT: &str = "sharpwave-snapshot";
pub(crate) const VERSION: &str = "1";

/// What is not an array, to be read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) given: Config,
    pub(crate) embedder: Option<String>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) clock: u64,
    pub(crate) inserts: u64,
    pub(crate) next_memory: i64,
    pub(crate) next_episode: i64,
    pub(crate) proposals: Vec<Episode>,
    pub(crate) history: Option<Vec<Entry>>,
    /// Lengths of the pooled arrays: proposals first, then history.
    pub(crate) pooled: Vec<usize>,
    /// The number of the journal that goes on from here, in a store's directory.
    #[serde(default)]
    pub(crate) journal: Option<u64>,
}

impl State {
    /// Gives every array its part of the pool back.
    pub(crate) fn unpool(&mut self, mut pool: &[f32]) -> Result<()> {
        let lengths = std::mem::take(&mut self.pooled);
        let proposals = self
            .proposals
            .iter_mut()
            .flat_map(|episode| [&mut episode.steps, &mut episode.drives]);
        let history = self
            .history
            .iter_mut()
            .flatten()
            .flat_map(|entry| entry.operation.arrays_mut());
        let arrays: Vec<_> = proposals.chain(history).collect();
        if arrays.len() != lengths.len() {
            return Err(Error::format("archive", "arrays are missing"));
        }
        for (array, length) in arrays.into_iter().zip(lengths) {
            let Some((head, tail)) = pool.split_at_checked(length) else {
                return Err(Error::format("archive", "shorter than its parts"));
            };
            array.extend_from_slice(head);
            pool = tail;
        }
        if pool.is_empty() {
            Ok(())
        } else {
            Err(Error::format("archive", "longer than its parts"))
        }
    }
}
