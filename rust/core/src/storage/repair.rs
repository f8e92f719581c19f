//! Repair: a store from what is intact in a damaged directory.
//!
//! Nothing is guessed. Sections of a snapshot that are damaged are made again from the archive, which is exact, or the
//! archive is given up if it is what is damaged. Records behind a damage in the journal are done as if the damaged ones
//! had never been, like a veto; those that name memories by id are not, since other memories may have these ids now.
//! What was there is kept beside, under names that end in `.damaged`.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use crate::archive::Record;
use crate::error::{Error, Result};
use crate::ops::history::shared;
use crate::storage::journal::directory::{
    Durability, JOURNAL, Journal, SNAPSHOT, numbers, path_of,
};
use crate::storage::journal::frame::{Frames, Next};
use crate::storage::journal::segment::PREAMBLE;
use crate::storage::lock::Lock;
use crate::storage::snapshot::file;
use crate::storage::snapshot::source::Source;
use crate::store::Store;

/// What a repair saved and what it could not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// Sections of the snapshot that were damaged and made again from the archive, exactly.
    pub rebuilt: Vec<String>,
    /// Whether the archive was damaged and given up: the store is exact, but veto is no longer possible.
    pub archive_lost: bool,
    /// Proposed episodes that went with the archive.
    pub proposals_lost: usize,
    /// Operations of the journal that were done again.
    pub operations: u64,
    /// Operations whose records are damaged.
    pub damaged: u64,
    /// Operations that could not be done without the damaged ones, and why.
    pub refused: Vec<String>,
    /// Bytes of an operation that was never finished.
    pub cut: u64,
}

impl Repair {
    /// Whether the store is all that was ever acknowledged.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.archive_lost && self.damaged == 0 && self.refused.is_empty()
    }
}

/// Repairs the store in a directory, in place.
///
/// # Errors
/// [`Error::Format`] if nothing can be saved, [`Error::Locked`], [`Error::Io`].
pub fn repair(directory: &Path) -> Result<Repair> {
    let mut report = Repair::default();
    let snapshot = directory.join(SNAPSHOT);
    let source = Source::file(&snapshot)?;
    let journals = directory.join(JOURNAL);
    fs::create_dir_all(&journals)?;
    let lock = Lock::take(directory)?;
    let (mut store, journal) = salvage(source, &mut report)?;
    if let Some(number) = journal {
        let path = path_of(&journals, number);
        if path.try_exists()? {
            follow(&path, &mut store, &mut report)?;
        }
    }
    for number in numbers(&journals)? {
        let path = path_of(&journals, number);
        fs::rename(&path, path.with_extension("log.damaged"))?;
    }
    fs::copy(&snapshot, directory.join(format!("{SNAPSHOT}.damaged")))?;
    store.save(&snapshot)?;
    drop(lock);
    // The saved store is adopted: it gets a journal.
    Journal::open(directory, None, Durability::Process)?;
    Ok(report)
}

/// The store of a snapshot that may be damaged, and the number of its journal.
fn salvage(source: Source<'_>, report: &mut Repair) -> Result<(Store, Option<u64>)> {
    let file = file::File::open(source)?;
    let damaged = file.damaged()?;
    let lost =
        |part: &str| Error::format(part, "damaged, and nothing else in the file can replace it");
    if damaged.iter().any(|part| part == "state") {
        return Err(lost("state"));
    }
    let mut state = file.state()?;
    let journal = state.journal;
    if damaged.iter().any(|part| part == "archive") {
        if damaged.len() > 1 {
            return Err(lost(
                damaged
                    .iter()
                    .find(|part| *part != "archive")
                    .unwrap_or(&damaged[0]),
            ));
        }
        report.archive_lost = state.history.is_some();
        report.proposals_lost = state.proposals.len();
        state.history = None;
        state.proposals.clear();
        return Ok((file.store(state)?, journal));
    }
    state.unpool(&file.archive()?)?;
    if damaged.is_empty() {
        return Ok((file.store(state)?, journal));
    }
    let mut maker = Store::new(state.given)?;
    maker.history = state.history.map(shared);
    maker.embedder = state.embedder;
    maker.next_memory = state.next_memory;
    maker.next_episode = state.next_episode;
    let store = maker.made_again().map_err(|_| lost(&damaged[0]))?;
    report.rebuilt = damaged;
    Ok((store, journal))
}

/// Does what can be read of a journal.
fn follow(path: &Path, store: &mut Store, report: &mut Repair) -> Result<()> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut frames = Frames::new(BufReader::new(file), PREAMBLE as u64, length, 0);
    loop {
        let number = frames.number;
        match frames.next() {
            Ok(Next::Payload(payload)) => {
                let gap = report.damaged > 0 || !report.refused.is_empty();
                let done = Record::decode(&payload).and_then(|record| {
                    if gap && record.names_memories() {
                        return Err(Error::State("it names memories by their ids".into()));
                    }
                    record.apply(store)
                });
                match done {
                    Ok(()) => report.operations += 1,
                    Err(error @ (Error::Io(_) | Error::Interrupted)) => return Err(error),
                    Err(error) => report.refused.push(format!("operation {number}: {error}")),
                }
            }
            Ok(Next::End) => return Ok(()),
            Ok(Next::Torn) => {
                report.cut = length - frames.at;
                return Ok(());
            }
            Err(Error::Format { .. }) => {
                if !frames.resume()? {
                    // How many they were nobody knows: one at least.
                    report.damaged += 1;
                    return Ok(());
                }
                report.damaged += (frames.number - number).max(1);
            }
            Err(error) => return Err(error),
        }
    }
}
