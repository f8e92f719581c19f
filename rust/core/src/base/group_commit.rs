//! Group commit: one sync of the disk for all calls that wait for one.

use std::io;

use super::sync::{Condvar, Mutex, wait};

/// What can be told to keep what was written to it.
pub trait Device {
    /// Returns when all that was written before the call is kept.
    /// If it fails, what is kept is unknown.
    fn keep(&self) -> io::Result<()>;
}

impl Device for std::fs::File {
    fn keep(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A file of records, and how much of it the disk has for certain.
pub struct Disk<D> {
    device: D,
    state: Mutex<State>,
    turn: Condvar,
}

struct State {
    /// Where the last record ends.
    written: u64,
    /// Up to where it is on the disk.
    kept: u64,
    /// Up to where somebody is syncing it there.
    syncing: Option<u64>,
    failed: Option<String>,
}

impl<D: Device> Disk<D> {
    /// A file of `written` bytes, of which the disk has `kept`.
    pub fn new(device: D, written: u64, kept: u64) -> Self {
        Self {
            device,
            state: Mutex::new(State {
                written,
                kept,
                syncing: None,
                failed: None,
            }),
            turn: Condvar::new(),
        }
    }

    /// A record was written that ends there.
    pub fn wrote(&self, to: u64) {
        self.state.lock().written = to;
    }

    /// What was written from there on was taken back. What comes in its place has to be synced to the disk anew, also
    /// if the old is there or is being synced there at this moment.
    pub fn took_back(&self, from: u64) {
        let mut state = self.state.lock();
        state.written = from;
        state.kept = state.kept.min(from);
        state.syncing = state.syncing.map(|to| to.min(from));
    }

    /// Why the disk refused, if it did: it is not asked again.
    pub fn failed(&self) -> Option<String> {
        self.state.lock().failed.clone()
    }

    /// Up to where the disk has it.
    pub fn kept(&self) -> u64 {
        self.state.lock().kept
    }

    /// Ends all waiting: another file holds the records.
    pub fn release(&self) {
        let mut state = self.state.lock();
        state.kept = u64::MAX;
        state.failed = None;
        drop(state);
        self.turn.notify_all();
    }

    /// Returns when the disk has what was written up to there. Of many that wait, one asks the system, for all that was
    /// written by then.
    ///
    /// # Errors
    /// As the system gives it to the one that asked, and with its reason for the others. What the disk holds beyond
    /// [`Disk::kept`] is unknown then.
    pub fn wait(&self, to: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        loop {
            if state.kept >= to {
                return Ok(());
            }
            if let Some(reason) = &state.failed {
                return Err(io::Error::other(format!("the disk failed: {reason}")));
            }
            if state.syncing.is_some() {
                state = wait(&self.turn, state);
                continue;
            }
            state.syncing = Some(state.written);
            drop(state);
            let outcome = self.device.keep();
            state = self.state.lock();
            let synced = state.syncing.take().unwrap_or(0);
            self.turn.notify_all();
            match outcome {
                Ok(()) => state.kept = state.kept.max(synced),
                // Another file has it meanwhile.
                Err(_) if state.kept >= to => {}
                Err(error) => {
                    state.failed = Some(error.to_string());
                    return Err(error);
                }
            }
        }
    }
}
