//! Sleeping: replay over the whole graph, after the proposed episodes were written if asked to.

use crate::archive::Operation;
use crate::base::{Cancel, cancel};
use crate::error::Result;
use crate::ops::observe::ObserveReport;
use crate::store::Store;
use crate::values::{ReplayReport, ReplayRequest, Stopped, SweepThreshold, Values, replay};

/// What a sleep came to, for [`Store::commit_replay`] to take over.
pub struct ReplayPlan {
    report: ReplayReport,
    change: Change,
    operation: Operation,
}

enum Change {
    /// A consolidation was refused.
    None,
    /// Replay changes values and nothing else.
    Values(Values),
    /// Proposed episodes were written.
    Whole(Box<Store>),
}

impl Store {
    /// Sleeps: replays over the whole graph, after writing the proposed episodes if asked to.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for a bad request, [`crate::Error::Unknown`] for an unknown start memory,
    /// [`crate::Error::Interrupted`] if it was while proposals were written: all stays as it was then.
    pub fn replay(&mut self, request: &ReplayRequest) -> Result<ReplayReport> {
        let mut plan = self.plan_replay(request)?;
        self.commit_replay(&mut plan)
    }

    /// The long part of [`Store::replay`], beside readers.
    ///
    /// # Errors
    /// As [`Store::replay`].
    pub fn plan_replay(&self, request: &ReplayRequest) -> Result<ReplayPlan> {
        request.validate()?;
        request.need.check(self.model())?;
        let (report, change) = if request.consolidate && !self.proposals.is_empty() {
            self.consolidate(request)?
        } else {
            let mut values = self.values.clone();
            let cancel = Cancel::current();
            // Cancelled, it ends between two backups, and what it did by then stays.
            let report = Cancel::never().scope(|| {
                replay::sleep(
                    &mut values,
                    self.model(),
                    request,
                    SweepThreshold::MEASURED,
                    cancel,
                )
            })?;
            (report, Change::Values(values))
        };
        // Nor would it end by itself without the budget that it had in seconds.
        let endless = request.lookahead.floor > 0.0 && request.budget.is_none();
        let made = (report.cut_short() || endless).then_some(report.backups);
        Ok(ReplayPlan {
            // What was cut short is recorded as what it came to.
            operation: Operation::Replay(ReplayRequest {
                budget: made.or(request.budget),
                seconds: None,
                threads: None,
                ..request.clone()
            }),
            report,
            change,
        })
    }

    /// The short part of [`Store::replay`]: takes a plan over.
    ///
    /// Nothing else may have written to the store since [`Store::plan_replay`].
    /// What the store was before is left in the plan: letting go of much memory takes its time, which
    /// readers need not wait for.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if a journal cannot be written to: nothing is taken over then.
    pub fn commit_replay(&mut self, plan: &mut ReplayPlan) -> Result<ReplayReport> {
        Cancel::never().scope(|| self.record(|| plan.operation.clone()))?;
        match &mut plan.change {
            Change::None => {}
            Change::Values(values) => std::mem::swap(&mut self.values, values),
            Change::Whole(store) => {
                store.history = self.history.take();
                store.journal = std::mem::take(&mut self.journal);
                std::mem::swap(self, store);
            }
        }
        Ok(plan.report.clone())
    }

    fn consolidate(&self, request: &ReplayRequest) -> Result<(ReplayReport, Change)> {
        let probe = self.drift_probe();
        let before = self.mean_values(&probe)?;
        let mut after = self.without_history();
        for episode in &self.proposals {
            cancel::check()?;
            after.observe_episode(episode, &mut ObserveReport::default())?;
        }
        let request = ReplayRequest {
            need: after.surviving(request.need.clone()),
            ..request.clone()
        };
        let mut values = std::mem::take(&mut after.values);
        let mut report = replay::sleep(
            &mut values,
            after.model(),
            &request,
            SweepThreshold::MEASURED,
            Cancel::current(),
        )?;
        after.values = values;
        let moved = after.mean_values(&probe)?;
        let n = before.len().max(1) as f64;
        let drift = before
            .iter()
            .zip(&moved)
            .fold(0.0, |sum, (a, b)| sum + (a - b).abs())
            / n;
        let refused = request.max_drift.is_some_and(|most| drift > most);
        if refused {
            let residual = self.values.residual(self.model());
            report = ReplayReport {
                residual,
                converged: residual <= request.tol,
                refused,
                stopped: Stopped::Drift,
                ..ReplayReport::default()
            };
        } else {
            report.observed = self.proposals.len();
        }
        report.drift = Some(drift);
        let change = if refused {
            Change::None
        } else {
            Change::Whole(Box::new(after))
        };
        Ok((report, change))
    }

    /// The steps on which drift is measured: the calibration sample, or the oldest memories.
    fn drift_probe(&self) -> Vec<f32> {
        if !self.sample.is_empty() {
            return self.sample.clone();
        }
        self.memories
            .ordinary()
            .take(1024)
            .flat_map(|slot| self.memories.key(slot).iter().copied())
            .collect()
    }

    fn mean_values(&self, probe: &[f32]) -> Result<Vec<f64>> {
        let mut means = Vec::new();
        // A row's answer does not depend on its company; some at a time can be given up between.
        for rows in probe.chunks(128 * self.config.dim) {
            let activations = self.activate_rows(rows, None)?;
            means.extend(activations.iter().flat_map(|a| self.phi(a)));
        }
        Ok(means)
    }
}
