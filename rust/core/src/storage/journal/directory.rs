//! A store that lives in a directory: a snapshot, and a journal of what was done since.
//!
//! The directory is the one that was opened, held open from then on: moved to another place it is still the same store,
//! and what is at its old place is another.
//!
//! Every operation is in the journal before it is done; opening loads the snapshot and does what the journal says. A
//! compaction begins the next journal, renames a new snapshot, which names it, into place, and deletes the old one: at
//! every moment one snapshot and one journal belong together.

use std::io::{self, BufReader, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use crate::archive::Record;
use crate::base::{Log, cancel};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::storage::folder::{Folder, JOURNAL, Kind, SNAPSHOT, is_scratch};
use crate::storage::journal::frame::{Frames, Next};
use crate::storage::journal::segment::{Commit, PREAMBLE, Segment, check_preamble};
use crate::storage::lock::{Lock, generation};
use crate::storage::snapshot::file::{Loaded, read};
use crate::storage::snapshot::source::Source;
use crate::storage::snapshot::write::Snapshot;
use crate::store::Store;

/// A journal of less is not worth a new snapshot.
const MIN_LONG_BYTES: u64 = 64 << 20;

/// What an acknowledged operation survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, however it comes.
    #[default]
    Process,
    /// The end of the machine, too: the disk has said that it holds the record.
    Power,
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Operations done again from the journal.
    pub operations: u64,
    /// Bytes of an operation that was never finished, cut off the journal's end.
    pub cut: u64,
    /// Where they began, if there were any.
    pub cut_at: Option<u64>,
}

/// The writer's side of a store's directory.
pub struct Journal {
    pub(crate) folder: Folder,
    durability: Durability,
    /// `None` while it is plugged into the store.
    segment: Option<Box<Segment>>,
    pub(crate) number: u64,
    /// Size of the snapshot it goes on from, or of the journal at the last failure to write one.
    enough: u64,
    /// The process that opened it, for people, and its [`generation`].
    process: (u32, u64),
    /// Why no more is written, if the disk refused to keep something.
    lost: Option<String>,
    _lock: Lock,
}

/// A directory as it was read.
pub(crate) struct Contents {
    pub(crate) loaded: Loaded,
    /// Bytes of the snapshot.
    size: u64,
    /// Where the next record goes, and its number.
    end: (u64, u64),
    recovery: Recovery,
}

impl Journal {
    /// Opens a store for writing. With a config, one is created where there is none.
    ///
    /// # Errors
    /// [`Error::Locked`] if there is another writer, [`Error::Format`] naming what is damaged and where,
    /// [`Error::Io`], [`Error::Invalid`] for a bad config.
    pub fn open(
        directory: &Path,
        config: Option<&Config>,
        durability: Durability,
    ) -> Result<(Store, Self, Recovery)> {
        let folder = match config {
            Some(config) if !directory.join(SNAPSHOT).try_exists()? => {
                // What cannot become a store leaves no trace.
                config.validate()?;
                Folder::create(directory)?
            }
            _ => Folder::open(directory)?,
        };
        if config.is_none() && folder.status(SNAPSHOT)?.is_none() {
            return Err(Error::Io(io::ErrorKind::NotFound.into()));
        }
        let mut journal = Self::locked(folder, durability)?;
        let folder = &journal.folder;
        if let Some(config) = config
            && folder.status(SNAPSHOT)?.is_none()
        {
            for number in numbers(folder)? {
                refuse_records(folder, number, "there is no snapshot")?;
            }
            let store = Store::new(config.clone())?;
            journal.compact(&store)?;
            return Ok((store, journal, Recovery::default()));
        }
        let contents = contents(folder, None)?;
        journal.enough = contents.size;
        let store = contents.loaded.store;
        let others: Vec<u64> = numbers(folder)?
            .into_iter()
            .filter(|&number| Some(number) != contents.loaded.journal)
            .collect();
        if let Some(number) = contents.loaded.journal {
            let (at, next) = contents.end;
            let kept = durability == Durability::Power;
            for &other in &others {
                if other > number {
                    refuse_records(folder, other, "the snapshot is older than the journal")?;
                }
            }
            let segment = Segment::resume(folder, name_of(number), at, next, kept)?;
            journal.segment = Some(Box::new(segment));
            journal.number = number;
            for other in others {
                journal.folder.remove(name_of(other))?;
            }
        } else {
            // A snapshot from elsewhere was put here.
            for &other in &others {
                refuse_records(folder, other, "it goes on from another snapshot")?;
            }
            journal.number = others.last().copied().unwrap_or(0);
            journal.compact(&store)?;
        }
        Ok((store, journal, contents.recovery))
    }

    /// The writer of a directory that has nothing to go on from yet: a snapshot is to be written. What a writer before
    /// left half written is removed.
    pub(crate) fn locked(folder: Folder, durability: Durability) -> Result<Self> {
        folder.make_folder(JOURNAL)?;
        let lock = Lock::take(&folder)?;
        remove_unfinished(&folder)?;
        Ok(Self {
            folder,
            durability,
            segment: None,
            number: 0,
            enough: 0,
            process: (std::process::id(), generation()),
            lost: None,
            _lock: lock,
        })
    }

    /// Reads a store as it is at this moment, also beside a writer.
    ///
    /// # Errors
    /// As [`Journal::open`], but it is never locked.
    pub fn read(directory: &Path) -> Result<(Store, Recovery)> {
        let contents = contents(&Folder::open(directory)?, None)?;
        Ok((contents.loaded.store, contents.recovery))
    }

    /// Writes no more; where the journal ends, if the disk failed and this is the first time that it was said.
    fn stop(&mut self) -> Option<u64> {
        let segment = self.segment.as_mut()?;
        let reason = segment.failed().filter(|_| self.lost.is_none())?;
        self.lost = Some(reason);
        Some(segment.cut_to_kept())
    }

    /// A disk that failed once is not trusted again: what it holds is unknown.
    fn check_disk(&self) -> Result<()> {
        let failed = self.segment.as_ref().and_then(|segment| segment.failed());
        match self.lost.clone().or(failed) {
            None => Ok(()),
            Some(reason) => Err(Error::Io(io::Error::other(format!(
                "the disk failed to keep what was written ({reason}): the store takes no more writes until it is \
                 closed and opened again"
            )))),
        }
    }

    /// A child has no lock: two would write to one file.
    fn check_process(&self) -> Result<()> {
        let (process, generation) = self.process;
        if generation == self::generation() {
            return Ok(());
        }
        Err(Error::State(format!(
            "the store in {} was opened by process {process}, which forked this one: open it read-only here, or copy it",
            self.folder.path().display(),
        )))
    }

    /// A record in a file that was removed or replaced is not acknowledged.
    fn check_place(&self) -> Result<()> {
        match &self.segment {
            Some(segment) if !segment.is_in(&self.folder)? => {
                Err(Error::Io(io::Error::other(format!(
                    "{}: {} was removed or replaced while the store was open: it takes no more writes, and can be saved \
                     to another place",
                    self.folder.path().display(),
                    segment.name(),
                ))))
            }
            _ => Ok(()),
        }
    }
}

impl Log<Store> for Journal {
    type Ticket = Commit;
    type Error = Error;

    /// Refused after the disk failed to keep something, and in a forked child.
    fn during<T, E: From<Error>>(
        &mut self,
        store: &mut Store,
        work: impl FnOnce(&mut Store) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.check_process()?;
        self.check_disk()?;
        self.check_place()?;
        store.journal.put(self.segment.take());
        let done = catch_unwind(AssertUnwindSafe(|| work(store)));
        if done.is_err() {
            store.journal.retract();
        }
        self.segment = store.journal.take();
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn ticket(&self) -> Option<Commit> {
        match self.durability {
            Durability::Process => None,
            Durability::Power => self.segment.as_ref().map(|segment| segment.commit()),
        }
    }

    fn wait(ticket: &Commit) -> Result<()> {
        ticket.wait()
    }

    fn is_kept(ticket: &Commit) -> bool {
        ticket.is_kept()
    }

    /// What was not acknowledged is cut off the journal.
    fn give_up(&mut self) -> Result<Option<Store>> {
        match self.stop() {
            None => Ok(None),
            kept => Ok(Some(contents(&self.folder, kept)?.loaded.store)),
        }
    }

    fn has_records(&self) -> bool {
        self.segment
            .as_ref()
            .is_none_or(|segment| segment.size() > 0 || segment.is_broken())
    }

    fn is_long(&self) -> bool {
        let size = self.segment.as_ref().map_or(0, |segment| segment.size());
        size > self.enough.max(MIN_LONG_BYTES)
    }

    /// Also when the old journal cannot be written to any more. Cancelled, it leaves the old snapshot and journal.
    fn compact(&mut self, store: &Store) -> Result<()> {
        self.check_process()?;
        self.check_disk()?;
        self.check_place()?;
        // Not at once again, should it fail.
        self.enough = self
            .segment
            .as_ref()
            .map_or(0, |segment| 2 * segment.size());
        let number = self.number + 1;
        let snapshot = Snapshot::of(store, Some(number))?;
        if self.folder.status(name_of(number))?.is_some() {
            // It was begun when an earlier snapshot failed.
            refuse_records(
                &self.folder,
                number,
                "the snapshot is older than the journal",
            )?;
            self.folder.remove(name_of(number))?;
        }
        let next = (|| {
            let like = self.folder.status(name_of(self.number))?;
            let next = Segment::create(
                &self.folder,
                name_of(number),
                number,
                &snapshot.checksum,
                like.filter(|like| like.kind == Kind::File),
            )?;
            self.folder.sync(JOURNAL)?;
            snapshot.save(&self.folder, SNAPSHOT, || self.check_place())?;
            Ok(next)
        })();
        let next = match next {
            Ok(next) => next,
            Err(error) => {
                let _ = self.folder.remove(name_of(number));
                return Err(error);
            }
        };
        let old = self.segment.replace(Box::new(next));
        self.number = number;
        self.enough = snapshot.size() as u64;
        if let Err(error) = self.folder.sync(".") {
            // After a power cut the old snapshot may be there again, from which the new journal does not go on.
            self.lost = Some(error.to_string());
            return Err(error.into());
        }
        if let Some(old) = old {
            old.release();
            self.folder.remove(old.name())?;
        }
        Ok(())
    }

    fn reordered(store: &Store) -> Result<Option<Store>> {
        store.reordered()
    }

    /// A snapshot if one can be written, else what was written is brought to the disk. After the disk failed nothing is
    /// written: what was acknowledged is there.
    fn close(&mut self, store: &Store) -> Result<()> {
        if self.check_disk().is_err() {
            self.stop();
            return Ok(());
        }
        if !self.has_records() || self.check_process().is_err() {
            return Ok(());
        }
        match (self.compact(store), &self.segment) {
            (Ok(()), _) => Ok(()),
            (Err(error), None) => Err(error),
            (Err(error), Some(segment)) if segment.is_broken() || self.check_place().is_err() => {
                Err(error)
            }
            (Err(_), Some(segment)) => match self.durability {
                Durability::Process => Ok(()),
                Durability::Power => segment.commit().wait(),
            },
        }
    }
}

/// Reads a directory, its journal up to `end` if that is given; again if a writer put a new snapshot there meanwhile.
fn contents(folder: &Folder, end: Option<u64>) -> Result<Contents> {
    let mut before = None;
    loop {
        let source = Source::of(folder.read(SNAPSHOT)?)?;
        let size = source.length() as u64;
        let loaded = read(source).map_err(|error| match error {
            Error::Format { section, message } => {
                Error::format(format!("{SNAPSHOT}: {section}"), message)
            }
            error => error,
        })?;
        let checksum = loaded.checksum.clone();
        match follow(folder, loaded, size, end) {
            Err(_) if before.as_ref() != Some(&checksum) => before = Some(checksum),
            outcome => return outcome,
        }
    }
}

/// Does what the journal says, up to `end`.
fn follow(folder: &Folder, mut loaded: Loaded, size: u64, end: Option<u64>) -> Result<Contents> {
    let mut recovery = Recovery::default();
    let Some(number) = loaded.journal else {
        return Ok(Contents {
            loaded,
            size,
            end: (0, 0),
            recovery,
        });
    };
    let name = name_of(number);
    let named = |error| in_file(&name, error);
    let file = match folder.read(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(named(Error::format("journal", "the file is missing")));
        }
        file => file?,
    };
    let length = file.metadata()?.len().min(end.unwrap_or(u64::MAX));
    let mut input = BufReader::with_capacity(1 << 16, file);
    check_preamble(&mut input, number, &loaded.checksum).map_err(named)?;
    let mut frames = Frames::new(input, PREAMBLE as u64, length, 0);
    follow_frames(&mut loaded.store, &mut frames, &mut recovery).map_err(named)?;
    Ok(Contents {
        loaded,
        size,
        end: (frames.at, frames.number),
        recovery,
    })
}

fn follow_frames(
    store: &mut Store,
    frames: &mut Frames<impl Read + Seek>,
    recovery: &mut Recovery,
) -> Result<()> {
    loop {
        cancel::check()?;
        let at = frames.at;
        match frames.next()? {
            Next::Payload(payload) => {
                let done = Record::decode(&payload).and_then(|record| record.apply(store));
                match done {
                    Ok(()) => recovery.operations += 1,
                    Err(error @ (Error::Interrupted | Error::Io(_))) => return Err(error),
                    Err(error) => {
                        let what = format!("the record at byte {at} cannot be done: {error}");
                        return Err(Error::format("journal", what));
                    }
                }
            }
            Next::End => return Ok(()),
            Next::Torn => {
                recovery.cut = frames.end - at;
                recovery.cut_at = Some(at);
                return Ok(());
            }
        }
    }
}

/// Does what the records in `bytes` say: for fuzzing.
///
/// # Errors
/// As [`Journal::read`].
#[cfg(fuzzing)]
pub fn follow_records(store: &mut Store, bytes: &[u8]) -> Result<()> {
    let mut frames = Frames::new(io::Cursor::new(bytes), 0, bytes.len() as u64, 0);
    follow_frames(store, &mut frames, &mut Recovery::default())
}

fn in_file(name: &str, error: Error) -> Error {
    match error {
        Error::Format { message, .. } => Error::format(name, message),
        error => error,
    }
}

/// Refuses to go on without the records of a journal that nothing leads to.
fn refuse_records(folder: &Folder, number: u64, why: &str) -> Result<()> {
    let name = name_of(number);
    let status = folder.status(&name)?;
    if status.is_some_and(|status| status.kind == Kind::File && status.size > PREAMBLE as u64) {
        let message = format!("holds operations that would be lost: {why}");
        return Err(Error::format(name, message));
    }
    Ok(())
}

/// Removes what a writer that died left half written.
fn remove_unfinished(folder: &Folder) -> Result<()> {
    for name in folder.names(".")? {
        if name.starts_with(SNAPSHOT) && is_scratch(&name) {
            folder.remove(name)?;
        }
    }
    for name in folder.names(JOURNAL)? {
        if name.contains(".log.") && is_scratch(&name) {
            folder.remove(format!("{JOURNAL}/{name}"))?;
        }
    }
    Ok(())
}

/// What a journal is called in the store's directory.
pub(crate) fn name_of(number: u64) -> String {
    format!("{JOURNAL}/{number:08}.log")
}

/// The numbers of the journals there, rising.
pub(crate) fn numbers(folder: &Folder) -> Result<Vec<u64>> {
    let mut numbers: Vec<u64> = folder
        .names(JOURNAL)?
        .iter()
        .filter_map(|name| name.strip_suffix(".log")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}
