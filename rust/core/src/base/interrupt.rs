//! Stopping long work: whoever waits for it may say so (Ctrl-C, a deadline) and gets the thread back soon.
//!
//! Reading changes nothing and can stop anywhere, so it asks here, wherever it is. Writing stops only before it has
//! changed anything, or between two episodes or two backups, and takes an
//! [`Interrupt`](crate::base::interrupt::Interrupt) of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::error::{Error, Result};

/// Who may stop the work of this thread.
struct Asked {
    /// `true` means stop soon.
    ask: Box<dyn Fn() -> bool>,
    /// Who had enough once has enough: what stops in the middle is never taken for whole.
    enough: Cell<bool>,
}

/// Asked now and then by long calls: `true` means stop soon, in a good state.
pub type Interrupt<'a> = &'a dyn Fn() -> bool;

thread_local! {
    static ASK: RefCell<Option<Rc<Asked>>> = const { RefCell::new(None) };
}

/// Does `work`, which reads a store or rebuilds a copy of one, but gives up soon after `ask` says `true`.
///
/// `ask` is called on this thread, often: it should be cheap. Never wrap a write to a store that is
/// still needed when it fails: it may stop in the middle.
///
/// # Errors
/// [`Error::Interrupted`] if it gave up, else as `work`.
pub fn interruptible<T>(
    ask: impl Fn() -> bool + 'static,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let asked = Asked {
        ask: Box::new(ask),
        enough: Cell::new(false),
    };
    let outer = ASK.replace(Some(Rc::new(asked)));
    let _restore = Restore(outer);
    work()
}

/// Does `work` that must not be given up in the middle, also within [`interruptible`].
pub(crate) fn never<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let outer = ASK.replace(None);
    let _restore = Restore(outer);
    work()
}

/// [`check`], for what takes an [`Interrupt`](crate::base::interrupt::Interrupt).
pub(crate) fn enough() -> bool {
    check().is_err()
}

/// Puts back what was there before, also after a panic.
struct Restore(Option<Rc<Asked>>);

impl Drop for Restore {
    fn drop(&mut self) {
        ASK.set(self.0.take());
    }
}

/// Whether anyone may interrupt this thread.
#[cfg(test)]
fn possible() -> bool {
    ASK.with_borrow(Option::is_some)
}

/// An error if this thread shall stop.
pub(crate) fn check() -> Result<()> {
    let Some(asked) = ASK.with_borrow(Clone::clone) else {
        return Ok(());
    };
    // Not while it is borrowed: a signal handler may read a store, too.
    if asked.enough.get() || (asked.ask)() {
        asked.enough.set(true);
        return Err(Error::Interrupted);
    }
    Ok(())
}

/// Whether this thread was told to stop; nobody is asked.
pub(crate) fn given_up() -> bool {
    ASK.with_borrow(|asked| asked.as_ref().is_some_and(|asked| asked.enough.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_stops_when_asked_and_only_then() {
        assert!(check().is_ok());
        let asked = Rc::new(Cell::new(0));
        let counter = Rc::clone(&asked);
        let ask = move || {
            counter.set(counter.get() + 1);
            counter.get() > 3
        };
        let mut rounds = 0;
        let outcome = interruptible(ask, || -> Result<()> {
            loop {
                check()?;
                rounds += 1;
            }
        });
        assert!(matches!(outcome, Err(Error::Interrupted)));
        assert_eq!(rounds, 3);
        assert!(check().is_ok(), "it holds for the work alone");
        let outcome = interruptible(
            || true,
            || {
                never(|| {
                    assert!(!possible());
                    check()
                })?;
                assert!(possible());
                check()
            },
        );
        assert!(matches!(outcome, Err(Error::Interrupted)));
    }
}
