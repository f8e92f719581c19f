//! Cancelling a call: Ctrl-C, or a deadline. The caller has its thread back within a second.
//!
//! A call has one token, installed for its thread by [`Cancel::scope`]. Work that may take longer than a second looks at
//! the token wherever it can stop without a trace: reads anywhere, writes before they change anything and between two
//! episodes or two slices of backups. Threads that help with a call have no token; the caller's thread stops them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::error::{Error, Result};

/// Whether a call shall stop.
#[derive(Clone, Default)]
pub struct Cancel(Option<Rc<Token>>);

struct Token {
    ask: Box<dyn Fn() -> bool>,
    /// A token once cancelled stays so: what stopped in the middle is never taken for whole.
    cancelled: Cell<bool>,
}

thread_local! {
    static CURRENT: RefCell<Cancel> = const { RefCell::new(Cancel(None)) };
}

impl Cancel {
    /// A token that is cancelled as soon as `ask` returns `true`. `ask` is called on the thread of the call, and often.
    #[must_use]
    pub fn new(ask: impl Fn() -> bool + 'static) -> Self {
        Self(Some(Rc::new(Token {
            ask: Box::new(ask),
            cancelled: Cell::new(false),
        })))
    }

    /// A token that is never cancelled: for work that must not stop in the middle.
    #[must_use]
    pub const fn never() -> Self {
        Self(None)
    }

    /// The token of this thread's call.
    #[must_use]
    pub fn current() -> Self {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Does `work` with this token as the thread's.
    pub fn scope<T>(&self, work: impl FnOnce() -> T) -> T {
        let _restored = Restore(CURRENT.replace(self.clone()));
        work()
    }

    /// Whether the call shall stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        // `CURRENT` is not borrowed meanwhile: a signal handler that `ask` runs may use a store, too.
        self.0.as_ref().is_some_and(|token| {
            let cancelled = token.cancelled.get() || (token.ask)();
            token.cancelled.set(cancelled);
            cancelled
        })
    }

    /// [`Cancel::is_cancelled`] as an error.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }
}

/// [`Cancel::check`] of this thread's call.
pub(crate) fn check() -> Result<()> {
    Cancel::current().check()
}

/// Puts back what was there before, also after a panic.
struct Restore(Cancel);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(std::mem::take(&mut self.0));
    }
}
