//! Fading: an end is not a means to itself.
//!
//! ```text
//! 1 − f·clip((⟨x_t, terminal_q⟩ − low)/(high − low), 0, 1)
//! ```
//!
//! is what is left of channel q's pay at a step. Without it, listing paraphrases of the terminals scores as
//! well as telling how one gets there: such steps activate what leads to the terminals without leading there.

use std::ops::Range;

use crate::channel::Kind;
use crate::episodes::Batch;
use crate::simd;
use crate::store::Store;

/// `(T, Q)` for the steps in `range`; scalar channels do not fade.
pub(crate) fn fades(store: &Store, batch: &Batch, range: Range<usize>) -> Vec<f64> {
    let strength = store.config().fade;
    let mut fades = Vec::with_capacity(range.len() * store.channels().len());
    for t in range {
        for channel in store.channels() {
            fades.push(match &channel.kind {
                Kind::Terminal { memory } => {
                    let terminal = store.memories().held(*memory);
                    let s = simd::dot(batch.step(t), store.memories().key(terminal));
                    1.0 - strength * channel.reach(s)
                }
                Kind::Scalar => 1.0,
            });
        }
    }
    fades
}
