//! The budget of a replay: backups, time, and the cancel token.

use std::time::{Duration, Instant};

use crate::base::Cancel;

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stopped {
    /// At the tolerance.
    #[default]
    Converged,
    /// At the budget of backups.
    Budget,
    /// At the end of its time.
    Seconds,
    /// When the call was cancelled.
    Interrupt,
    /// Before it began: the consolidation would have drifted too far.
    Drift,
}

/// Backups left, time left, and whether the call is cancelled.
pub(crate) struct Budget {
    limit: u64,
    pub(crate) made: u64,
    /// The deadline: no slice begins after it.
    end: Option<Instant>,
    cancel: Cancel,
    /// Set once time has run out or the call is cancelled.
    pub(crate) cut: Option<Stopped>,
}

impl Budget {
    /// Backups between two checks of the clock and the token: well under a millisecond.
    const SLICE: u64 = 256;

    pub(crate) fn new(limit: Option<u64>, seconds: Option<f64>, cancel: Cancel) -> Self {
        let end = seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
        let mut budget = Self {
            limit: limit.unwrap_or(u64::MAX),
            made: 0,
            end,
            cancel,
            cut: None,
        };
        budget.look();
        budget
    }

    /// Checks the clock and the token.
    fn look(&mut self) {
        if self.cancel.is_cancelled() {
            self.cut = Some(Stopped::Interrupt);
        } else if self.end.is_some_and(|end| Instant::now() >= end) {
            self.cut = Some(Stopped::Seconds);
        }
    }

    pub(crate) fn spent(&self) -> bool {
        self.cut.is_some() || self.made >= self.limit
    }

    /// Takes one backup from the budget; `false` if none is left.
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
        if self.made / Self::SLICE != before {
            self.look();
        }
        granted as usize
    }
}
