//! The lock around a store: many readers or one writer, and frozen moments that need no lock.
//!
//! Every method here may block, so none is called with the GIL in hand.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockWriteGuard};
use sharpwave_core::Store;

use crate::errors::Failure;

/// A store that may be shared, frozen and closed.
pub struct Handle {
    /// Held by the one that writes, for the whole of its call.
    writer: Mutex<()>,
    /// Held to read, and to write for one slice of a call; fair, so neither starves the other. `None` once closed.
    current: RwLock<Option<Arc<Store>>>,
    /// How often the store was written to.
    writes: AtomicU64,
    /// The process that the locks belong to: after a fork, the threads that held them are gone.
    process: AtomicU32,
}

impl Handle {
    /// A handle on a store.
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            writer: Mutex::new(()),
            current: RwLock::new(Some(store)),
            writes: AtomicU64::new(0),
            process: AtomicU32::new(process::id()),
        }
    }

    /// Reads the store, beside other readers.
    pub fn read<T>(&self, work: impl FnOnce(&Store) -> Result<T, Failure>) -> Result<T, Failure> {
        self.survive_fork()?;
        work(self.current.read().as_deref().ok_or(Failure::Closed)?)
    }

    /// Becomes the one writer, waiting for its turn.
    pub fn writer(&self) -> Result<Writer<'_>, Failure> {
        self.survive_fork()?;
        Ok(Writer {
            handle: self,
            _turn: self.writer.lock(),
        })
    }

    /// The store as it is now, untouched by what is written later: the next write copies it.
    pub fn freeze(&self) -> Result<Arc<Store>, Failure> {
        self.survive_fork()?;
        self.current.read().clone().ok_or(Failure::Closed)
    }

    /// How often the store was written to: if this stays, so did the store.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// Whether the store was let go of.
    pub fn is_closed(&self) -> Result<bool, Failure> {
        self.survive_fork()?;
        Ok(self.current.read().is_none())
    }

    /// After a fork, makes sure that no thread of the parent left the locks taken: nobody would ever free them.
    fn survive_fork(&self) -> Result<(), Failure> {
        let here = process::id();
        for _ in 0..100 {
            if self.process.load(Ordering::Acquire) == here {
                return Ok(());
            }
            if self.writer.try_lock().is_some() && self.current.try_write().is_some() {
                self.process.store(here, Ordering::Release);
                return Ok(());
            }
            // Perhaps only a thread of this process that makes sure right now.
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Failure::Forked)
    }
}

/// The one that writes. Between two of its writes, readers get their turn.
pub struct Writer<'a> {
    handle: &'a Handle,
    _turn: MutexGuard<'a, ()>,
}

impl Writer<'_> {
    /// Reads the store that nobody else can change meanwhile.
    pub fn read<T>(&self, work: impl FnOnce(&Store) -> Result<T, Failure>) -> Result<T, Failure> {
        self.handle.read(work)
    }

    /// Changes the store while no one reads it: for short work, or one slice of long work.
    pub fn write<T>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.part_from_frozen()?;
        let mut current = self.handle.current.write();
        self.handle.writes.fetch_add(1, Ordering::Release);
        let done = work(Arc::make_mut(current.as_mut().ok_or(Failure::Closed)?));
        // Whoever waits goes first: the next slice must not overtake.
        RwLockWriteGuard::unlock_fair(current);
        done
    }

    /// Changes a copy of the store while others read the store as it was, then puts the copy in its place.
    ///
    /// For long work that cannot be sliced. Work that fails leaves no trace.
    pub fn rewrite<T>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut next = self.read(|store| Ok(store.clone()))?;
        let done = work(&mut next)?;
        let mut current = self.handle.current.write();
        self.handle.writes.fetch_add(1, Ordering::Release);
        *current = Some(Arc::new(next));
        Ok(done)
    }

    /// Copies a store that a frozen view shares, so that readers do not wait for the copy under the lock.
    fn part_from_frozen(&self) -> Result<(), Failure> {
        let shared = self.handle.freeze()?;
        // The live store and `shared` itself are two.
        if Arc::strong_count(&shared) > 2 {
            let own = Arc::new(Store::clone(&shared));
            *self.handle.current.write() = Some(own);
        }
        Ok(())
    }

    /// How often the store was written to.
    pub fn writes(&self) -> u64 {
        self.handle.writes()
    }

    /// Lets go of the store.
    pub fn close(&self) {
        self.handle.current.write().take();
    }
}
