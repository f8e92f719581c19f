//! The locks, under one roof: what waits for long gives up when its call is cancelled.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

pub(crate) use crate::base::cancel::Cancel;
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLockReadGuard, RwLockWriteGuard};
pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
pub(crate) use std::thread_local;

/// The time between two checks of the token. A thread that checks loses its place in the queue.
const PATIENCE: Duration = Duration::from_millis(50);

/// Many readers or one writer; fair.
pub(crate) struct RwLock<T> {
    lock: parking_lot::RwLock<T>,
    /// Readers that lost their place in the queue.
    displaced: AtomicUsize,
}

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            lock: parking_lot::RwLock::new(value),
            displaced: AtomicUsize::new(0),
        }
    }

    /// Waits until there is no reader. There is one writer at a time, which leaves a moment to readers that lost their
    /// place.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        for _ in 0..50 {
            if self.displaced.load(Ordering::Acquire) == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.lock.write()
    }

    pub(crate) fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        self.lock.try_write()
    }
}

/// Lets a moment go by.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

/// Releases the lock to a waiting thread first.
pub(crate) fn unlock_fair<T>(guard: RwLockWriteGuard<'_, T>) {
    RwLockWriteGuard::unlock_fair(guard);
}

/// Waits for a turn; `None` once the call is cancelled.
pub(crate) fn lock<'a, T>(mutex: &'a Mutex<T>, cancel: &Cancel) -> Option<MutexGuard<'a, T>> {
    loop {
        if let Some(guard) = mutex.try_lock_for(PATIENCE) {
            return Some(guard);
        }
        if cancel.is_cancelled() {
            return None;
        }
    }
}

/// Waits to read, as [`lock`] does. A thread that reads already gets in ahead of writers: they wait for it.
pub(crate) fn read<'a, T>(
    shared: &'a RwLock<T>,
    reads_already: bool,
    cancel: &Cancel,
) -> Option<RwLockReadGuard<'a, T>> {
    if reads_already {
        return Some(shared.lock.read_recursive());
    }
    if let Some(guard) = shared.lock.try_read_for(PATIENCE) {
        return Some(guard);
    }
    shared.displaced.fetch_add(1, Ordering::AcqRel);
    let guard = loop {
        if cancel.is_cancelled() {
            break None;
        }
        if let Some(guard) = shared.lock.try_read_for(PATIENCE) {
            break Some(guard);
        }
    };
    shared.displaced.fetch_sub(1, Ordering::AcqRel);
    guard
}

/// Waits until there is something new.
pub(crate) fn wait<'a, T>(turn: &Condvar, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    turn.wait(&mut guard);
    guard
}
