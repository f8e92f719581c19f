//! Operations as they are recorded: in the archive of a store, and in the journal of its directory.

use std::any::Any;
use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::base::{HeapSize, heap_sized, no_heap};
use crate::error::Result;
use crate::memory::Episode;
use crate::values::ReplayRequest;

/// One operation that changed the store. Arrays are left out of the JSON and pooled beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    Calibrate {
        #[serde(skip)]
        steps: Vec<f32>,
        offsets: Vec<i64>,
    },
    AddTerminal {
        name: String,
        #[serde(skip)]
        key: Vec<f32>,
        low: Option<f32>,
        high: Option<f32>,
    },
    AddChannel {
        name: String,
        low: f32,
        high: f32,
    },
    RemoveChannel {
        name: String,
    },
    Observe(Episode),
    Propose(Episode),
    Insert {
        #[serde(skip)]
        keys: Vec<f32>,
        #[serde(skip)]
        drives: Vec<f32>,
        texts: Vec<String>,
        /// The row each key had when first inserted.
        rows: Vec<u32>,
    },
    Replay(ReplayRequest),
}

heap_sized! {
    /// An operation and the id the first memory it made would have got.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Entry {
        pub(crate) next_memory: i64,
        pub(crate) operation: Operation,
    }
}

impl HeapSize for Operation {
    fn heap_size(&self) -> usize {
        match self {
            Self::Calibrate { steps, offsets } => steps.heap_size() + offsets.heap_size(),
            Self::AddTerminal {
                name,
                key,
                low: _,
                high: _,
            } => name.heap_size() + key.heap_size(),
            Self::AddChannel {
                name,
                low: _,
                high: _,
            }
            | Self::RemoveChannel { name } => name.heap_size(),
            Self::Observe(episode) | Self::Propose(episode) => episode.heap_size(),
            Self::Insert {
                keys,
                drives,
                texts,
                rows,
            } => keys.heap_size() + drives.heap_size() + texts.heap_size() + rows.heap_size(),
            Self::Replay(request) => request.heap_size(),
        }
    }
}

/// The arrays of an operation, as it is borrowed.
macro_rules! arrays {
    ($operation:expr) => {
        match $operation {
            Self::Calibrate { steps, .. } => vec![steps],
            Self::AddTerminal { key, .. } => vec![key],
            Self::Observe(Episode { steps, drives, .. })
            | Self::Propose(Episode { steps, drives, .. }) => vec![steps, drives],
            Self::Insert { keys, drives, .. } => vec![keys, drives],
            Self::AddChannel { .. } | Self::RemoveChannel { .. } | Self::Replay(_) => vec![],
        }
    };
}

impl Operation {
    /// Every array of the operation, in a fixed order: what a snapshot pools.
    pub(crate) fn arrays(&self) -> Vec<&Vec<f32>> {
        arrays!(self)
    }

    /// [`Operation::arrays`], to be filled.
    pub(crate) fn arrays_mut(&mut self) -> Vec<&mut Vec<f32>> {
        arrays!(self)
    }
}

/// Something that changed a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record<'a> {
    /// What the archive keeps, too.
    Operation(Cow<'a, Operation>),
    /// The id of the episode.
    VetoEpisode(i64),
    /// The ids of several, or of none.
    VetoEpisodes(Cow<'a, [i64]>),
    /// The id of the memory.
    VetoMemory(i64),
    /// The fingerprint.
    BindEmbedder(Cow<'a, str>),
}

/// Where what is done to a store is recorded, before it is done.
pub(crate) trait Journal: Any + Send + Sync {
    /// Appends a record: it is kept as the store is when this returns.
    /// If it fails there is no such record.
    fn append(&mut self, record: &Record<'_>) -> Result<()>;

    /// Takes the last record back, whose operation failed.
    fn retract(&mut self);
}

/// The place of a store for its journal, if it has one. A copy of the store has none.
#[derive(Default)]
pub(crate) struct JournalSlot(Option<Box<dyn Journal>>);

// What is put in belongs to the directory.
no_heap!(JournalSlot);

impl Clone for JournalSlot {
    fn clone(&self) -> Self {
        Self(None)
    }
}

impl JournalSlot {
    pub(crate) fn put(&mut self, journal: Option<Box<impl Journal>>) {
        self.0 = journal.map(|journal| journal as Box<dyn Journal>);
    }

    /// Takes out what was put in.
    pub(crate) fn take<T: Journal>(&mut self) -> Option<Box<T>> {
        let any: Box<dyn Any> = self.0.take()?;
        any.downcast().ok()
    }

    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Records what is about to be done, if there is a journal.
    pub(crate) fn append(&mut self, record: &Record<'_>) -> Result<()> {
        self.0
            .as_mut()
            .map_or(Ok(()), |journal| journal.append(record))
    }

    /// Takes the last record back.
    pub(crate) fn retract(&mut self) {
        if let Some(journal) = &mut self.0 {
            journal.retract();
        }
    }
}
