//! Read-only views of one moment, and what ablations change in them.

use crate::archive::JournalSlot;
use crate::error::{Result, invalid_if};
use crate::graph::Graph;
use crate::index::Indexed;
use crate::store::Store;
use crate::values::Values;

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

    /// A read-only copy of this moment with some of its parts replaced: `values` `(N, Q)` by rising id, `baseline`
    /// `(Q,)`, every row of P by one and the same, or another fade.
    /// For ablations.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] if an array does not fit or is not finite, [`crate::Error::Interrupted`] if the call is
    /// cancelled ([`crate::Cancel`]).
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
            let n = given.len();
            invalid_if!(n != expected, name, "{n} numbers, not {expected}");
            let finite = given.iter().all(|x| x.is_finite());
            invalid_if!(!finite, name, "not all numbers are finite");
        }
        let mut store = self.without_history();
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

    /// A copy without the archive, what was proposed, and the journal.
    pub(crate) fn without_history(&self) -> Self {
        let (memories, graph) = (self.memories.clone(), self.graph.clone());
        self.around(memories, graph, self.values.clone())
    }

    /// A store of these parts, all else as in this one, without the archive, what was proposed, and the journal.
    pub(crate) fn around(&self, memories: Indexed, graph: Graph, values: Values) -> Self {
        Self {
            config: self.config.clone(),
            given: self.given.clone(),
            embedder: self.embedder.clone(),
            channels: self.channels.clone(),
            memories,
            graph,
            values,
            edge_statistics: self.edge_statistics.clone(),
            sample: self.sample.clone(),
            clock: self.clock,
            episode_ids: self.episode_ids.clone(),
            ordinals: self.ordinals.clone(),
            inserts: self.inserts,
            next_memory: self.next_memory,
            next_episode: self.next_episode,
            proposals: Vec::new(),
            history: None,
            checkpoints: Vec::new(),
            journal: JournalSlot::default(),
        }
    }
}
