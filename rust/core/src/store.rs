//! The store: a deterministic state machine over episodes.
//!
//! This file says what it is made of. Its verbs have a file each: `setup` (channels, calibration),
//! `observe`, `insert`, `partition`, `sleep`, `history` (veto), `read` (search, value, score), `columns`, `frozen`,
//! `persist` (snapshots, digest).

use std::collections::HashMap;
use std::sync::Arc;

use crate::archive::{Entry, JournalSlot, Record};
use crate::base::{HeapSize, Slot, heap_sized};
use crate::config::Config;
use crate::error::{Error, Result, invalid_if};
use crate::graph::{EdgeStatistics, Graph, hebbian};
use crate::index::Indexed;
use crate::memory::{Channel, Channels, Episode, NewMemory};
use crate::values::{Model, Values};

heap_sized! {
    /// A value memory.
    ///
    /// See the crate's first page for a tour.
    #[derive(Clone)]
    pub struct Store {
        /// The configuration in force: as given, with what calibration measured.
        pub(crate) config: Config,
        pub(crate) given: Config,
        pub(crate) embedder: Option<String>,
        pub(crate) channels: Channels,
        pub(crate) memories: Indexed,
        pub(crate) graph: Graph,
        pub(crate) values: Values,
        pub(crate) edge_statistics: EdgeStatistics,
        /// `(n, d)`: the calibration sample.
        pub(crate) sample: Vec<f32>,
        /// Observed episodes.
        pub(crate) clock: u64,
        /// The ids of the observed episodes, in order, and their places in that order.
        pub(crate) episode_ids: Vec<i64>,
        pub(crate) ordinals: HashMap<i64, u64>,
        pub(crate) inserts: u64,
        pub(crate) next_memory: i64,
        pub(crate) next_episode: i64,
        pub(crate) proposals: Vec<Episode>,
        /// Entries never change, so copies of the store share them.
        pub(crate) history: Option<Vec<Arc<Entry>>>,
        /// Earlier moments, oldest first: a veto of something later replays history from the last of them on.
        pub(crate) checkpoints: Vec<Checkpoint>,
        /// Where what is being done is recorded, while it is, if the store lives in a directory.
        pub(crate) journal: JournalSlot,
    }
}

/// An earlier moment of a store, which shares its archive.
#[derive(Clone)]
pub(crate) struct Checkpoint(pub(crate) Arc<Store>);

impl HeapSize for Checkpoint {
    fn heap_size(&self) -> usize {
        let shared = self.0.history.iter().flatten().map(HeapSize::heap_size);
        self.0.heap_size() - shared.sum::<usize>()
    }
}

/// What the value equation needs to know of a store, whose values may be written meanwhile.
macro_rules! model {
    ($store:expr) => {
        $crate::values::backup::Model {
            config: &$store.config,
            memories: &$store.memories,
            graph: &$store.graph,
        }
    };
}
pub(crate) use model;

impl Store {
    /// An empty store.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the first bad number of the configuration.
    pub fn new(config: Config) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            given: config.clone(),
            embedder: None,
            channels: Channels::default(),
            memories: Indexed::new(config.dim),
            graph: Graph::default(),
            values: Values::default(),
            edge_statistics: EdgeStatistics::default(),
            sample: Vec::new(),
            clock: 0,
            episode_ids: Vec::new(),
            ordinals: HashMap::new(),
            inserts: 0,
            next_memory: 0,
            next_episode: 0,
            proposals: Vec::new(),
            history: config.keep_episodes.then(Vec::new),
            checkpoints: Vec::new(),
            journal: JournalSlot::default(),
            config,
        })
    }

    /// The configuration in force, calibration included.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many memories it holds, terminals included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memories.len()
    }

    /// Whether it holds no memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The channels, in the order of every `(…, Q)` array.
    #[must_use]
    pub fn channels(&self) -> &[Channel] {
        self.channels.as_slice()
    }

    /// How many channels are scalar: the width of `drives`.
    #[must_use]
    pub fn scalar_count(&self) -> usize {
        self.channels.scalars()
    }

    /// Observed episodes.
    #[must_use]
    pub fn episodes_observed(&self) -> u64 {
        self.clock
    }

    /// Episodes put aside until a replay consolidates.
    #[must_use]
    pub fn episodes_proposed(&self) -> usize {
        self.proposals.len()
    }

    /// The bytes of memory that it holds, the archive included. Working space of a call comes on top of it, and a copy of
    /// all but the archive while a frozen view is kept and the store is written to.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        size_of::<Self>() + self.heap_size()
    }

    /// The fingerprint of the embedder that fills it, if one was recorded.
    #[must_use]
    pub fn embedder(&self) -> Option<&str> {
        self.embedder.as_deref()
    }

    /// Records the embedder, or checks that it is the recorded one.
    ///
    /// # Errors
    /// [`Error::Embedder`] if another one was recorded, [`Error::Invalid`] for an empty fingerprint.
    pub fn bind_embedder(&mut self, fingerprint: &str) -> Result<()> {
        let empty = fingerprint.is_empty();
        invalid_if!(empty, "embedder", "the fingerprint is empty");
        match &self.embedder {
            Some(recorded) if recorded != fingerprint => Err(Error::Embedder {
                recorded: recorded.clone(),
                offered: fingerprint.to_owned(),
            }),
            Some(_) => Ok(()),
            None => {
                self.journal
                    .append(&Record::BindEmbedder(fingerprint.into()))?;
                self.embedder = Some(fingerprint.to_owned());
                Ok(())
            }
        }
    }

    /// The arrays of the proposals, then those of the archive.
    pub(crate) fn archived(&self) -> impl Iterator<Item = &[f32]> {
        let proposals = self.proposals.iter().flat_map(|e| [&e.steps, &e.drives]);
        let history = self
            .history
            .iter()
            .flatten()
            .flat_map(|entry| entry.operation.arrays());
        proposals.chain(history).map(Vec::as_slice)
    }

    /// Gives a memory its id, its slot and its room everywhere.
    pub(crate) fn create(&mut self, new: &NewMemory<'_>) -> (i64, Slot) {
        let id = self.next_memory;
        self.next_memory += 1;
        let slot = self.memories.add(id, new, &self.channels);
        self.graph.ensure(slot);
        self.values.start(slot, self.memories.drives(slot));
        (id, slot)
    }

    /// Removes a memory with its row and column; the rows of what led to it changed.
    pub(crate) fn forget(&mut self, slot: Slot) {
        for predecessor in hebbian::forget(&mut self.graph, &self.memories, slot) {
            self.changed(predecessor);
        }
        self.values.clean(slot);
        self.memories.remove(slot);
    }

    /// To be called when a memory's row, mass or drive changed: it is dirty until its next backup. If it
    /// leads nowhere it is worth its drive, at once.
    pub(crate) fn changed(&mut self, slot: Slot) {
        let model = model!(self);
        if model.has_successors(slot) {
            self.values.mark(slot);
        } else {
            self.values.backup(slot, model);
        }
    }

    pub(crate) fn model(&self) -> Model<'_> {
        model!(self)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("config", &self.config)
            .field("channels", &self.channels)
            .field("memories", &self.len())
            .field("episodes", &self.clock)
            .finish_non_exhaustive()
    }
}
