//! What went into a store: its episodes, and the steps in each memory.

use crate::archive::Operation;
use crate::base::Slot;
use crate::error::{Error, Result};
use crate::memory::{Episode, Provenance};
use crate::store::Store;

/// An episode that a store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpisodeRecord {
    /// As it was given, or made.
    pub id: i64,
    /// Its place among the observed episodes; `None` for one that is proposed and not yet consolidated.
    pub order: Option<u64>,
    /// Where it comes from, if that was given and episodes are kept.
    pub source: Option<String>,
    /// Its steps, if episodes are kept.
    pub steps: Option<usize>,
}

/// A step, or an inserted row, that went into a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The id of the memory.
    pub memory: i64,
    /// The id of the episode; the number of the call for an inserted row, from 0.
    pub number: i64,
    /// Whether it is a row of an insert.
    pub inserted: bool,
    /// The position in the episode, or the row of the insert.
    pub step: u32,
}

impl Store {
    /// Every episode that was observed or proposed, as first given: observed ones in order, then the proposals.
    #[must_use]
    pub fn episodes(&self) -> Vec<EpisodeRecord> {
        let known = |episode: &Episode| EpisodeRecord {
            id: episode.id,
            order: self.ordinals.get(&episode.id).copied(),
            source: episode.source.clone(),
            steps: Some(episode.len()),
        };
        let Some(history) = &self.history else {
            let observed = (0..).zip(&self.episode_ids);
            let observed = observed.map(|(order, &id)| EpisodeRecord {
                id,
                order: Some(order),
                source: None,
                steps: None,
            });
            return observed.chain(self.proposals.iter().map(known)).collect();
        };
        let mut all: Vec<EpisodeRecord> = history
            .iter()
            .filter_map(|entry| match &entry.operation {
                Operation::Observe(episode) | Operation::Propose(episode) => Some(known(episode)),
                _ => None,
            })
            .collect();
        all.sort_by_key(|record| record.order.unwrap_or(u64::MAX));
        all
    }

    /// The steps that went into every memory, by rising memory, in the order in which they came.
    #[must_use]
    pub fn origins(&self) -> Vec<Origin> {
        let slots = self.memories.in_order().iter();
        slots.flat_map(|&slot| self.origins_at(slot)).collect()
    }

    /// The steps that went into one memory, in the order in which they came.
    ///
    /// # Errors
    /// [`Error::Unknown`] for an unknown id.
    pub fn origins_of(&self, id: i64) -> Result<Vec<Origin>> {
        let slot = self.memories.slot(id);
        let slot = slot.ok_or_else(|| Error::unknown("memory", id))?;
        Ok(self.origins_at(slot).collect())
    }

    fn origins_at(&self, slot: Slot) -> impl Iterator<Item = Origin> {
        let memory = self.memories.id(slot);
        let origins = self.memories.columns().provenance[slot as usize].iter();
        origins.map(move |&Provenance { origin, step }| Origin {
            memory,
            number: usize::try_from(origin).map_or(-1 - origin, |at| self.episode_ids[at]),
            inserted: origin < 0,
            step,
        })
    }
}
