//! Operations from a file, checked before they are done: a file is untrusted input.

use crate::archive::Operation;
use crate::base::cancel;
use crate::error::{Error, Result, damaged_if};
use crate::memory::episodes::{Episode, normalise};
use crate::store::Store;

impl Operation {
    /// Checks what the store's verbs check at the door, where an operation comes from a file instead.
    ///
    /// # Errors
    /// [`Error::Format`] saying what does not fit the store.
    pub(crate) fn check(&self, store: &Store) -> Result<()> {
        let (dim, scalars) = (store.config.dim, store.scalar_count());
        let bad = |what: &str| Err(Error::format("operation", what));
        match self {
            // Their verbs check them.
            Self::Calibrate { .. }
            | Self::AddTerminal { .. }
            | Self::AddChannel { .. }
            | Self::RemoveChannel { .. } => Ok(()),
            Self::Observe(episode) | Self::Propose(episode) => {
                if !fits(episode, dim) || episode.drives.len() != episode.len() * scalars {
                    return bad("an episode does not fit the store");
                }
                if !(0..i64::MAX).contains(&episode.id)
                    || store.ordinals.contains_key(&episode.id)
                    || store.proposals.iter().any(|other| other.id == episode.id)
                {
                    return bad("an episode's id is taken or out of range");
                }
                if !have_directions(&episode.steps, dim) {
                    return bad("a step has no direction");
                }
                store.check_drives(&episode.drives)
            }
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
            Self::Replay { need, .. } => {
                let known = ["uniform", "frequency", "from"].contains(&need.as_str());
                damaged_if!(!known, "operation", "a need is unknown");
                Ok(())
            }
        }
    }
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
///
/// # Errors
/// [`Error::Format`] naming the section.
pub(crate) fn check_episodes(store: &Store, proposals: &[Episode]) -> Result<()> {
    let (dim, scalars) = (store.config.dim, store.scalar_count());
    let mut ids = std::collections::BTreeSet::new();
    let proposed = |episode: &Episode| {
        fits(episode, dim)
            && episode.drives.len() == episode.len() * scalars
            && have_directions(&episode.steps, dim)
            && store.check_drives(&episode.drives).is_ok()
            && (0..i64::MAX).contains(&episode.id)
            && !store.ordinals.contains_key(&episode.id)
    };
    damaged_if!(
        !proposals
            .iter()
            .all(|episode| proposed(episode) && ids.insert(episode.id)),
        "proposals",
        "an episode does not fit the store"
    );
    let archived = |operation: &Operation| match operation {
        Operation::Calibrate { steps, .. } => steps.len() % dim == 0,
        Operation::AddTerminal { key, .. } => key.len() == dim,
        Operation::Observe(episode) | Operation::Propose(episode) => fits(episode, dim),
        Operation::Insert { keys, rows, .. } => Some(keys.len()) == rows.len().checked_mul(dim),
        _ => true,
    };
    let history = store.history.iter().flatten();
    damaged_if!(
        !history.map(|entry| &entry.operation).all(archived),
        "archive",
        "an operation does not fit the store"
    );
    Ok(())
}
