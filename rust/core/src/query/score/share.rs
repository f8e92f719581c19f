//! Payments: what a functional makes of a trajectory.

use crate::base::slot::Slot;
use crate::query::score::Trajectory;

/// A part of a step's pay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) step: usize,
    pub(crate) channel: usize,
    /// The memory that paid, where one did.
    pub(crate) memory: Option<Slot>,
    pub(crate) amount: f64,
}

/// Turns a trajectory into pay.
pub(crate) trait Functional: Sync {
    /// Reports every payment once, in a fixed order. A step's pay is the sum of its payments.
    fn pay(&self, trajectory: &Trajectory<'_>, payments: &mut dyn FnMut(Share));
}
