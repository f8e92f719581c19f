//! Where helping threads are woken: not on the processor of the thread that they help.
//!
//! Linux wakes a thread on an idle processor. But one of a virtual machine that has just gone idle counts as taken away by
//! the host, so that the thread lands beside its caller, and waits there for its turn until the system balances its load:
//! two threads were then no faster than one (`docs/performance.md`). So helpers of long work may not run on their caller's
//! processor in the moment in which they are woken. Where they run decides no result.

#[cfg(target_os = "linux")]
pub(crate) use linux::Helpers;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::Helpers;

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::{Mutex, PoisonError};

    use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// More helpers than these are left to the system: it takes three calls of it for each, a microsecond.
    const FEW: usize = 8;

    /// The threads of a pool.
    #[derive(Debug, Default)]
    pub(crate) struct Helpers(Mutex<Vec<Pid>>);

    impl Helpers {
        /// Makes the calling thread one of them.
        pub(crate) fn join(&self) {
            self.threads(|threads| threads.push(gettid()));
        }

        /// Does what wakes them; if `elsewhere`, none of few is woken where this thread runs.
        pub(crate) fn woken<T>(&self, elsewhere: bool, wake: impl FnOnce() -> T) -> T {
            let few = self
                .threads(|threads| (elsewhere && threads.len() <= FEW).then(|| threads.clone()));
            let _back = few.map(|threads| Elsewhere::than_here(&threads));
            wake()
        }

        fn threads<T>(&self, f: impl FnOnce(&mut Vec<Pid>) -> T) -> T {
            f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }

    /// Threads that may not run on one processor, and where each of them might run before; so it is again when this goes.
    struct Elsewhere(Vec<(Pid, CpuSet)>);

    impl Elsewhere {
        fn than_here(threads: &[Pid]) -> Self {
            let here = sched_getcpu();
            let mut kept_off = Vec::new();
            for &thread in threads {
                // A system that does not tell or does not let itself be told places threads as it likes.
                let Ok(allowed) = sched_getaffinity(Some(thread)) else {
                    continue;
                };
                let mut others = allowed;
                others.unset(here);
                let elsewhere = others.count() > 0 && others != allowed;
                if elsewhere && sched_setaffinity(Some(thread), &others).is_ok() {
                    kept_off.push((thread, allowed));
                }
            }
            Self(kept_off)
        }
    }

    impl Drop for Elsewhere {
        fn drop(&mut self) {
            for (thread, allowed) in &self.0 {
                let _ = sched_setaffinity(Some(*thread), allowed);
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use std::sync::mpsc::channel;

        use super::*;

        #[test]
        fn few_helpers_are_kept_off_one_processor_while_they_are_woken() {
            let helpers = Helpers::default();
            let (done, wait) = channel::<()>();
            std::thread::scope(|scope| {
                let (begun, began) = channel();
                let helpers = &helpers;
                scope.spawn(move || {
                    helpers.join();
                    begun.send(gettid()).unwrap();
                    wait.recv().unwrap_err();
                });
                let thread = began.recv().unwrap();
                let allowed = || sched_getaffinity(Some(thread)).unwrap();
                let before = allowed();
                let meanwhile = helpers.woken(true, allowed);
                assert_eq!(helpers.woken(false, allowed), before);
                let fewer = before.count() - u32::from(before.count() > 1);
                assert_eq!(meanwhile.count(), fewer);
                assert_eq!(allowed(), before);
                let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    helpers.woken(true, || panic!("on purpose"));
                }));
                assert!(panicked.is_err());
                assert_eq!(allowed(), before);
                for _ in 0..FEW {
                    helpers.threads(|threads| threads.push(thread));
                }
                assert_eq!(
                    helpers.woken(true, allowed),
                    before,
                    "many are left to the system"
                );
                drop(done);
            });
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    /// The threads of a pool, which the system places.
    #[derive(Debug, Default)]
    pub(crate) struct Helpers;

    #[allow(clippy::unused_self)] // As on Linux.
    impl Helpers {
        pub(crate) fn join(&self) {}

        pub(crate) fn woken<T>(&self, _: bool, wake: impl FnOnce() -> T) -> T {
            wake()
        }
    }
}
