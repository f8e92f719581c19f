//! Fading: an end is not a means to itself.
//!
//! ```text
//! fade_q(x) = 1 − f·r_q(x),   r_q(x) = clip((⟨x, terminal_q⟩ − low)/(high − low), 0, 1)²
//! ```
//!
//! is what is left of channel q's pay at a step that satisfies q itself by `r_q`. Without it, listing
//! paraphrases of the terminals scores as well as telling how one gets there: such steps activate what leads
//! to the terminals without leading there. A channel to avoid does not fade, or the other channels could pay
//! more than the memory's whole advantage; nor does a scalar channel, whose drive is not observed in scoring.

use std::ops::Range;

use crate::linalg;
use crate::memory::channels::Kind;
use crate::memory::episodes::Batch;
use crate::query::score::worth::Worth;
use crate::store::Store;

/// `(T, Q)` for the steps in `range`.
pub(crate) fn fades(
    store: &Store,
    worth: &Worth<'_>,
    batch: &Batch,
    range: Range<usize>,
) -> Vec<f64> {
    let strength = store.config().fade;
    let mut fades = Vec::with_capacity(range.len() * store.channels().len());
    for t in range {
        for (q, channel) in store.channels().iter().enumerate() {
            fades.push(match &channel.kind {
                Kind::Terminal { memory } if worth.weight(q) > 0.0 => {
                    let terminal = store.memories.held(*memory);
                    let s = linalg::dot(batch.step(t), store.memories.key(terminal));
                    1.0 - strength * f64::from(channel.drive(s))
                }
                _ => 1.0,
            });
        }
    }
    fades
}
