//! The lock around a store: many readers or one writer, and frozen moments that need no lock.
//!
//! Every method here may block, so none is called with the GIL in hand.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockWriteGuard};
use sharpwave_core::{Journal, Store};

use crate::errors::Failure;

/// A store that may be shared, frozen and closed.
pub struct Handle {
    /// Held by the one that writes, for the whole of its call; with the journal of a store that lives in a directory.
    writer: Mutex<Option<Journal>>,
    /// Held to read, and to write for one slice of a call; fair, so neither starves the other. `None` once closed.
    current: RwLock<Option<Arc<Store>>>,
    /// How often it was written to.
    writes: AtomicU64,
    /// Whether it was opened to be read only.
    readonly: bool,
    /// Whether a write panicked: what it left is no store.
    poisoned: AtomicBool,
    /// The process that the locks belong to: after a fork, the threads that held them are gone.
    process: AtomicU32,
}

impl Handle {
    /// A handle on a store in memory.
    pub fn new(store: Arc<Store>) -> Self {
        Self::around(store, None, false)
    }

    /// A handle on a store in a directory: read only if there is no journal.
    pub fn opened(store: Store, journal: Option<Journal>) -> Self {
        let readonly = journal.is_none();
        Self::around(Arc::new(store), journal, readonly)
    }

    fn around(store: Arc<Store>, journal: Option<Journal>, readonly: bool) -> Self {
        Self {
            writer: Mutex::new(journal),
            current: RwLock::new(Some(store)),
            writes: AtomicU64::new(0),
            readonly,
            poisoned: AtomicBool::new(false),
            process: AtomicU32::new(process::id()),
        }
    }

    /// Reads the store, beside other readers.
    pub fn read<T>(&self, work: impl FnOnce(&Store) -> Result<T, Failure>) -> Result<T, Failure> {
        self.survive_fork()?;
        let current = self.current.read();
        work(current.as_deref().ok_or_else(|| self.gone())?)
    }

    /// Does what writes, as the one writer, waiting for its turn; returns once it is as durable as was asked for.
    pub fn writing<T>(
        &self,
        work: impl FnOnce(&mut Writer<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.survive_fork()?;
        if self.readonly {
            return Err(Failure::ReadOnly);
        }
        let mut writer = Writer {
            handle: self,
            journal: self.writer.lock(),
        };
        let done = work(&mut writer)?;
        let written = writer.journal.as_ref().and_then(Journal::commit);
        // Others write while this call waits for the disk, which takes what all of them wrote at once.
        drop(writer);
        if let Some(written) = written {
            written.wait()?;
        }
        Ok(done)
    }

    /// The store as it is now, untouched by what is written later: the next write copies it.
    pub fn freeze(&self) -> Result<Arc<Store>, Failure> {
        self.survive_fork()?;
        self.current.read().clone().ok_or_else(|| self.gone())
    }

    /// Whether the store was let go of.
    pub fn is_closed(&self) -> Result<bool, Failure> {
        self.survive_fork()?;
        Ok(self.current.read().is_none())
    }

    /// How often it was written to since it was made: one who copied it knows whether there is anything new.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// Whether it can only be read.
    pub fn is_readonly(&self) -> bool {
        self.readonly
    }

    /// Lets go of the store. One in a directory writes a snapshot if there is anything new.
    pub fn close(&self) -> Result<(), Failure> {
        self.survive_fork()?;
        let mut journal = self.writer.lock();
        if let (Some(journal), Ok(store)) = (journal.as_mut(), self.freeze()) {
            journal.close(&store)?;
        }
        self.current.write().take();
        journal.take();
        Ok(())
    }

    fn gone(&self) -> Failure {
        if self.poisoned.load(Ordering::Acquire) {
            Failure::Poisoned
        } else {
            Failure::Closed
        }
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
    journal: MutexGuard<'a, Option<Journal>>,
}

impl Writer<'_> {
    /// Reads the store that nobody else can change meanwhile.
    pub fn read<T>(&self, work: impl FnOnce(&Store) -> Result<T, Failure>) -> Result<T, Failure> {
        self.handle.read(work)
    }

    /// Changes the store while no one reads it: for short work, or one slice of long work.
    ///
    /// A panic in the middle leaves a store that nobody may use any more.
    pub fn write<T>(
        &mut self,
        work: impl FnOnce(&mut Store) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.part_from_frozen()?;
        let mut current = self.handle.current.write();
        let store = Arc::make_mut(current.as_mut().ok_or_else(|| self.handle.gone())?);
        self.handle.writes.fetch_add(1, Ordering::Release);
        let journal = self.journal.as_mut();
        let done = catch_unwind(AssertUnwindSafe(|| recorded(journal, store, work)));
        if done.is_err() {
            self.handle.poisoned.store(true, Ordering::Release);
            current.take();
            self.journal.take();
        }
        // Whoever waits goes first: the next slice must not overtake.
        RwLockWriteGuard::unlock_fair(current);
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Changes a copy of the store while others read the store as it was, then puts the copy in its place.
    ///
    /// For long work that cannot be sliced. Work that fails leaves no trace.
    pub fn rewrite<T>(
        &mut self,
        work: impl FnOnce(&mut Store) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut next = self.read(|store| Ok(store.clone()))?;
        let done = recorded(self.journal.as_mut(), &mut next, work)?;
        *self.handle.current.write() = Some(Arc::new(next));
        self.handle.writes.fetch_add(1, Ordering::Release);
        Ok(done)
    }

    /// Puts another store in the place of this one, in its directory too.
    pub fn become_other(&mut self, other: Arc<Store>) -> Result<(), Failure> {
        if let Some(journal) = self.journal.as_mut() {
            journal.compact(&other)?;
        }
        *self.handle.current.write() = Some(other);
        self.handle.writes.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Writes a snapshot of a store in a directory, if there is anything new or, on request, only if there is much.
    /// Scoring goes on meanwhile.
    pub fn compact(&mut self, only_if_long: bool) -> Result<(), Failure> {
        let store = self.handle.freeze()?;
        match self.journal.as_mut() {
            Some(journal) if only_if_long && journal.is_long() => Ok(journal.compact(&store)?),
            Some(journal) if !only_if_long && journal.has_records() => Ok(journal.compact(&store)?),
            _ => Ok(()),
        }
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
}

fn recorded<T>(
    journal: Option<&mut Journal>,
    store: &mut Store,
    work: impl FnOnce(&mut Store) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match journal {
        Some(journal) => journal.during(store, work),
        None => work(store),
    }
}
