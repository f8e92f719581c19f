//! The lock of a store's directory: one writer at a time.
//!
//! The operating system keeps it (`flock`) and releases it when the process ends, also across containers. What the file
//! says of the holder is for people.
//!
//! A forked child inherits what its parent has open, and locks live as long as anybody has them open. A child does not
//! write, so it closes them at once: the parent's death frees them.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::storage::folder::{FileStatus, Folder, JOURNAL};

/// In the store's directory.
const LOCK: &str = "lock";

/// The right to write.
pub(crate) struct Lock {
    number: u64,
}

/// The holder of a lock, as its file says.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    process: u32,
    machine: String,
}

/// What is locked.
struct Locked {
    number: u64,
    identity: (u64, u64),
    /// Closed when the lock is let go of, or in a child.
    _files: Vec<File>,
}

/// The locks of this process.
static LOCKS: Mutex<Vec<Locked>> = Mutex::new(Vec::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

fn locks() -> MutexGuard<'static, Vec<Locked>> {
    // Nothing that panics is done with them.
    LOCKS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lock {
    /// Becomes the writer of a directory.
    pub(crate) fn take(folder: &Folder) -> Result<Self> {
        fork::watch()?;
        let mut locks = locks();
        let mut file = folder.write_or_make(LOCK)?;
        let identity = FileStatus::of(&file)?.identity;
        let locked = |file: &mut File| {
            let mut text = String::new();
            let holder: Option<Holder> = file
                .read_to_string(&mut text)
                .ok()
                .and_then(|_| serde_json::from_str(&text).ok());
            let here = locks.iter().any(|held| held.identity == identity);
            let (process, machine) = match holder {
                _ if here => (Some(std::process::id()), None),
                // A process of another container may have the number of this one.
                Some(holder) if holder.machine == machine() => (
                    Some(holder.process).filter(|&process| process != std::process::id()),
                    None,
                ),
                Some(holder) => (Some(holder.process), Some(holder.machine)),
                None => (None, None),
            };
            Error::Locked {
                path: folder.path().to_owned(),
                process,
                machine,
            }
        };
        if !lock(&file)? {
            return Err(locked(&mut file));
        }
        let mut files = Vec::new();
        // The lock file may be removed by mistake, as a leftover. The directory stays.
        match folder.within(JOURNAL).map(|within| (lock(&within), within)) {
            Ok((Ok(true), within)) => files.push(within),
            Ok((Ok(false), _)) => return Err(locked(&mut file)),
            // Not every file system locks directories.
            _ => {}
        }
        let holder = Holder {
            process: std::process::id(),
            machine: machine(),
        };
        let holder = serde_json::to_string(&holder)
            .map_err(|error| Error::format("lock", error.to_string()))?;
        // A full disk has no room for what is but said to people.
        let _ = file
            .set_len(0)
            .and_then(|()| file.write_all(holder.as_bytes()));
        files.push(file);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        locks.push(Locked {
            number,
            identity,
            _files: files,
        });
        Ok(Self { number })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        locks().retain(|locked| locked.number != self.number);
    }
}

/// Whether it can be had.
fn lock(file: &File) -> std::io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn machine() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// How many forks this process is away from the first that had a lock: another number than the parent's, whatever numbers
/// processes are given.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// What is done about a fork.
mod fork {
    use std::cell::RefCell;
    use std::io;
    use std::sync::OnceLock;

    use super::{GENERATION, Locked, MutexGuard, Ordering, locks};

    thread_local! {
        /// Of the thread that forks, while it does.
        static TURN: RefCell<Option<MutexGuard<'static, Vec<Locked>>>> = const { RefCell::new(None) };
    }

    /// Sees to it that children let go of locks.
    pub(super) fn watch() -> io::Result<()> {
        static WATCHED: OnceLock<i32> = OnceLock::new();
        let outcome = *WATCHED.get_or_init(|| {
            // SAFETY: the functions live as long as the program, and what they do in a child of a program with threads is
            // allowed there: they close files and store numbers.
            unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) }
        });
        match outcome {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// No lock is being taken while the process is copied: the child would have it, and not know.
    extern "C" fn before() {
        let turn = locks();
        let _ = TURN.try_with(|held| held.replace(Some(turn)));
    }

    extern "C" fn in_parent() {
        let _ = TURN.try_with(RefCell::take);
    }

    extern "C" fn in_child() {
        GENERATION.fetch_add(1, Ordering::Release);
        let _ = TURN.try_with(|held| held.take().map(|mut locks| locks.clear()));
    }
}
