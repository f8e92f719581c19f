//! `src/base/sync.rs` and the locks of `src/base/threads/mod.rs` with the locks of the scheduler, in which nobody gives up waiting.

#![allow(clippy::unnecessary_wraps)] // those of the system can be given up

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
pub(crate) use shuttle::sync::{Arc, Condvar, MutexGuard};
pub(crate) use shuttle::thread_local;

/// A mutex that a panic does not poison.
#[derive(Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}

/// A lock as that of `parking_lot`: while a writer waits no reader gets in, except one that reads already.
pub(crate) struct RwLock<T> {
    state: Mutex<State>,
    turn: Condvar,
    value: std::sync::RwLock<T>,
}

#[derive(Default)]
struct State {
    readers: usize,
    writes: bool,
    waiting: usize,
}

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            state: Mutex::default(),
            turn: Condvar::new(),
            value: std::sync::RwLock::new(value),
        }
    }

    fn read(&self, reads_already: bool) -> RwLockReadGuard<'_, T> {
        let mut state = self.state.lock();
        while state.writes || (state.waiting > 0 && !reads_already) {
            state = wait(&self.turn, state);
        }
        state.readers += 1;
        RwLockReadGuard {
            value: Some(
                self.value
                    .try_read()
                    .unwrap_or_else(|_| panic!("it is free")),
            ),
            lock: self,
        }
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        let mut state = self.state.lock();
        state.waiting += 1;
        while state.writes || state.readers > 0 {
            state = wait(&self.turn, state);
        }
        state.waiting -= 1;
        self.taken(state)
    }

    pub(crate) fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        let state = self.state.lock();
        let free = !state.writes && state.readers == 0;
        free.then(|| self.taken(state))
    }

    fn taken(&self, mut state: MutexGuard<'_, State>) -> RwLockWriteGuard<'_, T> {
        state.writes = true;
        let value = match self.value.try_write() {
            Err(std::sync::TryLockError::Poisoned(value)) => value.into_inner(),
            value => value.unwrap_or_else(|_| panic!("it is free")),
        };
        RwLockWriteGuard {
            value: Some(value),
            lock: self,
        }
    }
}

pub(crate) struct RwLockReadGuard<'a, T> {
    value: Option<std::sync::RwLockReadGuard<'a, T>>,
    lock: &'a RwLock<T>,
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("until it is dropped")
    }
}

impl<T> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        self.value.take();
        self.lock.state.lock().readers -= 1;
        self.lock.turn.notify_all();
    }
}

pub(crate) struct RwLockWriteGuard<'a, T> {
    value: Option<std::sync::RwLockWriteGuard<'a, T>>,
    lock: &'a RwLock<T>,
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("until it is dropped")
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("until it is dropped")
    }
}

impl<T> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.value.take();
        self.lock.state.lock().writes = false;
        self.lock.turn.notify_all();
    }
}

/// No call is cancelled here.
pub(crate) struct Cancel;

impl Cancel {
    pub(crate) fn current() -> Self {
        Self
    }

    pub(crate) fn never() -> Self {
        Self
    }
}

pub(crate) fn lock<'a, T>(mutex: &'a Mutex<T>, _: &Cancel) -> Option<MutexGuard<'a, T>> {
    Some(mutex.lock())
}

pub(crate) fn read<'a, T>(
    lock: &'a RwLock<T>,
    reads_already: bool,
    _: &Cancel,
) -> Option<RwLockReadGuard<'a, T>> {
    Some(lock.read(reads_already))
}

pub(crate) fn pause() {
    shuttle::thread::yield_now();
}

pub(crate) fn linger(_: impl Fn() -> bool) {}

pub(crate) fn wait<'a, T>(turn: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    turn.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn unlock_fair<T>(guard: RwLockWriteGuard<'_, T>) {
    drop(guard);
}
