//! Threads that help with one call: woken once, kept for all that it shares out, and never waited for before they began.
//!
//! A helper may come late, or never: it may sleep, or the system may let it wait behind others. So the caller does all
//! work that no helper took, and waits only for helpers that are in the middle of it.
//!
//! Rayon's scope, which waits for every helper, was tried in its place: a search for 32 queries on two threads then takes
//! 1.3 times as long back to back, and 1.6 times after 50 ms of rest (`docs/performance.md`, Two threads).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::sync::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering, linger, wait};

/// What is shared out: each helper calls it once.
type Work<'a> = dyn Fn() + Sync + 'a;

/// A caller and its helpers.
#[derive(Default)]
pub(crate) struct Team {
    state: Mutex<State>,
    /// For helpers: there is work, or there will be none any more.
    news: Condvar,
    /// For the caller: no helper is in the middle of its work.
    idle: Condvar,
    /// Grows under the lock with whatever `news` and `idle` tell: read by threads that do not sleep yet.
    changes: AtomicU64,
}

#[derive(Default)]
struct State {
    work: Option<&'static Work<'static>>,
    /// Of the work: a helper does none twice.
    number: u64,
    /// How many more helpers it takes.
    places: usize,
    /// How many are in the middle of it.
    running: usize,
    over: bool,
    panic: Option<Box<dyn Any + Send>>,
}

impl Team {
    /// Helps until the caller needs no help any more. For a thread of ours.
    pub(crate) fn help(&self) {
        let mut done = 0;
        while let Some(work) = self.taken(&mut done) {
            let panic = catch_unwind(AssertUnwindSafe(work)).err();
            let mut state = self.state.lock();
            state.panic = state.panic.take().or(panic);
            state.running -= 1;
            if state.running == 0 {
                self.tell(&self.idle, state);
            }
        }
    }

    /// Work that this helper has not done, when there is some; the last that it did is number `done`.
    fn taken(&self, done: &mut u64) -> Option<&'static Work<'static>> {
        let mut state = self.state.lock();
        loop {
            if state.over {
                return None;
            }
            if state.number != *done {
                *done = state.number;
                if let Some(work) = state.work
                    && state.places > 0
                {
                    state.places -= 1;
                    state.running += 1;
                    return Some(work);
                }
            }
            state = self.awaited(&self.news, state);
        }
    }

    /// Does `here`, while up to `helpers` threads do `work`; when it returns, none of them is in the middle of it.
    ///
    /// A panic of a helper is raised here. Only the thread that leads the team may call it, and not within itself.
    pub(crate) fn with<T>(&self, helpers: usize, work: &Work<'_>, here: impl FnOnce() -> T) -> T {
        // SAFETY: the two types differ in their lifetimes alone. Helpers get the reference in `taken`, under the lock, as
        // long as it is in the state, and count in `running` from then until after their last use of it, also if it
        // panics. `SharedWork::drop`, which runs before this function returns or unwinds, takes it out of the state under the
        // same lock and waits until none runs. So it is not used after the borrow of `work`.
        let lasting = unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        let mut state = self.state.lock();
        state.work = Some(lasting);
        state.number += 1;
        state.places = helpers;
        state.panic = None;
        let called = SharedWork(self);
        self.tell(&self.news, state);
        let here = here();
        drop(called);
        if let Some(panic) = self.state.lock().panic.take() {
            resume_unwind(panic);
        }
        here
    }

    /// Lets the helpers go.
    pub(crate) fn dismiss(&self) {
        let mut state = self.state.lock();
        state.over = true;
        self.tell(&self.news, state);
    }

    fn tell(&self, turn: &Condvar, state: MutexGuard<'_, State>) {
        self.changes.fetch_add(1, Ordering::Release);
        drop(state);
        turn.notify_all();
    }

    /// Waits for a change: awake for a moment, then asleep.
    fn awaited<'a>(
        &'a self,
        turn: &Condvar,
        state: MutexGuard<'a, State>,
    ) -> MutexGuard<'a, State> {
        let before = self.changes.load(Ordering::Acquire);
        drop(state);
        linger(|| self.changes.load(Ordering::Acquire) != before);
        let state = self.state.lock();
        // Under the lock: what is told from here on finds this thread waiting.
        if self.changes.load(Ordering::Acquire) == before {
            wait(turn, state)
        } else {
            state
        }
    }
}

/// Work that helpers may take until this goes.
struct SharedWork<'a>(&'a Team);

impl Drop for SharedWork<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.work = None;
        while state.running > 0 {
            state = self.0.awaited(&self.0.idle, state);
        }
    }
}
