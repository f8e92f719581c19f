//! The locks of a [`Team`](super::team::Team): those of the system, each by itself.
//!
//! Helpers come and go after the call that they helped. A process that forks meanwhile must not find a table that all locks
//! share (as `parking_lot` has) locked for good by a thread that is not there.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
pub(crate) use std::sync::{Condvar, MutexGuard};

/// How long to wait awake for what comes soon: to be woken takes as long.
const AWAKE: Duration = Duration::from_micros(50);

/// A mutex that a panic does not poison.
#[derive(Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until there is something new.
pub(crate) fn wait<'a, T>(turn: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    turn.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits awake, for a moment at most, until it `came`.
pub(crate) fn linger(came: impl Fn() -> bool) {
    let end = Instant::now() + AWAKE;
    while !came() && Instant::now() < end {
        for _ in 0..16 {
            std::hint::spin_loop();
        }
    }
}
