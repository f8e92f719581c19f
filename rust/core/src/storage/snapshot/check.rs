//! Operations from a file, checked before they are done: a file is untrusted input.

use crate::archive::Operation;
use crate::base::cancel;
use crate::error::{Error, Result, damaged_if};
use crate::memory::{Episode, normalise};
use crate::store::Store;

impl Operation {
    /// Checks what the store's verbs check at the door, where an operation comes from a file instead.
    pub(crate) fn check(&self, store: &Store) -> Result<()> {
        let (dim, scalars) = (store.config.dim, store.scalar_count());
        let bad = |what: &str| Err(Error::format("operation", what));
        match self {
            // Their verbs check them.
            Self::Calibrate { .. }
            | Self::AddTerminal { .. }
            | Self::AddChannel { .. }
            | Self::RemoveChannel { .. }
            | Self::Replay(_) => Ok(()),
            Self::Observe(episode) | Self::Propose(episode) => check_episode(store, episode),
            Self::Insert {
                keys,
                drives,
                texts,
                rows,
            } => {
                if Some(keys.len()) != rows.len().checked_mul(dim)
                    || drives.len() != rows.len() * scalars
                    || !(texts.is_empty() || texts.len() == rows.len())
                {
                    return bad("inserted rows do not fit the store");
                }
                for some in keys.chunks(dim * 1024) {
                    cancel::check()?;
                    if !have_directions(some, dim) {
                        return bad("a key has no direction");
                    }
                }
                store.check_drives(drives)
            }
        }
    }
}

/// Checks an episode that is to be written.
fn check_episode(store: &Store, episode: &Episode) -> Result<()> {
    let (dim, name) = (store.config.dim, "operation");
    let fits = fits(episode, dim) && episode.drives.len() == episode.len() * store.scalar_count();
    damaged_if!(!fits, name, "an episode does not fit the store");
    let taken = !(0..i64::MAX).contains(&episode.id)
        || store.ordinals.contains_key(&episode.id)
        || store.proposals.iter().any(|other| other.id == episode.id);
    damaged_if!(taken, name, "an episode's id is taken or out of range");
    let known = have_directions(&episode.steps, dim);
    damaged_if!(!known, name, "a step has no direction");
    store.check_drives(&episode.drives)
}

fn fits(episode: &Episode, dim: usize) -> bool {
    Some(episode.steps.len()) == episode.len().checked_mul(dim)
        && (episode.texts.is_empty() || episode.texts.len() == episode.len())
        && episode.positions.windows(2).all(|pair| pair[0] < pair[1])
}

fn have_directions(rows: &[f32], dim: usize) -> bool {
    let mut unit = vec![0.0; dim];
    rows.chunks_exact(dim)
        .all(|row| normalise(row, &mut unit).is_some())
}

/// Checks the proposals and, as far as it can be without doing it again, the archive of a snapshot.
pub(crate) fn check_episodes(store: &Store, proposals: &[Episode]) -> Result<()> {
    let dim = store.config.dim;
    let mut ids = std::collections::BTreeSet::new();
    let proposed = |e: &Episode| check_episode(store, e).is_ok() && ids.insert(e.id);
    let sound = proposals.iter().all(proposed);
    damaged_if!(!sound, "proposals", "an episode does not fit the store");
    let archived = |operation: &Operation| match operation {
        Operation::Calibrate { steps, .. } => steps.len() % dim == 0,
        Operation::AddTerminal { key, .. } => key.len() == dim,
        Operation::Observe(episode) | Operation::Propose(episode) => fits(episode, dim),
        Operation::Insert { keys, rows, .. } => Some(keys.len()) == rows.len().checked_mul(dim),
        _ => true,
    };
    let mut history = store.history.iter().flatten();
    let sound = history.all(|entry| archived(&entry.operation));
    damaged_if!(!sound, "archive", "an operation does not fit the store");
    Ok(())
}
