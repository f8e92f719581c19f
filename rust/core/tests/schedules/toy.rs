//! A store that remembers numbers, with a journal on a disk that can fail. What it does to [`Disk`] and to its files is
//! what `src/storage` does, step by step; between any two steps other threads get their turn.

#![allow(clippy::unnecessary_wraps)] // what a store does can fail

use std::io;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Arc, Mutex, MutexGuard};
use shuttle::thread::yield_now;

use crate::group_commit::{Device, Disk};
use crate::log::Log as Logs;
use crate::rwlock::Denied;

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Refused {
    Denied(Denied),
    Disk(io::Error),
    Asked,
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// Numbers, and how many they are: unequal only in the middle of a write.
#[derive(Default)]
pub(crate) struct Toy {
    numbers: Vec<u32>,
    count: usize,
    plug: Option<Segment>,
}

impl Clone for Toy {
    /// A copy, made in two steps.
    fn clone(&self) -> Self {
        let numbers = self.numbers.clone();
        yield_now();
        assert_eq!(numbers.len(), self.count, "a write was copied half done");
        Self {
            count: numbers.len(),
            numbers,
            plug: None,
        }
    }
}

impl Toy {
    /// Another one, with one number more.
    pub(crate) fn with(&self, x: u32) -> Result<Self, Refused> {
        let mut other = self.clone();
        other.numbers.push(x);
        other.count += 1;
        Ok(other)
    }

    /// Records that it was made.
    pub(crate) fn record(&mut self, x: u32) -> Result<(), Refused> {
        if let Some(segment) = &mut self.plug {
            segment.append(x);
        }
        Ok(())
    }

    /// What it holds.
    pub(crate) fn whole(&self) -> Vec<u32> {
        let numbers = self.numbers.clone();
        yield_now();
        assert_eq!(numbers.len(), self.count, "a write was seen half done");
        numbers
    }

    pub(crate) fn add(&mut self, x: u32) -> Result<(), Refused> {
        if let Some(segment) = &mut self.plug {
            segment.append(x);
        }
        self.numbers.push(x);
        yield_now();
        self.count += 1;
        Ok(())
    }

    /// Recorded, and then it turns out that it cannot be done.
    pub(crate) fn fail(&mut self, x: u32) -> Result<(), Refused> {
        if let Some(segment) = &mut self.plug {
            segment.append(x);
            yield_now();
            segment.retract();
        }
        Err(Refused::Asked)
    }

    pub(crate) fn break_off(&mut self) -> Result<(), Refused> {
        if let Some(segment) = &mut self.plug {
            segment.append(7);
        }
        self.numbers.push(7);
        panic!("asked to");
    }
}

/// A journal file: as the system has it, and as the disk has it.
#[derive(Default)]
pub(crate) struct Tape {
    written: Mutex<Vec<u32>>,
    disk: Mutex<Vec<u32>>,
}

/// The directory.
#[derive(Default)]
pub(crate) struct Shelf {
    files: Mutex<Files>,
    broken: Mutex<bool>,
}

/// A snapshot and the journal that goes on from it.
#[derive(Clone, Default)]
struct Files {
    snapshot: Vec<u32>,
    tape: Arc<Tape>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Shelf {
    /// What is there when only the disk is asked.
    pub(crate) fn after_a_power_cut(&self) -> Vec<u32> {
        let files = locked(&self.files);
        let kept = locked(&files.tape.disk).clone();
        [files.snapshot.clone(), kept].concat()
    }

    /// What is there when the system is asked.
    pub(crate) fn after_a_restart(&self) -> Vec<u32> {
        let files = locked(&self.files);
        let written = locked(&files.tape.written).clone();
        [files.snapshot.clone(), written].concat()
    }

    /// From now on the disk keeps nothing.
    pub(crate) fn break_down(&self) {
        *locked(&self.broken) = true;
    }
}

/// What a disk needs: few or many turns of the others.
fn take_time() {
    for _ in 0..thread_rng().gen_range(0..16) {
        yield_now();
    }
}

/// A tape on a shelf.
pub(crate) struct Reel {
    tape: Arc<Tape>,
    shelf: Arc<Shelf>,
}

impl Device for Reel {
    fn keep(&self) -> io::Result<()> {
        let now = locked(&self.tape.written).clone();
        take_time();
        if *locked(&self.shelf.broken) {
            return Err(io::Error::other("it is broken"));
        }
        *locked(&self.tape.disk) = now;
        yield_now();
        Ok(())
    }
}

/// What is wrong with a journal, for tests that must find it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    ForgetsWhatItTookBack,
    LetsGoTooEarly,
}

struct Segment {
    tape: Arc<Tape>,
    disk: Arc<Disk<Reel>>,
    fault: Fault,
}

impl Segment {
    fn on(shelf: &Arc<Shelf>, tape: Arc<Tape>, fault: Fault) -> Self {
        let reel = Reel {
            tape: Arc::clone(&tape),
            shelf: Arc::clone(shelf),
        };
        Self {
            tape,
            disk: Arc::new(Disk::new(reel, 0, 0)),
            fault,
        }
    }

    fn len(&self) -> u64 {
        locked(&self.tape.written).len() as u64
    }

    fn append(&mut self, x: u32) {
        locked(&self.tape.written).push(x);
        yield_now();
        self.disk.wrote(self.len());
    }

    fn retract(&mut self) {
        locked(&self.tape.written).pop();
        yield_now();
        if self.fault == Fault::ForgetsWhatItTookBack {
            self.disk.wrote(self.len());
        } else {
            self.disk.took_back(self.len());
        }
    }
}

/// The journal of a shelf.
pub(crate) struct Log {
    shelf: Arc<Shelf>,
    segment: Option<Segment>,
    lost: bool,
    fault: Fault,
}

impl Log {
    pub(crate) fn on(shelf: &Arc<Shelf>, fault: Fault) -> Self {
        let tape = Arc::clone(&locked(&shelf.files).tape);
        Self {
            shelf: Arc::clone(shelf),
            segment: Some(Segment::on(shelf, tape, fault)),
            lost: false,
            fault,
        }
    }

    fn segment(&self) -> &Segment {
        self.segment
            .as_ref()
            .expect("it is plugged in only while something is done")
    }

    fn check_disk(&self) -> io::Result<()> {
        if self.lost || self.segment().disk.failed().is_some() {
            return Err(io::Error::other("the disk failed"));
        }
        Ok(())
    }

    /// Where the journal ends, if the disk failed and this is the first time that it was said.
    fn stop(&mut self) -> Option<usize> {
        if self.lost || self.segment().disk.failed().is_none() {
            return None;
        }
        self.lost = true;
        let kept = self.segment().disk.kept() as usize;
        locked(&self.segment().tape.written).truncate(kept);
        Some(kept)
    }
}

impl Logs<Toy> for Log {
    type Ticket = (u64, Arc<Disk<Reel>>);
    type Error = io::Error;

    fn during<T, E: From<io::Error>>(
        &mut self,
        store: &mut Toy,
        work: impl FnOnce(&mut Toy) -> Result<T, E>,
    ) -> Result<T, E> {
        self.check_disk()?;
        store.plug = self.segment.take();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(store)));
        self.segment = store.plug.take();
        done.unwrap_or_else(|panic| {
            self.segment.as_mut().expect("it was plugged in").retract();
            std::panic::resume_unwind(panic)
        })
    }

    fn ticket(&self) -> Option<Self::Ticket> {
        let segment = self.segment();
        Some((segment.len(), Arc::clone(&segment.disk)))
    }

    fn wait((to, disk): &Self::Ticket) -> io::Result<()> {
        disk.wait(*to)
    }

    fn is_kept((to, disk): &Self::Ticket) -> bool {
        disk.kept() >= *to
    }

    fn give_up(&mut self) -> io::Result<Option<Toy>> {
        Ok(self.stop().map(|_| {
            let numbers = self.shelf.after_a_restart();
            Toy {
                count: numbers.len(),
                numbers,
                plug: None,
            }
        }))
    }

    fn has_records(&self) -> bool {
        self.segment().len() > 0
    }

    fn is_long(&self) -> bool {
        false
    }

    fn reordered(store: &Toy) -> io::Result<Option<Toy>> {
        Ok(Some(store.clone()))
    }

    fn compact(&mut self, store: &Toy) -> io::Result<()> {
        self.check_disk()?;
        let files = Files {
            snapshot: store.whole(),
            tape: Arc::default(),
        };
        let next = Segment::on(&self.shelf, Arc::clone(&files.tape), self.fault);
        if self.fault == Fault::LetsGoTooEarly {
            self.segment().disk.release();
        }
        take_time();
        if *locked(&self.shelf.broken) {
            return Err(io::Error::other("it is broken"));
        }
        *locked(&self.shelf.files) = files;
        yield_now();
        if let Some(old) = self.segment.replace(next) {
            old.disk.release();
        }
        Ok(())
    }

    fn close(&mut self, store: &Toy) -> io::Result<()> {
        if self.check_disk().is_err() {
            self.stop();
            return Ok(());
        }
        if self.has_records() {
            self.compact(store)?;
        }
        Ok(())
    }
}
