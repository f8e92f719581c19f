//! Sweeps: replay in a fixed order.

use std::collections::BTreeSet;

use crate::base::{Slot, threads};
use crate::error::Result;
use crate::index::Activation;
use crate::values::{Budget, Model, PaddedValues, Values, distance};

/// Rows backed up from the same old values; fixed, so that threads never change a result.
const ROWS_PER_BLOCK: usize = 1024;
/// Rows that a thread takes at a time.
const ROWS_PER_PART: usize = 128;
/// Associations times channels of a block from which a second thread is worth waking.
const MIN_SHARED_PRODUCTS: usize = 1 << 15;
/// Rows whose gains are computed before the largest is compared with the tolerance.
const ROWS_PER_CHECK: usize = 8 * ROWS_PER_BLOCK;

/// Passes over the dirty memories from the newest to the oldest.
pub(crate) fn reverse(values: &mut Values, model: Model<'_>, tol: f64, budget: &mut Budget) {
    while values.residual_up_to(tol, model) > tol {
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

/// Sweeps over every memory that has successors, by rising id, block by block. Returns the residual.
pub(crate) fn full(
    values: &mut Values,
    model: Model<'_>,
    tol: f64,
    threads: Option<usize>,
    budget: &mut Budget,
) -> Result<f64> {
    if budget.spent() {
        return Ok(values.residual(model));
    }
    let residual = values.residual_up_to(tol, model);
    if residual <= tol {
        return Ok(residual);
    }
    let mut sweep = Sweep::new(values, model, threads);
    let residual = loop {
        sweep.once(budget)?;
        if budget.spent() {
            break sweep.residual(f64::INFINITY)?;
        }
        let residual = sweep.residual(tol)?;
        if residual <= tol {
            break residual;
        }
    };
    sweep.write(values);
    Ok(residual)
}

/// The values laid out for sweeps, and for each memory the last block that backed it up and the last that changed it.
///
/// Sweeps do not need to know which memories are dirty (the gain of a clean one is 0), so the marks are computed once at
/// the end, from the numbers of the blocks.
struct Sweep<'a> {
    model: Model<'a>,
    threads: Option<usize>,
    rows: Vec<Slot>,
    values: PaddedValues,
    /// The block, counted from 1 over all sweeps, that backed a memory up last; 0 if none did.
    backed: Vec<u32>,
    /// The block that changed a memory's value last.
    changed: Vec<u32>,
    blocks: u32,
    /// The gain of each row after the last sweep.
    gains: Vec<f64>,
    /// The chunk of rows in which the last gain above the tolerance was found.
    exceeded: usize,
}

impl<'a> Sweep<'a> {
    fn new(values: &Values, model: Model<'a>, threads: Option<usize>) -> Self {
        let slots = model.memories.slots();
        let mut padded = PaddedValues::new(slots, values.channels());
        for &slot in model.memories.in_order() {
            padded.of_mut(slot)[..values.channels()].copy_from_slice(values.of(slot));
        }
        let order = model.memories.in_order().iter().copied();
        let rows: Vec<Slot> = order.filter(|&slot| model.has_successors(slot)).collect();
        Self {
            model,
            threads,
            gains: vec![0.0; rows.len()],
            rows,
            values: padded,
            backed: vec![0; slots],
            changed: vec![0; slots],
            blocks: 0,
            exceeded: 0,
        }
    }

    /// One sweep, or as much of it as the budget grants.
    fn once(&mut self, budget: &mut Budget) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        for block in rows.chunks(ROWS_PER_BLOCK) {
            let granted = budget.take_many(block.len());
            self.block(&block[..granted])?;
            if budget.spent() {
                break;
            }
        }
        self.rows = rows;
        Ok(())
    }

    /// Backs up the rows of a block from the values before it.
    fn block(&mut self, rows: &[Slot]) -> Result<()> {
        self.blocks += 1;
        let parts = self.parts(rows, Self::proposed)?;
        for (rows, proposed) in rows.chunks(ROWS_PER_PART).zip(&parts) {
            for (&slot, v) in rows.iter().zip(proposed.chunks_exact(self.values.stride)) {
                let at = slot as usize;
                self.backed[at] = self.blocks;
                if self.values.write(slot, v) {
                    self.changed[at] = self.blocks;
                }
            }
        }
        Ok(())
    }

    /// What backups of the rows would write, `(rows, stride)`.
    fn proposed(&self, rows: &[Slot]) -> Vec<f32> {
        let mut proposed = vec![0.0; rows.len() * self.values.stride];
        self.values.proposed(rows, self.model, &mut proposed);
        proposed
    }

    /// The largest gain over `1 − γ`; or, if that exceeds `tol`, one that does, searched for first where one
    /// was found last time.
    fn residual(&mut self, tol: f64) -> Result<f64> {
        let n = self.rows.len();
        let chunks = n.div_ceil(ROWS_PER_CHECK);
        let mut most = 0.0f64;
        for chunk in (self.exceeded..chunks).chain(0..self.exceeded) {
            let rows = &self.rows[chunk * ROWS_PER_CHECK..n.min((chunk + 1) * ROWS_PER_CHECK)];
            let gains = self.parts(rows, |this, rows| {
                let proposed = this.proposed(rows);
                let both = rows.iter().zip(proposed.chunks_exact(this.values.stride));
                let gain = |(&slot, v)| distance(this.values.of(slot), v);
                both.map(gain).collect::<Vec<f64>>()
            })?;
            let at = chunk * ROWS_PER_CHECK;
            for (gain, &found) in self.gains[at..].iter_mut().zip(gains.iter().flatten()) {
                *gain = found;
                most = most.max(found / (1.0 - self.model.config.gamma));
            }
            if most > tol {
                self.exceeded = chunk;
                break;
            }
        }
        Ok(most)
    }

    /// Work on rows, part by part, on more than one thread if there is much of it.
    fn parts<T: Send>(
        &self,
        rows: &[Slot],
        work: impl Fn(&Self, &[Slot]) -> T + Sync + Send,
    ) -> Result<Vec<T>> {
        let edges = |&slot: &Slot| self.model.graph.row(slot).len();
        let much =
            || rows.iter().map(edges).sum::<usize>() * self.values.stride >= MIN_SHARED_PRODUCTS;
        let threads = match self.threads {
            // A bad number of threads is an error however little there is to do.
            Some(few @ (0 | 1)) => Some(few),
            _ if much() => self.threads,
            _ => Some(1),
        };
        threads::map(rows.len().div_ceil(ROWS_PER_PART), threads, |part| {
            work(
                self,
                &rows[part * ROWS_PER_PART..rows.len().min((part + 1) * ROWS_PER_PART)],
            )
        })
    }

    /// Writes the values and the dirty marks back.
    fn write(&self, values: &mut Values) {
        for &slot in &self.rows {
            if self.backed[slot as usize] > 0 {
                values.write(slot, 0, &self.values.of(slot)[..values.channels()]);
            }
        }
        for (&slot, &gain) in self.rows.iter().zip(&self.gains) {
            let backed = self.backed[slot as usize];
            let targets = self.model.graph.row(slot).targets;
            // A backup does not see changes within its own block.
            let stale = |&target: &Slot| {
                let changed = self.changed[target as usize];
                changed > 0 && changed >= backed
            };
            if targets.iter().any(stale) {
                values.mark(slot);
            } else if backed > 0 {
                values.clean(slot);
            }
            values.owe(slot, gain);
        }
    }
}

/// Awake replay (Foster & Wilson 2006): backs up the memories of the episode just lived, last step first, within a step
/// by falling φ, each once.
///
/// Returns the number of backups: memories that are up to date are not counted.
pub(crate) fn awake(values: &mut Values, model: Model<'_>, activations: &[Activation]) -> u64 {
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
