//! Awake replay: the episode just lived, once, from its end to its beginning (Foster & Wilson 2006).

use std::collections::BTreeSet;

use crate::base::slot::Slot;
use crate::index::activation::Activation;
use crate::values::backup::Model;
use crate::values::table::Values;

/// Backs up the memories of an episode, last step first, within a step by falling φ, each once.
///
/// Returns the number of backups: memories that are up to date are not counted.
pub(crate) fn replay(values: &mut Values, model: Model<'_>, activations: &[Activation]) -> u64 {
    let mut seen: Vec<Slot> = Vec::new();
    let mut met = BTreeSet::new();
    for activation in activations.iter().rev() {
        for answer in &activation.answers {
            if met.insert(answer.slot) {
                seen.push(answer.slot);
            }
        }
    }
    let mut backups = 0;
    for slot in seen {
        // An answer may have been evicted since the step was activated.
        if model.memories.id(slot) >= 0 && values.is_dirty(slot) {
            values.backup(slot, model);
            backups += 1;
        }
    }
    backups
}
