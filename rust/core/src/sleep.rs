//! Sleeping: replay over the whole graph, after the proposed episodes were written if asked to.

use crate::error::Result;
use crate::history::Operation;
use crate::observe::ObserveReport;
use crate::replay::backup::Model;
use crate::replay::sleep::{self, Interrupt};
use crate::replay::{Need, ReplayReport, ReplayRequest};
use crate::store::Store;

impl Store {
    /// Sleeps: replays over the whole graph, after writing the proposed episodes if asked to.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad request, [`Error::Unknown`] for an unknown start memory.
    pub fn replay(
        &mut self,
        request: &ReplayRequest,
        interrupt: Interrupt<'_>,
    ) -> Result<ReplayReport> {
        request.validate()?;
        request.need.of_slots(self.model())?;
        let at = self.history.as_ref().map(Vec::len);
        self.record(|| Operation::replay(request, None));
        let outcome = self.consolidate(request, interrupt);
        if let (Err(_), Some(history), Some(at)) = (&outcome, &mut self.history, at) {
            history.truncate(at);
        }
        let mut report = outcome?;
        // The operations of the consolidation are part of the one recorded above.
        if let (Some(history), Some(at)) = (&mut self.history, at) {
            history.truncate(at + 1);
            if report.interrupted {
                history[at].operation = Operation::replay(request, Some(report.backups));
            }
        }
        report.drift = report.drift.filter(|_| request.consolidate);
        Ok(report)
    }

    fn consolidate(
        &mut self,
        request: &ReplayRequest,
        interrupt: Interrupt<'_>,
    ) -> Result<ReplayReport> {
        if !request.consolidate || self.proposals.is_empty() {
            return self.sleep(request, interrupt);
        }
        let probe = self.drift_probe();
        let before = self.mean_values(&probe)?;
        let mut after = self.clone();
        let mut observed = 0;
        for episode in std::mem::take(&mut after.proposals) {
            after.observe_episode(&episode, &mut ObserveReport::default())?;
            observed += 1;
        }
        let mut request = request.clone();
        if let Need::From(starts) = request.need {
            request.need = after.surviving_starts(starts);
        }
        let mut report = after.sleep(&request, interrupt)?;
        let moved = after.mean_values(&probe)?;
        let n = before.len().max(1) as f64;
        let drift = before
            .iter()
            .zip(&moved)
            .fold(0.0, |sum, (a, b)| sum + (a - b).abs())
            / n;
        if request.max_drift.is_some_and(|most| drift > most) {
            let residual = self.values.residual(self.model());
            report = ReplayReport {
                residual,
                converged: residual <= request.tol,
                refused: true,
                ..ReplayReport::default()
            };
        } else {
            *self = after;
            report.observed = observed;
        }
        report.drift = Some(drift);
        Ok(report)
    }

    fn sleep(&mut self, request: &ReplayRequest, interrupt: Interrupt<'_>) -> Result<ReplayReport> {
        let model = Model {
            config: &self.config,
            memories: &self.memories,
            graph: &self.graph,
        };
        sleep::sleep(&mut self.values, model, request, interrupt)
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
        let activations = self.activate_rows(probe, None)?;
        Ok(activations.iter().flat_map(|a| self.phi(a)).collect())
    }
}
