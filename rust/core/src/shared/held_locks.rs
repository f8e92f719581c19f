//! What this thread holds at the moment. A signal handler runs in the middle of a call, on the same thread: what it
//! asks of the same store must not wait for that call to end.

use std::cell::RefCell;

use super::sync::thread_local;

/// What a thread may hold of a store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockKind {
    /// It reads.
    Reading,
    /// It is the writer, between two writes.
    Turn,
    /// It writes.
    Writing,
}

thread_local! {
    static HELD: RefCell<Vec<(usize, LockKind)>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, this thread holds something.
pub(crate) struct HeldLock;

impl HeldLock {
    /// Notes that this thread holds `what` of the store at that address.
    pub(crate) fn record(store: usize, what: LockKind) -> Self {
        HELD.with(|held| held.borrow_mut().push((store, what)));
        Self
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        HELD.with(|held| held.borrow_mut().pop());
    }
}

/// Whether this thread holds `what` of the store at that address.
pub(crate) fn holds(store: usize, what: LockKind) -> bool {
    HELD.with(|held| held.borrow().contains(&(store, what)))
}
