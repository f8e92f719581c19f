//! Read-only views of one moment, and what ablations change in them.

use crate::error::{Error, Result};
use crate::interrupt;
use crate::persist::segment::Plug;
use crate::store::Store;

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

    /// The same view with some of its parts replaced: `values` `(N, Q)` by rising id, `baseline`
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
    ) -> Result<Self> {
        interrupt::check()?;
        let mut ablated = self.clone();
        interrupt::check()?;
        let store = &mut ablated.0;
        let channels = store.channels.len();
        for (name, given, expected) in [
            ("values", values, store.len() * channels),
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
            store.graph = store
                .graph
                .with_constant_rows(&store.memories, store.config.max_out);
        }
        Ok(ablated)
    }
}

impl Store {
    /// A read-only copy of this moment, without the archive.
    #[must_use]
    pub fn frozen(&self) -> Frozen {
        Frozen(self.clone_without_history())
    }

    pub(crate) fn clone_without_history(&self) -> Self {
        Self {
            config: self.config.clone(),
            given: self.given.clone(),
            embedder: self.embedder.clone(),
            channels: self.channels.clone(),
            memories: self.memories.clone(),
            graph: self.graph.clone(),
            values: self.values.clone(),
            edges: self.edges.clone(),
            sample: self.sample.clone(),
            clock: self.clock,
            episode_ids: self.episode_ids.clone(),
            ordinals: self.ordinals.clone(),
            inserts: self.inserts,
            next_memory: self.next_memory,
            next_episode: self.next_episode,
            proposals: Vec::new(),
            history: None,
            journal: Plug::default(),
        }
    }
}
