//! Two different pieces of work at once, the second on a thread of its own.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::num_threads;
use crate::base::interrupt;
use crate::base::interrupt::Interrupt;
use crate::error::Result;

/// Between two looks at whether the other of two threads is done, and at the interrupt.
const WAIT: Duration = Duration::from_millis(1);

/// What two pieces of work come to, done at once: `beside` on a thread of its own, if threads are wanted and one can be
/// had. It is to ask the interrupt it is given, which knows what this thread's caller wants.
pub(crate) fn both<A: Send, B>(
    beside: impl FnOnce(Interrupt<'_>) -> Result<A> + Send,
    here: impl FnOnce() -> Result<B>,
) -> (Result<A>, Result<B>) {
    if num_threads() == 1 {
        return (beside(&interrupt::enough), here());
    }
    let (given_up, beside) = (AtomicBool::new(false), Mutex::new(Some(beside)));
    let taken = || beside.lock().unwrap_or_else(PoisonError::into_inner).take();
    std::thread::scope(|scope| {
        let work = || taken().map(|beside| beside(&|| given_up.load(Ordering::Relaxed)));
        let thread = std::thread::Builder::new()
            .name("sharpwave-beside".into())
            .spawn_scoped(scope, work);
        let Ok(thread) = thread else {
            let beside = taken().expect("no thread took it");
            return (beside(&interrupt::enough), here());
        };
        // A panic here ends the other thread, too.
        let guard = GivenUp(&given_up);
        let here = here();
        while !thread.is_finished() && !interrupt::enough() {
            std::thread::sleep(WAIT);
        }
        drop(guard);
        let beside = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        (beside.expect("it was there to be taken"), here)
    })
}

/// Tells the other thread, when it goes, that nobody waits any more.
struct GivenUp<'a>(&'a AtomicBool);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn both_pieces_are_done_and_an_interrupt_or_a_panic_ends_them() {
        let (a, b) = both(|_| Ok(1), || Ok(2));
        assert_eq!((a.unwrap(), b.unwrap()), (1, 2));
        // An error of one leaves the other to its end: which of them counts is the caller's affair.
        let (a, b) = both(
            |_| Ok(1),
            || {
                Err::<(), _>(Error::Invalid {
                    argument: "b",
                    message: "bad".into(),
                })
            },
        );
        assert!(a.is_ok() && matches!(b, Err(Error::Invalid { .. })));
        let endless = |enough: Interrupt<'_>| loop {
            if enough() {
                return Err::<(), _>(Error::Interrupted);
            }
            std::thread::yield_now();
        };
        let stopped = interrupt::interruptible(|| true, || both(endless, || Ok(())).0);
        assert!(matches!(stopped, Err(Error::Interrupted)));
        let panicked = std::panic::catch_unwind(|| {
            interrupt::interruptible(
                || true,
                || both(endless, || -> Result<()> { panic!("here") }).1,
            )
        });
        assert!(panicked.is_err());
        let panicked =
            std::panic::catch_unwind(|| both(|_| -> Result<()> { panic!("beside") }, || Ok(())));
        assert!(panicked.is_err());
    }
}
