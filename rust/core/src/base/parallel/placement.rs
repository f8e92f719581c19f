//! Where helping threads run: not on the processor of the thread that they help.
//!
//! Linux wakes a thread on an idle processor. But one of a virtual machine that has just gone idle counts as taken away by
//! the host, so that the thread lands beside its caller, and shares the processor with it until the system balances its
//! load: two threads were then no faster than one (`docs/performance.md`). So helpers may not run where their caller runs while
//! it works. Where they run decides no result, and none is waited for before it began.

#[cfg(target_os = "linux")]
pub(crate) use linux::{Elsewhere, Helpers};
#[cfg(not(target_os = "linux"))]
pub(crate) use other::{Elsewhere, Helpers};

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};

    use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// More helpers than these are left to the system: it takes two calls of it for each, a microsecond.
    const FEW: usize = 8;

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
    pub(crate) struct Elsewhere {
        helpers: Arc<Helpers>,
        kept_off: Vec<(Pid, CpuSet)>,
    }

    impl Elsewhere {
        /// Keeps few helpers off the processor of the calling thread.
        pub(crate) fn than_here(helpers: &Arc<Helpers>) -> Option<Self> {
            let threads = helpers.threads();
            if threads.len() > FEW || helpers.placed.swap(true, Ordering::Acquire) {
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

    impl Drop for Elsewhere {
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
                let first = Elsewhere::than_here(&helpers).unwrap();
                assert_eq!(
                    allowed().count(),
                    before.count() - u32::from(before.count() > 1)
                );
                assert!(Elsewhere::than_here(&helpers).is_none(), "one at a time");
                drop(first);
                assert_eq!(allowed(), before);
                drop(Elsewhere::than_here(&helpers).unwrap());
                assert_eq!(allowed(), before);
                for _ in 0..FEW {
                    helpers.threads().push(thread);
                }
                assert!(Elsewhere::than_here(&helpers).is_none(), "many");
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
    pub(crate) struct Elsewhere;

    #[allow(clippy::unused_self)] // As on Linux.
    impl Helpers {
        pub(crate) fn join(&self) {}
    }

    impl Elsewhere {
        pub(crate) fn than_here(_: &Arc<Helpers>) -> Option<Self> {
            None
        }
    }
}
