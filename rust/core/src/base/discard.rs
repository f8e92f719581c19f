//! Letting go of much memory, which takes a tenth of a second for a gigabyte, while the caller goes on.
//!
//! Who gives work up wants the thread back, not the memory: what is half done goes to a thread of its own that frees
//! it and ends. A process that is forked or ends meanwhile loses nothing but the time.

use std::ops::{Deref, DerefMut};
use std::thread::{Builder, sleep};
use std::time::Duration;

use crate::base::interrupt;

/// What is held is there until it is kept or let go of.
const HELD: &str = "it is held until then";

/// How long it waits: until whoever gave up is back, who would share the processor and the lock of the page tables.
const WAIT: Duration = Duration::from_millis(100);

/// Lets go of `value` on another thread, in a moment; on this one if the system gives none.
pub(crate) fn later<T: Send + 'static>(value: T) {
    let thread = Builder::new().name("sharpwave-free".into());
    // Where it cannot be spawned, the work is dropped with what it holds.
    drop(thread.spawn(move || {
        sleep(WAIT);
        drop(value);
    }));
}

/// Holds much memory, which is let go of [`later`] if the work was given up in the middle, else at once.
#[derive(Debug)]
pub(crate) struct Heavy<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Heavy<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Takes it out: the work went well.
    pub(crate) fn keep(mut self) -> T {
        self.0.take().expect(HELD)
    }
}

impl<T: Send + 'static> Deref for Heavy<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect(HELD)
    }
}

impl<T: Send + 'static> DerefMut for Heavy<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(HELD)
    }
}

impl<T: Send + 'static> Drop for Heavy<T> {
    fn drop(&mut self) {
        if interrupt::given_up()
            && let Some(value) = self.0.take()
        {
            later(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::thread::{ThreadId, current};

    use super::*;
    use crate::Error;

    /// Tells which thread lets go of it.
    struct Tells(Sender<ThreadId>);

    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.send(current().id()).unwrap();
        }
    }

    #[test]
    fn what_is_given_up_is_freed_elsewhere_and_what_is_done_is_freed_here() {
        let (tell, told) = channel();
        drop(Heavy::new(Tells(tell.clone())));
        assert_eq!(told.recv().unwrap(), current().id());
        let given_up = crate::interruptible(
            || true,
            || {
                let _half = Heavy::new(Tells(tell.clone()));
                interrupt::check()
            },
        );
        assert!(matches!(given_up, Err(Error::Interrupted)));
        assert_ne!(told.recv().unwrap(), current().id());
        // Nobody was asked, so nothing was given up.
        let done = crate::interruptible(
            || true,
            || {
                drop(Heavy::new(Tells(tell.clone())));
                Ok(Heavy::new(Tells(tell.clone())).keep())
            },
        );
        assert_eq!(told.recv().unwrap(), current().id());
        assert!(told.try_recv().is_err(), "what is kept is not freed");
        drop(done);
        assert_eq!(told.recv().unwrap(), current().id());
    }
}
