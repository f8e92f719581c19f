//! The lock of a store's directory: one writer at a time.
//!
//! The operating system keeps it (`flock`) and lets go of it when the writer dies. It may live on in a child that the
//! writer forked; such a child cannot write, so a lock whose writer is dead is taken over.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// In the store's directory.
const LOCK: &str = "lock";

/// Whoever holds it may write.
pub(crate) struct Lock {
    _file: File,
}

/// Who holds a lock.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Holder {
    process: u32,
    /// When the process began, as the system counts: a number may be given to another process later.
    began: Option<u64>,
    machine: String,
}

impl Holder {
    fn this_process() -> Self {
        Self {
            process: std::process::id(),
            began: began(std::process::id()),
            machine: machine(),
        }
    }

    /// Whether it is known that the process is gone.
    fn is_dead(&self) -> bool {
        self.machine == machine()
            && (!exists(self.process)
                || (self.began.is_some() && began(self.process) != self.began))
    }
}

impl Lock {
    /// Becomes the writer of a directory.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process, or another handle of this one, is; [`Error::Io`].
    pub(crate) fn take(directory: &Path) -> Result<Self> {
        let path = directory.join(LOCK);
        // Taking turns, so that no two take over the same dead writer's lock.
        let door = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join("lock.door"))?;
        door.lock()?;
        let mut file = open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(error.into()),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                let holder: Option<Holder> = serde_json::from_str(&text).ok();
                if !holder.as_ref().is_some_and(Holder::is_dead) {
                    return Err(Error::Locked {
                        path: directory.to_owned(),
                        process: holder.map(|holder| holder.process),
                    });
                }
                std::fs::remove_file(&path)?;
                file = open(&path)?;
                file.try_lock().map_err(std::io::Error::from)?;
            }
        }
        file.set_len(0)?;
        let holder = serde_json::to_string(&Holder::this_process())
            .map_err(|error| Error::format("lock", error.to_string()))?;
        file.write_all(holder.as_bytes())?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
}

#[cfg(unix)]
fn exists(process: u32) -> bool {
    use rustix::io::Errno;
    use rustix::process::{Pid, test_kill_process};
    i32::try_from(process)
        .ok()
        .and_then(Pid::from_raw)
        .is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

#[cfg(not(unix))]
fn exists(_: u32) -> bool {
    true
}

#[cfg(unix)]
fn machine() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

#[cfg(not(unix))]
fn machine() -> String {
    String::new()
}

/// When a process began, where the system tells.
fn began(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may hold anything, so the fields are counted from behind it; the 22nd is the start.
    text.rsplit_once(')')?.1.split(' ').nth(20)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_not_dead_and_a_gone_one_is() {
        let holder = Holder::this_process();
        assert!(!holder.is_dead());
        if holder.began.is_some() {
            let later = Holder {
                began: holder.began.map(|at| at + 1),
                ..Holder::this_process()
            };
            assert!(later.is_dead(), "the number was given away again");
        }
        let elsewhere = Holder {
            process: u32::MAX,
            machine: "another".into(),
            ..Holder::this_process()
        };
        assert!(!elsewhere.is_dead(), "nobody can know");
    }
}
