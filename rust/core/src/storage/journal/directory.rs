//! A store that lives in a directory: a snapshot, and a journal of what was done since.
//!
//! Every operation is in the journal before it is done; opening loads the snapshot and does what the journal says. A
//! compaction begins the next journal, renames a new snapshot, which names it, into place, and deletes the old one: at
//! every moment one snapshot and one journal belong together.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use crate::archive::Record;
use crate::base::cancel;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::storage::journal::frame::{Frames, Next};
use crate::storage::journal::segment::{Commit, PREAMBLE, Segment, check_preamble};
use crate::storage::lock::Lock;
use crate::storage::snapshot::file::{Loaded, read};
use crate::storage::snapshot::source::Source;
use crate::storage::snapshot::write::{Snapshot, sync_directory};
use crate::store::Store;

pub(crate) const SNAPSHOT: &str = "snapshot.safetensors";
pub(crate) const JOURNAL: &str = "journal";

/// A journal of less is not worth a new snapshot.
const SMALL: u64 = 64 << 20;

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
    directory: PathBuf,
    durability: Durability,
    /// `None` while it is plugged into the store.
    segment: Option<Box<Segment>>,
    number: u64,
    /// Size of the snapshot it goes on from, or of the journal at the last failure to write one.
    enough: u64,
    process: u32,
    /// Why no more is written, if the disk refused to keep something.
    lost: Option<String>,
    _lock: Lock,
}

/// A directory as it was read.
pub(crate) struct Contents {
    pub(crate) loaded: Loaded,
    /// The journal that belongs to the snapshot, if it was made in a directory.
    journal: Option<PathBuf>,
    /// Where the next record goes, and its number.
    end: (u64, u64),
    recovery: Recovery,
}

impl Journal {
    /// Opens a store for writing. With a config, one is created where there is none.
    ///
    /// # Errors
    /// [`Error::Locked`] if somebody else writes to it, [`Error::Format`] naming what is damaged and where,
    /// [`Error::Io`], [`Error::Invalid`] for a bad config.
    pub fn open(
        directory: &Path,
        config: Option<&Config>,
        durability: Durability,
    ) -> Result<(Store, Self, Recovery)> {
        let snapshot = directory.join(SNAPSHOT);
        let journals = directory.join(JOURNAL);
        if !snapshot.try_exists()? {
            // What cannot become a store leaves no trace.
            let config = config.ok_or(Error::Io(io::ErrorKind::NotFound.into()))?;
            config.validate()?;
        }
        fs::create_dir_all(&journals)?;
        let mut journal = Self {
            directory: directory.to_owned(),
            durability,
            segment: None,
            number: 0,
            enough: 0,
            process: std::process::id(),
            lost: None,
            _lock: Lock::take(directory)?,
        };
        if let Some(config) = config
            && !snapshot.try_exists()?
        {
            for number in numbers(&journals)? {
                refuse_records(&path_of(&journals, number), "there is no snapshot")?;
            }
            let store = Store::new(config.clone())?;
            journal.compact(&store)?;
            return Ok((store, journal, Recovery::default()));
        }
        sweep(directory)?;
        let contents = contents(directory, None)?;
        journal.enough = fs::metadata(&snapshot)?.len();
        let store = contents.loaded.store;
        let others: Vec<u64> = numbers(&journals)?
            .into_iter()
            .filter(|&number| Some(number) != contents.loaded.journal)
            .collect();
        if let (Some(path), Some(number)) = (&contents.journal, contents.loaded.journal) {
            let (at, next) = contents.end;
            let kept = durability == Durability::Power;
            journal.segment = Some(Box::new(Segment::resume(path, at, next, kept)?));
            journal.number = number;
            for other in others {
                let path = path_of(&journals, other);
                if other > number {
                    refuse_records(&path, "the snapshot is older than the journal")?;
                }
                fs::remove_file(path)?;
            }
        } else {
            // A snapshot from elsewhere was put here.
            for &other in &others {
                let path = path_of(&journals, other);
                refuse_records(&path, "it goes on from another snapshot")?;
            }
            journal.number = others.last().copied().unwrap_or(0);
            journal.compact(&store)?;
        }
        Ok((store, journal, contents.recovery))
    }

    /// Reads a store as it is at this moment, also beside a writer.
    ///
    /// # Errors
    /// As [`Journal::open`], but it is never locked.
    pub fn read(directory: &Path) -> Result<(Store, Recovery)> {
        let contents = contents(directory, None)?;
        Ok((contents.loaded.store, contents.recovery))
    }

    /// Does some work on the store, whose operations are recorded first. The record of one that fails is taken back.
    ///
    /// # Errors
    /// As `work`; [`Error::Io`] if the journal cannot be written to, or the disk failed to keep something before;
    /// [`Error::State`] in a forked child.
    pub fn during<T, E: From<Error>>(
        &mut self,
        store: &mut Store,
        work: impl FnOnce(&mut Store) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.check_process()?;
        self.check_disk()?;
        store.journal.put(self.segment.take());
        let done = catch_unwind(AssertUnwindSafe(|| work(store)));
        if done.is_err() {
            store.journal.retract();
        }
        self.segment = store.journal.take();
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// What to wait for before an operation is acknowledged.
    #[must_use]
    pub fn commit(&self) -> Option<Commit> {
        match self.durability {
            Durability::Process => None,
            Durability::Power => self.segment.as_ref().map(|segment| segment.commit()),
        }
    }

    /// Whether anything was recorded since the snapshot.
    #[must_use]
    pub fn has_records(&self) -> bool {
        self.segment
            .as_ref()
            .is_none_or(|segment| segment.size() > 0 || segment.is_broken())
    }

    /// Whether the journal has become long enough to be worth a new snapshot.
    #[must_use]
    pub fn is_long(&self) -> bool {
        let size = self.segment.as_ref().map_or(0, |segment| segment.size());
        size > self.enough.max(SMALL)
    }

    /// Writes a new snapshot and begins a new journal, also when the old one cannot be written to any more.
    ///
    /// # Errors
    /// [`Error::Io`] as the system gives it, [`Error::Interrupted`] if the call is cancelled ([`crate::Cancel`]); the old snapshot
    /// and the old journal are as they were then. [`Error::Io`], too, if the disk failed to keep something before.
    pub fn compact(&mut self, store: &Store) -> Result<()> {
        self.check_process()?;
        self.check_disk()?;
        // Not at once again, should it fail.
        self.enough = self
            .segment
            .as_ref()
            .map_or(0, |segment| 2 * segment.size());
        let number = self.number + 1;
        let snapshot = Snapshot::of(store, Some(number))?;
        let journals = self.directory.join(JOURNAL);
        let path = path_of(&journals, number);
        let target = self.directory.join(SNAPSHOT);
        let next = (|| {
            let next = Segment::create(&path, number, &snapshot.checksum)?;
            sync_directory(&path)?;
            snapshot.save(&target)?;
            Ok(next)
        })();
        let next = match next {
            Ok(next) => next,
            Err(error) => {
                let _ = fs::remove_file(&path);
                return Err(error);
            }
        };
        let old = self.segment.replace(Box::new(next));
        let past = path_of(&journals, self.number);
        self.number = number;
        self.enough = snapshot.size() as u64;
        if let Err(error) = sync_directory(&target) {
            // After a power cut the old snapshot may be there again, from which the new journal does not go on.
            self.lost = Some(error.to_string());
            return Err(error);
        }
        if let Some(old) = old {
            old.release();
            fs::remove_file(past)?;
        }
        Ok(())
    }

    /// After the disk refused to keep something: nothing is written any more until the directory is opened again.
    /// What was not acknowledged is cut off the journal; returns the store that the rest makes, or nothing if it was
    /// returned before.
    ///
    /// # Errors
    /// As [`Journal::read`].
    pub fn give_up(&mut self) -> Result<Option<Store>> {
        match self.stop() {
            None => Ok(None),
            kept => Ok(Some(contents(&self.directory, kept)?.loaded.store)),
        }
    }

    /// Writes no more; where the journal ends, if the disk failed and this is the first time that it was said.
    fn stop(&mut self) -> Option<u64> {
        let segment = self.segment.as_mut()?;
        let reason = segment.failed().filter(|_| self.lost.is_none())?;
        self.lost = Some(reason);
        Some(segment.cut_to_kept())
    }

    /// Takes leave: a snapshot if one can be written, else what was written is brought to the disk. After the disk
    /// failed nothing is written: what was acknowledged is there.
    ///
    /// # Errors
    /// [`Error::Io`] if operations might be lost that are in no file.
    pub fn close(&mut self, store: &Store) -> Result<()> {
        if self.check_disk().is_err() {
            self.stop();
            return Ok(());
        }
        if !self.has_records() || self.process != std::process::id() {
            return Ok(());
        }
        match (self.compact(store), &self.segment) {
            (Ok(()), _) => Ok(()),
            (Err(error), None) => Err(error),
            (Err(error), Some(segment)) if segment.is_broken() => Err(error),
            (Err(_), Some(segment)) => match self.durability {
                Durability::Process => Ok(()),
                Durability::Power => segment.commit().wait(),
            },
        }
    }

    /// A disk that failed once is not trusted again: nobody knows what it holds.
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

    /// The lock, too, was inherited from the parent: two would write to one file.
    fn check_process(&self) -> Result<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(Error::State(format!(
            "the store in {} was opened by process {}, which forked this one: open it read-only here, or copy it",
            self.directory.display(),
            self.process
        )))
    }
}

/// Reads a directory, its journal up to `end` if that is given; again if a writer put a new snapshot there meanwhile.
fn contents(directory: &Path, end: Option<u64>) -> Result<Contents> {
    let mut before = None;
    loop {
        let loaded = load(directory)?;
        let checksum = loaded.checksum.clone();
        match follow(directory, loaded, end) {
            Err(_) if before.as_ref() != Some(&checksum) => before = Some(checksum),
            outcome => return outcome,
        }
    }
}

fn load(directory: &Path) -> Result<Loaded> {
    read(Source::file(&directory.join(SNAPSHOT))?).map_err(|error| match error {
        Error::Format { section, message } => {
            Error::format(format!("{SNAPSHOT}: {section}"), message)
        }
        error => error,
    })
}

/// Does what the journal says, up to `end`.
fn follow(directory: &Path, mut loaded: Loaded, end: Option<u64>) -> Result<Contents> {
    let mut recovery = Recovery::default();
    let Some(number) = loaded.journal else {
        return Ok(Contents {
            loaded,
            journal: None,
            end: (0, 0),
            recovery,
        });
    };
    let path = path_of(&directory.join(JOURNAL), number);
    let named = |error| in_file(&path, error);
    let file = match File::open(&path) {
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
        journal: Some(path),
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

fn in_file(path: &Path, error: Error) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match error {
        Error::Format { message, .. } => Error::format(format!("{JOURNAL}/{name}"), message),
        error => error,
    }
}

/// Refuses to go on without the records of a journal that nothing leads to.
fn refuse_records(path: &Path, why: &str) -> Result<()> {
    if fs::metadata(path)?.len() > PREAMBLE as u64 {
        let message = format!("holds operations that would be lost: {why}");
        return Err(in_file(path, Error::format("journal", message)));
    }
    Ok(())
}

/// Removes what a writer that died left half written.
fn sweep(directory: &Path) -> Result<()> {
    for folder in [directory, &directory.join(JOURNAL)] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let ours = name.starts_with(SNAPSHOT) || name.ends_with(".log.tmp");
            if ours && name.ends_with(".tmp") {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn path_of(journals: &Path, number: u64) -> PathBuf {
    journals.join(format!("{number:08}.log"))
}

/// The numbers of the journals there, rising.
pub(crate) fn numbers(journals: &Path) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(journals)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log"));
        if let Some(Ok(number)) = number.map(str::parse) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}
