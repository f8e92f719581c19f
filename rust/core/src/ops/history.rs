//! The archive: every operation that made the store, so that history can be replayed without a part.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::archive::{Entry, Operation, Record};
use crate::base::cancel;
use crate::config::Config;
use crate::error::{Error, Result, in_range, invalid_if};
use crate::index::{MAX_WINDOW_STEPS, Window};
use crate::memory::{Episodes, Provenance};
use crate::ops::observe::ObserveReport;
use crate::store::{Checkpoint, Store};
use crate::values::{Need, ReplayRequest, Stopped};

impl Operation {
    pub(crate) fn apply(self, store: &mut Store) -> Result<()> {
        match self {
            Self::Calibrate { steps, offsets } => {
                let episodes = Episodes {
                    steps: &steps,
                    offsets: &offsets,
                };
                store.calibrate(&episodes)?;
            }
            Self::AddTerminal {
                name,
                key,
                low,
                high,
            } => {
                store.add_terminal(&name, &key, low, high)?;
            }
            Self::AddChannel { name, low, high } => {
                store.add_channel(&name, low, high)?;
            }
            Self::RemoveChannel { name } => store.remove_channel(&name)?,
            Self::Observe(episode) => {
                store.observe_episode(&episode, &mut ObserveReport::default())?;
            }
            Self::Propose(episode) => store.propose(episode)?,
            Self::Insert {
                keys,
                drives,
                texts,
                rows,
            } => {
                store.append_rows(&keys, &drives, &texts, &rows, &mut false)?;
            }
            Self::Replay(request) => {
                let need = store.surviving(request.need);
                let report = store.replay(&ReplayRequest { need, ..request })?;
                if report.stopped == Stopped::Interrupt {
                    return Err(Error::Interrupted);
                }
            }
        }
        Ok(())
    }
}

impl Store {
    /// Records an operation before it changes anything: in the journal, and in the archive if episodes are kept.
    /// If that fails, the operation must not be done.
    pub(crate) fn record(&mut self, operation: impl FnOnce() -> Operation) -> Result<()> {
        if self.is_recorded() {
            self.record_now(operation())?;
        }
        Ok(())
    }

    /// Whether anyone wants to know what is done to it.
    pub(crate) fn is_recorded(&self) -> bool {
        self.history.is_some() || self.journal.is_some()
    }

    /// [`Store::record`], where [`Store::is_recorded`] said so.
    pub(crate) fn record_now(&mut self, operation: Operation) -> Result<()> {
        let record = Record::Operation(Cow::Borrowed(&operation));
        self.journal.append(&record)?;
        if let Some(history) = &mut self.history {
            history.push(Arc::new(Entry {
                next_memory: self.next_memory,
                operation,
            }));
        }
        Ok(())
    }

    /// Takes the last record back, whose operation was given up.
    pub(crate) fn unrecord(&mut self) {
        self.journal.retract();
        if let Some(history) = &mut self.history {
            history.pop();
        }
    }

    /// A need from the starts that still exist: those are left out that a consolidation drove out, or that history no
    /// longer made without an episode.
    pub(crate) fn surviving(&self, need: Need) -> Need {
        let Need::From(mut starts) = need else {
            return need;
        };
        starts.retain(|&id| self.memories.slot(id).is_some());
        if starts.is_empty() {
            Need::Uniform
        } else {
            Need::From(starts)
        }
    }

    /// Forgets episodes as if they had never been seen, with one replay of history for all of them.
    ///
    /// Memories made before the first of them keep their ids; those made after get fresh ids in the same order.
    ///
    /// # Errors
    /// [`Error::Unknown`] for an id that was never observed or proposed, [`Error::State`] if the
    /// store does not keep its episodes. Nothing is forgotten then.
    pub fn veto_episodes(&mut self, ids: Vec<i64>) -> Result<()> {
        self.veto(&Veto::Episodes(ids))
    }

    /// Forgets every step that went into a memory; a hole that leaves cuts the transitions across it.
    ///
    /// # Errors
    /// [`Error::Unknown`] for an unknown id, [`Error::Invalid`] for a terminal, [`Error::State`] if
    /// the store does not keep its episodes.
    pub fn veto_memory(&mut self, id: i64) -> Result<()> {
        self.veto(&Veto::Memory(id))
    }

    fn veto(&mut self, what: &Veto) -> Result<()> {
        let mut rest = self.without(what)?;
        self.journal.append(&what.record())?;
        rest.journal = std::mem::take(&mut self.journal);
        *self = rest;
        Ok(())
    }

    /// The store that a veto leaves, made beside readers.
    ///
    /// # Errors
    /// As [`Store::veto_episodes`] or [`Store::veto_memory`]; [`Error::Interrupted`] if the call is cancelled ([`crate::Cancel`]).
    pub fn without(&self, what: &Veto) -> Result<Self> {
        match what {
            Veto::Episodes(ids) => self.without_episodes(ids),
            Veto::Memory(id) => self.without_memory(*id),
        }
    }

    /// Records the veto that made this store [of another](Store::without), whose journal it has now.
    ///
    /// # Errors
    /// [`Error::Io`] if the journal cannot be written to.
    pub fn record_veto(&mut self, what: &Veto) -> Result<()> {
        self.journal.append(&what.record())
    }

    fn without_episodes(&self, ids: &[i64]) -> Result<Self> {
        let vetoed: BTreeSet<i64> = ids.iter().copied().collect();
        let proposed: BTreeSet<i64> = self.proposals.iter().map(|episode| episode.id).collect();
        let known = |id: &i64| self.ordinals.contains_key(id) || proposed.contains(id);
        if let Some(id) = vetoed.iter().find(|&id| !known(id)) {
            return Err(Error::unknown("episode", id));
        }
        self.rebuilt(|operation, _| match operation {
            Operation::Observe(episode) | Operation::Propose(episode)
                if vetoed.contains(&episode.id) =>
            {
                Rewrite::Drop
            }
            _ => Rewrite::Keep,
        })
    }

    fn without_memory(&self, id: i64) -> Result<Self> {
        let slot = self
            .memories
            .slot(id)
            .ok_or_else(|| Error::unknown("memory", id))?;
        let terminal = self.memories.columns().terminal[slot as usize];
        invalid_if!(
            terminal,
            "memory",
            "{id} is a terminal: remove its channel instead"
        );
        let provenance = self.memories.columns().provenance[slot as usize].clone();
        let dim = self.config.dim;
        let ids = self.episode_ids.clone();
        let steps_of = |origin: i64| -> Vec<u32> {
            provenance
                .iter()
                .filter(|p: &&Provenance| p.origin == origin)
                .map(|p| p.step)
                .collect()
        };
        let vetoed: Vec<(i64, Vec<u32>)> = provenance
            .iter()
            .filter(|p| p.origin >= 0)
            .map(|p| (ids[p.origin as usize], steps_of(p.origin)))
            .collect();
        self.rebuilt(|operation, insert| match operation {
            Operation::Observe(episode) | Operation::Propose(episode) => {
                match vetoed.iter().find(|(id, _)| *id == episode.id) {
                    Some((_, steps)) => {
                        let scalars = episode.drives.len() / episode.len().max(1);
                        let kept = episode.without(steps, dim, scalars);
                        Rewrite::Replace(match operation {
                            Operation::Observe(_) => Operation::Observe(kept),
                            _ => Operation::Propose(kept),
                        })
                    }
                    None => Rewrite::Keep,
                }
            }
            Operation::Insert {
                keys,
                drives,
                texts,
                rows,
            } => {
                let gone = steps_of(-1 - insert);
                if gone.is_empty() {
                    return Rewrite::Keep;
                }
                let scalars = drives.len() / rows.len().max(1);
                let kept = |at: usize| !gone.contains(&rows[at]);
                Rewrite::Replace(Operation::Insert {
                    keys: keep_rows(keys, dim, kept),
                    drives: keep_rows(drives, scalars, kept),
                    texts: keep_rows(texts, 1, kept),
                    rows: keep_rows(rows, 1, kept),
                })
            }
            _ => Rewrite::Keep,
        })
    }

    /// Keeps this moment, so that a veto of something later replays history from here on alone. It takes the memory of a
    /// copy of the store without its archive, and is not saved.
    ///
    /// The moments that are kept beside it are the latest of before: `keep` in all.
    ///
    /// # Errors
    /// [`Error::State`] if the store does not keep its episodes.
    pub fn checkpoint(&mut self, keep: usize) -> Result<()> {
        in_range("keep", keep, 0, 64)?;
        if self.history.is_none() {
            return Err(not_kept());
        }
        if keep > 0 {
            let mut moment = self.clone();
            moment.checkpoints.clear();
            self.checkpoints.push(Checkpoint(Arc::new(moment)));
        }
        self.checkpoints
            .drain(..self.checkpoints.len().saturating_sub(keep));
        Ok(())
    }

    /// What the whole history makes: the store itself.
    pub(crate) fn made_again(&self) -> Result<Self> {
        let history = self.history.as_ref().ok_or_else(not_kept)?;
        let edits = history.iter().map(|_| Rewrite::Keep).collect();
        self.replayed(Store::new(self.given.clone())?, edits)
    }

    /// What history makes, edited. What comes before the first change is taken from a checkpoint.
    fn rebuilt(&self, mut edit: impl FnMut(&Operation, i64) -> Rewrite) -> Result<Self> {
        let history = self.history.as_ref().ok_or_else(not_kept)?;
        let mut inserts = 0;
        let mut edits = VecDeque::with_capacity(history.len());
        for entry in history {
            cancel::check()?;
            edits.push_back(edit(&entry.operation, inserts));
            inserts += i64::from(matches!(entry.operation, Operation::Insert { .. }));
        }
        let same = edits
            .iter()
            .take_while(|edit| matches!(edit, Rewrite::Keep));
        let same = same.count();
        let mut checkpoints = self.checkpoints.clone();
        checkpoints.retain(|moment| moment.0.operations() <= same);
        let begin = match checkpoints.last() {
            Some(moment) => Store::clone(&moment.0),
            None => Store::new(self.given.clone())?,
        };
        edits.drain(..begin.operations());
        let rebuilt = self.replayed(begin, edits)?;
        Ok(Self {
            checkpoints,
            ..rebuilt
        })
    }

    /// How many operations the archive holds.
    fn operations(&self) -> usize {
        self.history.as_ref().map_or(0, Vec::len)
    }

    /// What the rest of this store's history makes of one that it began as, each operation as `edits` say.
    fn replayed(&self, begin: Self, edits: VecDeque<Rewrite>) -> Result<Self> {
        let mut rebuilt = begin;
        rebuilt.embedder.clone_from(&self.embedder);
        let mut changed = false;
        let history = self.history.iter().flatten();
        let mut entries = history.skip(rebuilt.operations()).zip(edits);
        // Episodes that follow each other are searched for together.
        let mut soon = VecDeque::new();
        let mut window = Window::default();
        loop {
            let mut steps = 0;
            while soon.is_empty() || steps < MAX_WINDOW_STEPS {
                let Some((entry, edited)) = entries.next() else {
                    break;
                };
                changed |= !matches!(edited, Rewrite::Keep);
                let operation = match edited {
                    Rewrite::Drop => continue,
                    Rewrite::Keep => entry.operation.clone(),
                    Rewrite::Replace(other) => other,
                };
                steps = match &operation {
                    Operation::Observe(episode) => steps + episode.len(),
                    _ => MAX_WINDOW_STEPS,
                };
                let next_memory = if changed {
                    self.next_memory
                } else {
                    entry.next_memory
                };
                soon.push_back((next_memory, operation));
            }
            if soon.is_empty() {
                break;
            }
            while let Some((next_memory, operation)) = soon.pop_front() {
                cancel::check()?;
                rebuilt.next_memory = rebuilt.next_memory.max(next_memory);
                operation.check(&rebuilt)?;
                let Operation::Observe(episode) = operation else {
                    operation.apply(&mut rebuilt)?;
                    continue;
                };
                if window.left() == 0 {
                    let following = soon.iter().map_while(|(_, operation)| match operation {
                        Operation::Observe(episode) if operation.check(&rebuilt).is_ok() => {
                            Some(episode)
                        }
                        _ => None,
                    });
                    window = rebuilt.window(std::iter::once(&episode).chain(following))?;
                }
                let mut report = ObserveReport::default();
                rebuilt.observe_within(&mut window, &episode, &mut report)?;
            }
        }
        rebuilt.next_memory = rebuilt.next_memory.max(self.next_memory);
        rebuilt.next_episode = self.next_episode;
        rebuilt.partition_as(self)?;
        Ok(rebuilt)
    }

    /// The configuration as given, before calibration.
    #[must_use]
    pub fn given_config(&self) -> &Config {
        &self.given
    }
}

fn not_kept() -> Error {
    Error::State("veto replays history: it needs keep_episodes = true".into())
}

/// What to forget as if it had never been seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Veto {
    /// The episodes of these ids.
    Episodes(Vec<i64>),
    /// Every step that went into the memory of that id.
    Memory(i64),
}

impl Veto {
    fn record(&self) -> Record<'_> {
        match self {
            Self::Episodes(ids) => match ids[..] {
                // As it was written before several could be vetoed at once.
                [id] => Record::VetoEpisode(id),
                _ => Record::VetoEpisodes(Cow::Borrowed(ids)),
            },
            Self::Memory(id) => Record::VetoMemory(*id),
        }
    }
}

enum Rewrite {
    Keep,
    Drop,
    Replace(Operation),
}

fn keep_rows<T: Clone>(rows: &[T], width: usize, kept: impl Fn(usize) -> bool) -> Vec<T> {
    if width == 0 {
        return Vec::new();
    }
    rows.chunks_exact(width)
        .enumerate()
        .filter(|&(at, _)| kept(at))
        .flat_map(|(_, row)| row.iter().cloned())
        .collect()
}
