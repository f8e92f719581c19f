//! Sleep: replay over the whole graph under a budget.

use serde::{Deserialize, Serialize};

use crate::base::{Cancel, HeapSize};
use crate::error::{Result, invalid_if};
use crate::values::{
    Budget, Lookahead, Model, Need, PushOutcome, Stopped, SweepThreshold, Values, lookahead, sweep,
};

/// In which order memories are backed up. Every fair order reaches the same fixed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The largest need × gain first.
    Prioritized,
    /// From the newest memory to the oldest.
    Reverse,
    /// Whole sweeps by rising id.
    Full,
}

/// What a sleep shall do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayRequest {
    /// Most backups; `None` is no limit. Counted in backups, so that results never depend on time.
    pub budget: Option<u64>,
    /// Seconds after which no further slice of some hundred backups begins. What was done by then is
    /// recorded as a budget, so that the history has the same result however long it takes.
    #[serde(skip)]
    pub seconds: Option<f64>,
    /// Distance to the fixed point at which the sleep may end.
    pub tol: f64,
    /// The order of the backups.
    pub order: Order,
    /// What weighs the gain in the prioritised order.
    #[serde(flatten)]
    pub need: Need,
    /// What is added to the prioritised order.
    #[serde(flatten)]
    pub lookahead: Lookahead,
    /// Write the proposed episodes first.
    pub consolidate: bool,
    /// Refuse a consolidation that would move the values of the calibration sample by more.
    pub max_drift: Option<f64>,
    /// Threads of the full sweeps.
    #[serde(skip)]
    pub threads: Option<usize>,
}

impl HeapSize for ReplayRequest {
    fn heap_size(&self) -> usize {
        self.need.heap_size()
    }
}

impl Default for ReplayRequest {
    fn default() -> Self {
        Self {
            budget: None,
            seconds: None,
            tol: 1e-4,
            order: Order::Prioritized,
            need: Need::Frequency,
            lookahead: Lookahead::default(),
            consolidate: false,
            max_drift: None,
            threads: None,
        }
    }
}

impl ReplayRequest {
    pub(crate) fn validate(&self) -> Result<()> {
        let Lookahead { floor, extend } = self.lookahead;
        for (name, x) in [("tol", self.tol), ("floor", floor)] {
            invalid_if!(!x.is_finite() || x < 0.0, name, "{x} is not ≥ 0");
        }
        if let Some(seconds) = self.seconds {
            let inside = (0.0..=1e9).contains(&seconds);
            invalid_if!(!inside, "seconds", "{seconds} is not in [0, 1e9]");
        }
        if let Some(drift) = self.max_drift {
            let bad = drift.is_nan() || drift < 0.0;
            invalid_if!(bad, "max_drift", "{drift} is not ≥ 0");
        }
        let ordered = self.order == Order::Prioritized || !self.lookahead.any();
        let which = if extend { "extend" } else { "floor" };
        invalid_if!(!ordered, which, "is of the prioritized order");
        let endless = floor > 0.0 && self.budget.is_none() && self.seconds.is_none();
        invalid_if!(
            endless,
            "floor",
            "replay with one goes on for ever: give it a budget or seconds"
        );
        Ok(())
    }
}

/// What a sleep did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplayReport {
    /// Backups made.
    pub backups: u64,
    /// Of them, those made in sweeps over the whole graph.
    pub swept: u64,
    /// A bound on the sup distance of the values to the fixed point.
    pub residual: f64,
    /// Whether the bound is within the tolerance.
    pub converged: bool,
    /// Where it stopped.
    pub stopped: Stopped,
    /// Proposed episodes that were written.
    pub observed: usize,
    /// Whether a consolidation was refused because it would have drifted too far.
    pub refused: bool,
    /// How far the consolidation moves (or would have moved) the values of the calibration sample.
    pub drift: Option<f64>,
    /// Where the request looks [ahead](ReplayRequest::lookahead): of each backup its place, or its last one;
    /// of the first 2²⁰.
    pub trail: Vec<i64>,
}

impl ReplayReport {
    /// Whether it was cut short by what no other run would repeat: time, or the caller.
    pub(crate) fn cut_short(&self) -> bool {
        matches!(self.stopped, Stopped::Seconds | Stopped::Interrupt)
    }
}

/// Replays until the values are within `tol` of the fixed point or the budget is spent.
pub(crate) fn sleep(
    values: &mut Values,
    model: Model<'_>,
    request: &ReplayRequest,
    switch: SweepThreshold,
    cancel: Cancel,
) -> Result<ReplayReport> {
    let tol = request.tol;
    let mut budget = Budget::new(request.budget, request.seconds, cancel);
    let mut pushed = 0;
    let mut trail = Vec::new();
    let threshold = tol * (1.0 - model.config.gamma);
    let residual = match request.order {
        Order::Prioritized => {
            let needs = request.need.of_slots(model)?;
            let why;
            (why, trail) = lookahead::replay(
                values,
                model,
                &needs,
                threshold,
                request.lookahead,
                switch,
                &mut budget,
            );
            pushed = budget.made;
            if why == PushOutcome::SweepsAreCheaper {
                sweep::full(values, model, tol, request.threads, &mut budget)?
            } else {
                values.residual(model)
            }
        }
        Order::Reverse => {
            sweep::reverse(values, model, tol, &mut budget);
            values.residual(model)
        }
        Order::Full => sweep::full(values, model, tol, request.threads, &mut budget)?,
    };
    values.set_medians(model.memories);
    // The threshold on gains was tol·(1 − γ): allow for the rounding of going there and back.
    let converged = residual <= tol * (1.0 + 1e-12);
    Ok(ReplayReport {
        backups: budget.made,
        swept: match request.order {
            Order::Reverse => 0,
            _ => budget.made - pushed,
        },
        residual,
        converged,
        stopped: match budget.cut {
            // With a floor it is not the tolerance that ends a sleep.
            _ if converged && !(request.lookahead.floor > 0.0 && budget.spent()) => {
                Stopped::Converged
            }
            Some(cut) => cut,
            None => Stopped::Budget,
        },
        trail,
        ..ReplayReport::default()
    })
}
