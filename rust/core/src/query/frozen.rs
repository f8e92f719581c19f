//! Read-only views of one moment, and what ablations change in them.

use crate::archive::JournalSlot;
use crate::base::copied;
use crate::base::interrupt;
use crate::base::interrupt::Interrupt;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::memory::columns::Memories;
use crate::store::Store;
use crate::values::table::Values;

/// A store at one moment, which nothing can change any more.
#[derive(Clone, Debug)]
pub struct Frozen(Store);

impl std::ops::Deref for Frozen {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.0
    }
}

impl Frozen {
    /// The view as a store of its own, which has no archive.
    #[must_use]
    pub fn into_store(self) -> Store {
        self.0
    }
}

impl Store {
    /// A read-only copy of this moment, without the archive.
    #[must_use]
    pub fn frozen(&self) -> Frozen {
        Frozen(self.without_history())
    }

    fn without_history(&self) -> Self {
        let copy = self.copied_without_history(&|| false);
        copy.expect("nobody gives it up")
    }

    /// A read-only copy of this moment with some of its parts replaced: `values` `(N, Q)` by rising id, `baseline`
    /// `(Q,)`, every row of P by one and the same, or another fade.
    /// For ablations.
    ///
    /// # Errors
    /// [`Error::Invalid`] if an array does not fit or is not finite, [`Error::Interrupted`] within
    /// [`crate::interruptible`].
    pub fn ablated(
        &self,
        values: Option<&[f32]>,
        baseline: Option<&[f32]>,
        constant_transitions: bool,
        fade: Option<f64>,
    ) -> Result<Frozen> {
        let channels = self.channels.len();
        for (name, given, expected) in [
            ("values", values, self.len() * channels),
            ("baseline", baseline, channels),
        ] {
            let Some(given) = given else { continue };
            if given.len() != expected {
                return Err(Error::invalid(
                    name,
                    format!("{} numbers, not {expected}", given.len()),
                ));
            }
            if given.iter().any(|x| !x.is_finite()) {
                return Err(Error::invalid(name, "not all numbers are finite"));
            }
        }
        let mut store = self.copied_without_history(&interrupt::enough)?;
        if let Some(values) = values {
            store.values.replace(&store.memories, values);
        }
        if let Some(baseline) = baseline {
            store.values.baseline = baseline.to_vec();
        }
        if let Some(fade) = fade {
            store.config.fade = fade;
            store.config.validate()?;
        }
        if constant_transitions {
            let most = store.config.max_out;
            store.graph = self.graph.with_constant_rows(&store.memories, most)?;
        }
        Ok(Frozen(store))
    }

    /// A copy, unless that is given up. The journal stays behind.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(crate) fn copied(&self, interrupt: Interrupt<'_>) -> Result<Self> {
        self.remembered(self.copied_without_history(interrupt)?, interrupt)
    }

    /// A copy of this store, with the archive and what was proposed.
    pub(crate) fn remembered(&self, copy: Self, interrupt: Interrupt<'_>) -> Result<Self> {
        let history = self.history.as_ref();
        let history = history.map(|entries| copied::owning(entries, interrupt));
        Ok(Self {
            proposals: copied::owning(&self.proposals, interrupt)?,
            history: history.transpose()?,
            ..copy
        })
    }

    /// [`Store::copied`], without the archive and what was proposed.
    pub(crate) fn copied_without_history(&self, interrupt: Interrupt<'_>) -> Result<Self> {
        let memories = self.memories.copied(interrupt)?;
        let graph = self.graph.copied(interrupt)?;
        self.around(memories, graph, self.values.clone(), interrupt)
    }

    /// A store of these parts, all else as in this one, without the archive and what was proposed.
    pub(crate) fn around(
        &self,
        memories: Memories,
        graph: Graph,
        values: Values,
        interrupt: Interrupt<'_>,
    ) -> Result<Self> {
        Ok(Self {
            config: self.config.clone(),
            given: self.given.clone(),
            embedder: self.embedder.clone(),
            channels: self.channels.clone(),
            memories,
            graph,
            values,
            edges: self.edges.clone(),
            sample: copied::plain(&self.sample, interrupt)?,
            clock: self.clock,
            episode_ids: copied::plain(&self.episode_ids, interrupt)?,
            ordinals: self.ordinals.clone(),
            inserts: self.inserts,
            next_memory: self.next_memory,
            next_episode: self.next_episode,
            proposals: Vec::new(),
            history: None,
            journal: JournalSlot::default(),
        })
    }
}
