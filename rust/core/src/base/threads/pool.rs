//! The threads that help: kept by number, started when first asked for and anew after a fork, and kept off the processor of
//! the thread that they help.
//!
//! Rayon's own scope was tried in the place of [`super::team`] and of this: see `docs/performance.md`, Two threads. Linux
//! wakes a thread on an idle processor. But one of a virtual machine that has just gone idle counts as taken away by the
//! host, so that the thread lands beside its caller, and shares the processor with it until the system balances its load.
//! Where helpers run decides no result.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::WITHIN;
use super::team::Team;
use crate::base::fpenv;

/// Threads that help.
pub(super) struct Pool {
    pub(super) threads: ThreadPool,
    helpers: Arc<Helpers>,
    /// Calls for help that no thread has come to yet.
    open: AtomicUsize,
}

/// The pools by size, and the process that built them: threads do not survive a fork.
struct Pools {
    process: u32,
    by_size: BTreeMap<usize, Arc<Pool>>,
}

static POOLS: Mutex<Pools> = Mutex::new(Pools {
    process: 0,
    by_size: BTreeMap::new(),
});

/// A team, whose helpers go when this does.
pub(super) struct WorkerLease {
    team: Arc<Team>,
    pool: Arc<Pool>,
}

impl WorkerLease {
    /// A team of so many helpers out of `size`, who come as they wake up; none where the system gives no threads, or where those
    /// there are help others for so long that calls pile up.
    pub(super) fn of(size: usize, helpers: usize) -> Option<Self> {
        let pool = pool(size)?;
        if pool.open.load(Ordering::Relaxed) >= size {
            return None;
        }
        pool.open.fetch_add(helpers, Ordering::Relaxed);
        let team = Arc::new(Team::default());
        let _elsewhere = AffinityGuard::off_this_cpu(&pool.helpers);
        for _ in 0..helpers {
            let (team, of) = (Arc::clone(&team), Arc::clone(&pool));
            pool.threads.spawn(move || {
                of.open.fetch_sub(1, Ordering::Relaxed);
                team.help();
            });
        }
        Some(Self { team, pool })
    }

    pub(super) fn team(&self) -> &Team {
        &self.team
    }

    /// Keeps the helpers off this thread's processor as long as it is there: while they are told of work, and while this
    /// thread works itself. While it waits for them its processor is theirs, too.
    pub(super) fn keep_off_this_cpu(&self) -> Option<AffinityGuard> {
        AffinityGuard::off_this_cpu(&self.pool.helpers)
    }
}

impl Drop for WorkerLease {
    fn drop(&mut self) {
        self.team.dismiss();
    }
}

pub(super) fn pool(size: usize) -> Option<Arc<Pool>> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if pools.process != process {
        // After a fork the old pools have no threads: joining them would wait for ever.
        std::mem::forget(std::mem::take(&mut pools.by_size));
        pools.process = process;
    }
    if let Some(pool) = pools.by_size.get(&size) {
        return Some(Arc::clone(pool));
    }
    let helpers = Arc::new(Helpers::default());
    let started = Arc::clone(&helpers);
    let threads = ThreadPoolBuilder::new()
        .num_threads(size)
        .thread_name(|i| format!("sharpwave-{i}"))
        .start_handler(move |_| {
            fpenv::pin_thread();
            // What it helps with is not shared out again.
            WITHIN.set(true);
            started.join();
        })
        .build()
        .ok()?;
    let pool = Arc::new(Pool {
        threads,
        helpers,
        open: AtomicUsize::new(0),
    });
    pools.by_size.insert(size, Arc::clone(&pool));
    Some(pool)
}

#[cfg(target_os = "linux")]
use linux::{AffinityGuard, Helpers};
#[cfg(not(target_os = "linux"))]
use other::{AffinityGuard, Helpers};

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};

    use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// More helpers than these are left to the system: it takes two calls of it for each, a microsecond.
    const MAX_PINNED_WORKERS: usize = 8;

    /// The threads of a pool.
    #[derive(Debug, Default)]
    pub(crate) struct Helpers {
        threads: Mutex<Vec<Pid>>,
        /// Whether they are kept off a processor: by one call at a time, or the last would not know where they may run.
        placed: AtomicBool,
    }

    impl Helpers {
        /// Makes the calling thread one of them.
        pub(crate) fn join(&self) {
            self.threads().push(gettid());
        }

        fn threads(&self) -> std::sync::MutexGuard<'_, Vec<Pid>> {
            self.threads.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// Threads that may not run on one processor, and where each of them might run before; so it is again when this goes.
    pub(crate) struct AffinityGuard {
        helpers: Arc<Helpers>,
        kept_off: Vec<(Pid, CpuSet)>,
    }

    impl AffinityGuard {
        /// Keeps few helpers off the processor of the calling thread.
        pub(crate) fn off_this_cpu(helpers: &Arc<Helpers>) -> Option<Self> {
            let threads = helpers.threads();
            if threads.len() > MAX_PINNED_WORKERS || helpers.placed.swap(true, Ordering::Acquire) {
                return None;
            }
            let here = sched_getcpu();
            let kept_off = threads
                .iter()
                .filter_map(|&thread| {
                    // A system that does not tell or does not let itself be told places threads as it likes.
                    let allowed = sched_getaffinity(Some(thread)).ok()?;
                    let mut others = allowed;
                    others.unset(here);
                    let elsewhere = others.count() > 0 && others != allowed;
                    (elsewhere && sched_setaffinity(Some(thread), &others).is_ok())
                        .then_some((thread, allowed))
                })
                .collect();
            Some(Self {
                helpers: Arc::clone(helpers),
                kept_off,
            })
        }
    }

    impl Drop for AffinityGuard {
        fn drop(&mut self) {
            for (thread, allowed) in &self.kept_off {
                let _ = sched_setaffinity(Some(*thread), allowed);
            }
            self.helpers.placed.store(false, Ordering::Release);
        }
    }

    #[cfg(test)]
    mod tests {
        use std::sync::mpsc::channel;

        use super::*;

        #[test]
        fn few_helpers_are_kept_off_one_processor_while_they_help_one_call() {
            let helpers = Arc::new(Helpers::default());
            let (done, wait) = channel::<()>();
            std::thread::scope(|scope| {
                let (begun, began) = channel();
                let joined = Arc::clone(&helpers);
                scope.spawn(move || {
                    joined.join();
                    begun.send(gettid()).unwrap();
                    wait.recv().unwrap_err();
                });
                let thread = began.recv().unwrap();
                let allowed = || sched_getaffinity(Some(thread)).unwrap();
                let before = allowed();
                let first = AffinityGuard::off_this_cpu(&helpers).unwrap();
                assert_eq!(
                    allowed().count(),
                    before.count() - u32::from(before.count() > 1)
                );
                assert!(
                    AffinityGuard::off_this_cpu(&helpers).is_none(),
                    "one at a time"
                );
                drop(first);
                assert_eq!(allowed(), before);
                drop(AffinityGuard::off_this_cpu(&helpers).unwrap());
                assert_eq!(allowed(), before);
                for _ in 0..MAX_PINNED_WORKERS {
                    helpers.threads().push(thread);
                }
                assert!(AffinityGuard::off_this_cpu(&helpers).is_none(), "many");
                assert_eq!(allowed(), before);
                drop(done);
            });
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::sync::Arc;

    /// The threads of a pool.
    #[derive(Debug, Default)]
    pub(crate) struct Helpers;

    /// Nothing: the system places them.
    pub(crate) struct AffinityGuard;

    #[allow(clippy::unused_self)] // As on Linux.
    impl Helpers {
        pub(crate) fn join(&self) {}
    }

    impl AffinityGuard {
        pub(crate) fn off_this_cpu(_: &Arc<Helpers>) -> Option<Self> {
            None
        }
    }
}
