//! Sleep: replay over the whole graph under a budget.

use crate::error::{Error, Result};
use crate::replay::backup::{Model, Values};
use crate::replay::need::Need;
use crate::replay::{baseline, priority, sweep};

/// In which order memories are backed up. Every fair order reaches the same fixed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The largest need × gain first.
    Prioritized,
    /// From the newest memory to the oldest.
    Reverse,
    /// Whole sweeps by rising id.
    Full,
}

/// What a sleep shall do.
#[derive(Clone)]
pub struct ReplayRequest {
    /// Most backups; `None` is no limit. Counted in backups, so that results never depend on time.
    pub budget: Option<u64>,
    /// Distance to the fixed point at which the sleep may end.
    pub tol: f64,
    /// The order of the backups.
    pub order: Order,
    /// What weighs the gain in the prioritised order.
    pub need: Need,
    /// Write the proposed episodes first.
    pub consolidate: bool,
    /// Refuse a consolidation that would move the values of the calibration sample by more.
    pub max_drift: Option<f64>,
    /// Threads of the full sweeps.
    pub threads: Option<usize>,
}

impl Default for ReplayRequest {
    fn default() -> Self {
        Self {
            budget: None,
            tol: 1e-4,
            order: Order::Prioritized,
            need: Need::Frequency,
            consolidate: false,
            max_drift: None,
            threads: None,
        }
    }
}

impl ReplayRequest {
    pub(crate) fn validate(&self) -> Result<()> {
        if !(self.tol.is_finite() && self.tol >= 0.0) {
            return Err(Error::invalid("tol", format!("{} is not ≥ 0", self.tol)));
        }
        match self.max_drift {
            Some(drift) if drift.is_nan() || drift < 0.0 => {
                Err(Error::invalid("max_drift", format!("{drift} is not ≥ 0")))
            }
            _ => Ok(()),
        }
    }
}

/// What a sleep did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplayReport {
    /// Backups made.
    pub backups: u64,
    /// A bound on the sup distance of the values to the fixed point.
    pub residual: f64,
    /// Whether the bound is within the tolerance.
    pub converged: bool,
    /// Proposed episodes that were written.
    pub observed: usize,
    /// Whether a consolidation was refused because it would have drifted too far.
    pub refused: bool,
    /// How far the consolidation moves (or would have moved) the values of the calibration sample.
    pub drift: Option<f64>,
    /// Whether the caller's interrupt ended the sleep early.
    pub interrupted: bool,
}

/// Asked now and then by long calls: `true` means stop soon, in a good state.
pub type Interrupt<'a> = &'a dyn Fn() -> bool;

/// Backups left, and whether somebody wants us to stop.
pub(crate) struct Budget<'a> {
    limit: u64,
    pub(crate) made: u64,
    interrupt: Interrupt<'a>,
    pub(crate) interrupted: bool,
}

impl<'a> Budget<'a> {
    /// How many backups pass between two looks at the interrupt: well under a millisecond's worth.
    const SLICE: u64 = 256;

    pub(crate) fn new(limit: Option<u64>, interrupt: Interrupt<'a>) -> Self {
        Self {
            limit: limit.unwrap_or(u64::MAX),
            made: 0,
            interrupt,
            interrupted: false,
        }
    }

    pub(crate) fn spent(&self) -> bool {
        self.interrupted || self.made >= self.limit
    }

    /// Takes one backup from the budget, if there is one.
    pub(crate) fn take(&mut self) -> bool {
        self.take_many(1) == 1
    }

    /// Takes up to `n` backups.
    pub(crate) fn take_many(&mut self, n: usize) -> usize {
        if self.spent() {
            return 0;
        }
        let granted = (n as u64).min(self.limit - self.made);
        let before = self.made / Self::SLICE;
        self.made += granted;
        if self.made / Self::SLICE != before && (self.interrupt)() {
            self.interrupted = true;
        }
        granted as usize
    }
}

/// Replays until the values are within `tol` of the fixed point or the budget is spent.
pub(crate) fn sleep(
    values: &mut Values,
    model: Model<'_>,
    request: &ReplayRequest,
    interrupt: Interrupt<'_>,
) -> Result<ReplayReport> {
    let need = request.need.of_slots(model)?;
    let mut budget = Budget::new(request.budget, interrupt);
    match request.order {
        Order::Prioritized => {
            let threshold = request.tol * (1.0 - model.config.gamma);
            priority::replay(values, model, &need, threshold, &mut budget);
        }
        Order::Reverse => sweep::reverse(values, model, request.tol, &mut budget),
        Order::Full => sweep::full(values, model, request.tol, request.threads, &mut budget)?,
    }
    values.baseline = baseline::median_values(values, model.memories, values.baseline.len());
    let residual = values.residual(model);
    Ok(ReplayReport {
        backups: budget.made,
        residual,
        // The threshold on gains was tol·(1 − γ): allow for the rounding of going there and back.
        converged: residual <= request.tol * (1.0 + 1e-12),
        interrupted: budget.interrupted,
        ..ReplayReport::default()
    })
}
