//! Sweeps: replay in an order that is fixed beforehand.

use crate::error::Result;
use crate::memory::Slot;
use crate::parallel;
use crate::replay::backup::{Model, Values};
use crate::replay::sleep::Budget;

/// Rows backed up from the same old values; fixed, so that threads never change a result.
const BLOCK: usize = 1024;

/// Passes over the dirty memories from the newest to the oldest.
pub(crate) fn reverse(values: &mut Values, model: Model<'_>, tol: f64, budget: &mut Budget<'_>) {
    while values.residual(model) > tol {
        for &slot in model.memories.in_order().iter().rev() {
            if !values.is_dirty(slot) {
                continue;
            }
            if !budget.take() {
                return;
            }
            values.backup(slot, model);
        }
    }
}

/// Sweeps over every memory that has successors, by rising id, block by block.
pub(crate) fn full(
    values: &mut Values,
    model: Model<'_>,
    tol: f64,
    threads: Option<usize>,
    budget: &mut Budget<'_>,
) -> Result<()> {
    let rows: Vec<Slot> = model
        .memories
        .in_order()
        .iter()
        .copied()
        .filter(|&slot| model.has_successors(slot))
        .collect();
    while values.residual(model) > tol {
        for block in rows.chunks(BLOCK) {
            let granted = budget.take_many(block.len());
            let block = &block[..granted];
            let proposed = {
                let values = &*values;
                parallel::map(block.len(), threads, |i| values.proposed(block[i], model))?
            };
            // Every row is clean first and marked after: rows of one block may feed each other.
            let changed: Vec<bool> = block
                .iter()
                .zip(&proposed)
                .map(|(&slot, v)| values.overwrite(slot, v))
                .collect();
            for (&slot, changed) in block.iter().zip(changed) {
                if changed {
                    values.mark_predecessors(slot, model.graph);
                }
            }
            if budget.spent() {
                return Ok(());
            }
        }
    }
    Ok(())
}
