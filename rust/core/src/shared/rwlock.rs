//! The lock around a store: many readers or one writer, and frozen moments that need no lock.
//!
//! Every method here may block. Those that may block for long look at the token of the call ([`Cancel`]) meanwhile, and give
//! up with [`Denied::Interrupted`]. Looking may run a signal handler, which may use the same store: what would wait for its
//! own thread is [`Denied::Busy`].

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process;
use std::time::Duration;

use super::held_locks::{HeldLock, LockKind, holds};
use super::log::Log;
use super::sync::{
    Arc, AtomicBool, AtomicU32, AtomicU64, Cancel, Mutex, MutexGuard, Ordering, RwLock, lock,
    pause, read, unlock_fair,
};

/// Attempts to replace a store by the same one laid out anew, before that is given up because of readers.
const EXCHANGE_ATTEMPTS: usize = 50;

/// Why a shared store is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It was closed.
    Closed,
    /// It can only be read.
    ReadOnly,
    /// A write panicked, so there is no store any more.
    Poisoned,
    /// Another thread held it when this process was forked from its parent.
    Forked,
    /// This thread is in the middle of a call on it.
    Busy,
    /// The caller gave up.
    Interrupted,
}

/// A store that may be shared, frozen and closed; its calls fail with `E`.
pub struct Shared<S, L, E> {
    /// Held by the one that writes, for the whole of its call; with the journal of a store that lives in a directory.
    writer: Mutex<Option<L>>,
    /// Held to read, and to write for one slice of a call; fair, so neither starves the other. `None` once closed.
    current: RwLock<Option<Arc<S>>>,
    /// How often it was written to.
    writes: AtomicU64,
    readonly: bool,
    /// Whether a write panicked: what it left is no store.
    poisoned: AtomicBool,
    /// The process that the locks belong to: after a fork, the threads that held them are gone.
    process: AtomicU32,
    error: PhantomData<fn() -> E>,
}

impl<S: Clone, L: Log<S>, E: From<Denied> + From<L::Error>> Shared<S, L, E> {
    /// A store in memory.
    pub fn new(store: Arc<S>) -> Self {
        Self::around(store, None, false)
    }

    /// A store in a directory: read only if there is no journal.
    pub fn opened(store: S, log: Option<L>) -> Self {
        let readonly = log.is_none();
        Self::around(Arc::new(store), log, readonly)
    }

    fn around(store: Arc<S>, log: Option<L>, readonly: bool) -> Self {
        Self {
            writer: Mutex::new(log),
            current: RwLock::new(Some(store)),
            writes: AtomicU64::new(0),
            readonly,
            poisoned: AtomicBool::new(false),
            process: AtomicU32::new(process::id()),
            error: PhantomData,
        }
    }

    /// What this thread holds of it is noted under this number.
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn holds(&self, what: LockKind) -> bool {
        holds(self.address(), what)
    }

    /// Reads the store, beside other readers.
    ///
    /// # Errors
    /// As `work`; [`Denied`].
    pub fn read<T>(&self, work: impl FnOnce(&S) -> Result<T, E>) -> Result<T, E> {
        self.read_unless(&Cancel::current(), work)
    }

    fn read_unless<T>(
        &self,
        cancel: &Cancel,
        work: impl FnOnce(&S) -> Result<T, E>,
    ) -> Result<T, E> {
        self.survive_fork()?;
        if self.holds(LockKind::Writing) {
            return Err(Denied::Busy.into());
        }
        let current = read(&self.current, self.holds(LockKind::Reading), cancel);
        let current = current.ok_or(Denied::Interrupted)?;
        let _reading = HeldLock::record(self.address(), LockKind::Reading);
        work(current.as_deref().ok_or_else(|| self.unavailable())?)
    }

    /// Does what writes, as the one writer, waiting for its turn; returns once it is as durable as was asked for.
    ///
    /// # Errors
    /// As `work`; [`Denied`]; as [`Log::wait`]: what was done is undone then.
    pub fn writing<T>(
        &self,
        work: impl FnOnce(&mut Writer<'_, S, L, E>) -> Result<T, E>,
    ) -> Result<T, E> {
        if self.readonly {
            return Err(Denied::ReadOnly.into());
        }
        self.deriving(work)
    }

    /// [`Shared::writing`], for what changes nothing that is kept: also where the store can only be read.
    ///
    /// # Errors
    /// As [`Shared::writing`].
    pub fn deriving<T>(
        &self,
        work: impl FnOnce(&mut Writer<'_, S, L, E>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.survive_fork()?;
        let mut writer = Writer {
            shared: self,
            log: self.turn()?,
            _turn: HeldLock::record(self.address(), LockKind::Turn),
        };
        let done = work(&mut writer)?;
        let ticket = writer.log.as_ref().and_then(L::ticket);
        // Others write while this call waits for the disk, which takes what all of them wrote at once.
        drop(writer);
        if let Some(ticket) = ticket
            && let Err(error) = L::wait(&ticket)
        {
            self.fall_back(&ticket, error)?;
        }
        Ok(done)
    }

    /// Waits to be the writer.
    fn turn(&self) -> Result<MutexGuard<'_, Option<L>>, E> {
        if self.holds(LockKind::Turn) || self.holds(LockKind::Reading) {
            return Err(Denied::Busy.into());
        }
        Ok(lock(&self.writer, &Cancel::current()).ok_or(Denied::Interrupted)?)
    }

    /// What was done was not kept: puts the store in place that everything acknowledged makes. It takes no more writes.
    fn fall_back(&self, ticket: &L::Ticket, error: L::Error) -> Result<(), E> {
        let mut log = self.writer.lock();
        // A snapshot may have been finished meanwhile.
        if L::is_kept(ticket) {
            return Ok(());
        }
        match log.as_mut().map(L::give_up) {
            None | Some(Ok(None)) => {}
            Some(Ok(Some(acknowledged))) => self.put(Arc::new(acknowledged)),
            Some(Err(_)) => {
                self.poisoned.store(true, Ordering::Release);
                self.current.write().take();
            }
        }
        Err(error.into())
    }

    /// Puts another store in the place of this one.
    fn put(&self, store: Arc<S>) {
        let old = self.current.write().replace(store);
        self.writes.fetch_add(1, Ordering::Release);
        // Freeing much memory takes its time, which no reader need wait for: the lock is free by now.
        drop(old);
    }

    /// Puts the same store, laid out anew, in the place of the other, if there is no reader at the moment: it can be done another
    /// time, and no reader waits for it.
    fn exchange(&self, same: Arc<S>) {
        for _ in 0..EXCHANGE_ATTEMPTS {
            if let Some(mut current) = self.current.try_write() {
                let old = current.replace(same);
                drop(current);
                drop(old);
                return;
            }
            pause();
        }
    }

    /// The store as it is now, untouched by what is written later: the next write copies it.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn freeze(&self) -> Result<Arc<S>, E> {
        self.survive_fork()?;
        if self.holds(LockKind::Writing) {
            return Err(Denied::Busy.into());
        }
        let current = read(
            &self.current,
            self.holds(LockKind::Reading),
            &Cancel::never(),
        );
        let store = current.and_then(|current| current.clone());
        store.ok_or_else(|| self.unavailable())
    }

    /// Whether the store was let go of.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn is_closed(&self) -> Result<bool, E> {
        match self.freeze() {
            Ok(_) => Ok(false),
            Err(_) if self.survive_fork().is_ok() && !self.holds(LockKind::Writing) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The number of writes since it was made. A copy is out of date if this differs.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// Whether it can only be read.
    pub fn is_readonly(&self) -> bool {
        self.readonly
    }

    /// Lets go of the store. One in a directory writes a snapshot if there is anything new.
    ///
    /// # Errors
    /// As [`Log::close`]: it is still open then; [`Denied`].
    pub fn close(&self) -> Result<(), E> {
        self.survive_fork()?;
        let mut log = self.turn()?;
        if let (Some(log), Ok(store)) = (log.as_mut(), self.freeze()) {
            log.close(&store)?;
        }
        let old = self.current.write().take();
        drop(old);
        log.take();
        Ok(())
    }

    fn unavailable(&self) -> E {
        if self.poisoned.load(Ordering::Acquire) {
            Denied::Poisoned.into()
        } else {
            Denied::Closed.into()
        }
    }

    /// After a fork, makes sure that no thread of the parent left the locks taken: they would never be freed.
    fn survive_fork(&self) -> Result<(), E> {
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
        Err(Denied::Forked.into())
    }
}

/// The one that writes. Between two of its writes, readers get their turn.
pub struct Writer<'a, S, L, E> {
    shared: &'a Shared<S, L, E>,
    log: MutexGuard<'a, Option<L>>,
    _turn: HeldLock,
}

impl<S: Clone, L: Log<S>, E: From<Denied> + From<L::Error>> Writer<'_, S, L, E> {
    /// Reads the store, which no other thread can change meanwhile.
    ///
    /// # Errors
    /// As `work`; [`Denied`].
    pub fn read<T>(&self, work: impl FnOnce(&S) -> Result<T, E>) -> Result<T, E> {
        self.shared.read_unless(&Cancel::never(), work)
    }

    /// Changes the store while no one reads it: for short work, or one slice of long work.
    ///
    /// A panic in the middle leaves a store that can no longer be used.
    ///
    /// # Errors
    /// As `work`; [`Denied`].
    pub fn write<T>(&mut self, work: impl FnOnce(&mut S) -> Result<T, E>) -> Result<T, E> {
        let shared = self.shared;
        self.detach_from_frozen()?;
        let mut current = shared.current.write();
        let _writing = HeldLock::record(shared.address(), LockKind::Writing);
        let live = current.as_mut().ok_or_else(|| shared.unavailable())?;
        // Frozen a moment ago: that is seldom, so readers wait for this copy.
        let store = Arc::make_mut(live);
        shared.writes.fetch_add(1, Ordering::Release);
        let log = self.log.as_mut();
        let done = catch_unwind(AssertUnwindSafe(|| recorded(log, store, work)));
        if done.is_err() {
            shared.poisoned.store(true, Ordering::Release);
            current.take();
            self.log.take();
        }
        // Waiting threads go first: the next slice must not overtake them.
        unlock_fair(current);
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Makes another store of it while others read it as it was, records that, and puts the other in its place.
    ///
    /// For long work that cannot be sliced. Work that fails leaves no trace.
    ///
    /// # Errors
    /// As `make` and `record`; [`Denied`].
    pub fn rewrite(
        &mut self,
        make: impl FnOnce(&S) -> Result<S, E>,
        record: impl FnOnce(&mut S) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut next = self.read(make)?;
        recorded(self.log.as_mut(), &mut next, record)?;
        self.shared.put(Arc::new(next));
        Ok(())
    }

    /// Puts another store in the place of this one, in its directory too.
    ///
    /// # Errors
    /// As [`Log::compact`] and [`Log::reordered`].
    pub fn become_other(&mut self, other: Arc<S>) -> Result<(), E> {
        match self.log.as_mut() {
            Some(log) => {
                let other = L::reordered(&other)?.map_or(other, Arc::new);
                log.compact(&other)?;
                self.shared.put(other);
            }
            None => self.shared.put(other),
        }
        Ok(())
    }

    /// Writes a snapshot of a store in a directory, if there is anything new or, on request, only if there is much; then
    /// lays the store out anew, if that is worth it. Scoring goes on meanwhile; other writers wait.
    ///
    /// # Errors
    /// As [`Log::compact`] and [`Log::reordered`].
    pub fn compact(&mut self, only_if_long: bool) -> Result<(), E> {
        let store = self.shared.freeze()?;
        match self.log.as_mut() {
            Some(log) if only_if_long && log.is_long() => log.compact(&store)?,
            Some(log) if !only_if_long && log.has_records() => log.compact(&store)?,
            _ => return Ok(()),
        }
        if let Some(reordered) = L::reordered(&store)? {
            drop(store);
            self.shared.exchange(Arc::new(reordered));
        }
        Ok(())
    }

    /// Copies a store that a frozen view shares, so that readers do not wait for the copy under the lock.
    fn detach_from_frozen(&self) -> Result<(), E> {
        let shared = self.shared.freeze()?;
        // The live store and `shared` itself are two.
        if Arc::strong_count(&shared) > 2 {
            let own = Arc::new(S::clone(&shared));
            *self.shared.current.write() = Some(own);
        }
        Ok(())
    }
}

fn recorded<S, T, L: Log<S>, E: From<L::Error>>(
    log: Option<&mut L>,
    store: &mut S,
    work: impl FnOnce(&mut S) -> Result<T, E>,
) -> Result<T, E> {
    match log {
        Some(log) => log.during(store, work),
        None => work(store),
    }
}
