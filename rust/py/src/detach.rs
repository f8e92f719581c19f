//! Long calls: one trait through which each of them releases the GIL, maps errors, catches panics and lets Ctrl-C in.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use sharpwave_core::{self as core, Cancel, Error};

use crate::errors::Failure;

/// Work without the GIL.
pub trait Detach {
    /// Releases the GIL, does `work`, takes the GIL again. `work` may block and take its time: other Python threads run.
    /// A signal handler that raises cancels it ([`Cancel`]).
    ///
    /// # Errors
    /// What `work` returns, `KeyboardInterrupt` if it was cancelled, `RuntimeError` if it panicked.
    fn without_gil<T, F>(self, work: F) -> PyResult<T>
    where
        F: FnOnce() -> Result<T, Failure> + Send,
        T: Send;
}

impl Detach for Python<'_> {
    fn without_gil<T, F>(self, work: F) -> PyResult<T>
    where
        F: FnOnce() -> Result<T, Failure> + Send,
        T: Send,
    {
        let outcome = self.detach(|| {
            let signals = Rc::new(Signals::new());
            let asked = Rc::clone(&signals);
            let cancel = Cancel::new(move || asked.pending());
            let outcome = catch_unwind(AssertUnwindSafe(|| cancel.scope(work)))
                .unwrap_or_else(|panic| Err(Failure::Panic(message(&*panic))));
            match signals.raised.take() {
                Some(error) => Err(Failure::Interrupted(error)),
                None => outcome,
            }
        });
        Ok(outcome?)
    }
}

/// The signals of the process (Ctrl-C), as work without the GIL sees them.
struct Signals {
    looked: Cell<Instant>,
    raised: RefCell<Option<PyErr>>,
}

impl Signals {
    /// Looking costs a visit to the interpreter: not more often than this.
    const EVERY: Duration = Duration::from_millis(20);

    fn new() -> Self {
        Self {
            looked: Cell::new(Instant::now()),
            raised: RefCell::new(None),
        }
    }

    /// Whether a signal handler raised, so that work should stop soon, in a good state.
    ///
    /// Safe while the store is locked: nobody waits for a lock with the GIL in hand.
    fn pending(&self) -> bool {
        if self.raised.borrow().is_some() {
            return true;
        }
        if self.looked.get().elapsed() < Self::EVERY {
            return false;
        }
        #[allow(clippy::redundant_closure_for_method_calls)] // the method is not general enough
        let raised = Python::try_attach(|py| py.check_signals()).and_then(Result::err);
        self.looked.set(Instant::now());
        let pending = raised.is_some();
        *self.raised.borrow_mut() = raised;
        pending
    }
}

/// An outcome whose errors are the caller's to word, unless the call was cancelled.
pub fn to_be_worded<T>(outcome: core::Result<T>) -> Result<core::Result<T>, Failure> {
    match outcome {
        Err(Error::Interrupted) => Err(Error::Interrupted.into()),
        outcome => Ok(outcome),
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic".into())
}
