//! Repair: a store from what is intact in a damaged directory.
//!
//! Nothing is guessed. Sections of a snapshot that are damaged are made again from the archive, which is exact, or the
//! archive is given up if it is what is damaged. Records behind a damage in the journal are done as if the damaged ones
//! had never been, like a veto; those that name memories by id are not, since other memories may have these ids now.
//! What cannot be made again from what is saved is kept beside, under names that end in `.damaged`.
//!
//! A repair can be broken off anywhere and done again: files are given second names, then one rename puts the new snapshot
//! in place, and only then are the first names of what it stands for removed.

use std::borrow::Cow;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::archive::Record;
use crate::base::{Log, cancel};
use crate::error::{Error, Result};
use crate::storage::folder::{FileStatus, Folder, JOURNAL, SNAPSHOT, is_scratch};
use crate::storage::journal::directory::{Durability, Journal, name_of, numbers};
use crate::storage::journal::frame::{Frames, Next};
use crate::storage::journal::segment::{PREAMBLE, check_preamble, is_sound};
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
    /// Whether the journal that goes on from the snapshot is missing: what it held is unknown.
    pub missing: bool,
    /// Files beside that hold what the store may not have, and how many operations lie there: those of earlier repairs,
    /// and journals that do not go on from the snapshot.
    pub set_aside: Vec<(String, u64)>,
}

impl Repair {
    /// Whether the store is all that was ever acknowledged, as far as the files tell.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.archive_lost && !self.missing && self.has_journal() && self.set_aside.is_empty()
    }

    /// Whether all that the journal holds was done.
    fn has_journal(&self) -> bool {
        self.damaged == 0 && self.refused.is_empty()
    }
}

/// Repairs the store in a directory, in place.
///
/// # Errors
/// [`Error::Format`] if nothing can be saved, [`Error::Locked`], [`Error::Io`]. The files are as they were then.
pub fn repair(directory: &Path) -> Result<Repair> {
    let folder = Folder::open(directory)?;
    // What is no store is left alone.
    folder.read(SNAPSHOT)?;
    let mut journal = Journal::locked(folder, Durability::Process)?;
    let folder = &journal.folder;
    let mut report = Repair::default();
    let file = file::File::open(Source::of(folder.read(SNAPSHOT)?)?)?;
    let damaged = file.damaged()?;
    let sound = file.is_sound()?;
    let checksum = file.declared.0.clone();
    let (mut store, named) = salvage(&file, damaged.clone(), &mut report)?;

    let followed = match named {
        Some(number) => journal_of(folder, number, sound.then_some(checksum.as_str()))?,
        None => None,
    };
    report.missing = named.is_some() && followed.is_none();
    if let Some(name) = &followed {
        follow(folder, name, &mut store, &mut report)?;
    }
    let mut kept = Vec::new();
    if !damaged.is_empty() {
        kept.push(SNAPSHOT.to_owned());
    }
    kept.extend(followed.clone().filter(|_| !report.has_journal()));
    let others: Vec<String> = numbers(folder)?
        .into_iter()
        // One of a lower number is in the snapshot.
        .filter(|&number| named.is_none_or(|named| named <= number))
        .map(name_of)
        .filter(|name| followed.as_ref() != Some(name))
        .collect();
    for name in others {
        if count(folder, &name)? > 0 {
            kept.push(name);
        }
    }
    let mut aside = Vec::new();
    for name in &kept {
        aside.push(set_aside(folder, name)?);
    }
    folder.sync(JOURNAL)?;
    folder.sync(".")?;
    // What this repair reports otherwise.
    let own = |name: &String| followed.as_ref() == Some(name) || *name == SNAPSHOT;
    let told: Vec<&String> = kept
        .iter()
        .zip(&aside)
        .filter(|(name, _)| own(name))
        .map(|(_, aside)| aside)
        .chain(&followed)
        .collect();
    report.set_aside = found_aside(folder, &told)?;

    let past = numbers(folder)?;
    journal.number = past.last().copied().max(named).unwrap_or(0);
    journal.compact(&store)?;
    for number in past {
        journal.folder.remove(name_of(number))?;
    }
    if let Some(name) = followed.filter(|name| report.has_journal() && is_aside(name)) {
        // An earlier repair had set it aside before it was broken off; now it is in the snapshot.
        journal.folder.remove(name)?;
    }
    Ok(report)
}

/// The journal that goes on from a snapshot, also if a repair that was broken off has set it aside; by the snapshot's
/// checksum, if that is known.
fn journal_of(folder: &Folder, number: u64, checksum: Option<&str>) -> Result<Option<String>> {
    let name = name_of(number);
    let aside = format!("{name}{DAMAGED}");
    for (name, strict) in [(name, false), (aside, true)] {
        if folder.status(&name)?.is_none() {
            continue;
        }
        let mut first = Vec::new();
        folder
            .read(&name)?
            .take(PREAMBLE as u64)
            .read_to_end(&mut first)?;
        let belongs = match checksum {
            Some(checksum) => check_preamble(&mut &first[..], number, checksum).is_ok(),
            None => !strict,
        };
        // A file with damaged first bytes may belong to it: it is where it has to be.
        if belongs || (!strict && !is_sound(&first)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// What the names end in of files that were set aside.
const DAMAGED: &str = ".damaged";

fn is_aside(name: &str) -> bool {
    name.contains(DAMAGED) && !is_scratch(name)
}

/// Gives a file a second name that nothing else has; returns it.
fn set_aside(folder: &Folder, name: &str) -> Result<String> {
    let own = folder.status(name)?.map(|status| status.identity);
    for attempt in 1u32.. {
        let second = if attempt == 1 {
            format!("{name}{DAMAGED}")
        } else {
            format!("{name}{DAMAGED}.{attempt}")
        };
        let there = folder.status(&second)?;
        let same = match there {
            None => {
                folder.link_or_copy(name, &second)?;
                true
            }
            // A repair that was broken off did it.
            Some(there) => Some(there.identity) == own || are_equal(folder, name, &second)?,
        };
        if same {
            return Ok(second);
        }
    }
    unreachable!("a name is free")
}

/// Whether two files hold the same bytes.
fn are_equal(folder: &Folder, one: &str, other: &str) -> Result<bool> {
    let (one, other) = (folder.read(one)?, folder.read(other)?);
    if FileStatus::of(&one)?.size != FileStatus::of(&other)?.size {
        return Ok(false);
    }
    let mut others = BufReader::new(other).bytes();
    for byte in BufReader::new(one).bytes() {
        if Some(byte?) != others.next().transpose()? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The files that were set aside and hold what the store may not have, but for those that are `told` of otherwise.
fn found_aside(folder: &Folder, told: &[&String]) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    let within = folder.names(JOURNAL)?;
    let names = within.into_iter().map(|name| format!("{JOURNAL}/{name}"));
    for name in folder.names(".")?.into_iter().chain(names) {
        if !is_aside(&name) || told.contains(&&name) {
            continue;
        }
        if name.starts_with(SNAPSHOT) {
            let file = Source::of(folder.read(&name)?).and_then(file::File::open);
            let damaged = file.and_then(|file| file.damaged());
            // From its archive a snapshot was made again.
            let replaced = |damaged: Vec<String>| {
                !damaged
                    .iter()
                    .any(|part| part == "archive" || part == "state")
            };
            if !damaged.is_ok_and(replaced) {
                found.push((name, 0));
            }
        } else {
            let operations = count(folder, &name)?;
            found.push((name, operations));
        }
    }
    Ok(found)
}

/// How many operations a journal holds, each damage counted as one: how many there were is unknown.
fn count(folder: &Folder, name: &str) -> Result<u64> {
    let mut operations = 0;
    for_each_item(folder, name, &mut |_, found| {
        operations += match found {
            JournalItem::Operation(_) => 1,
            JournalItem::Damage(lost) => lost,
            JournalItem::Torn(_) => 0,
        };
        Ok(())
    })?;
    Ok(operations)
}

/// What lies in a journal.
enum JournalItem {
    Operation(Vec<u8>),
    /// Of so many operations, at least.
    Damage(u64),
    /// Bytes of one that was never finished.
    Torn(u64),
}

/// Calls `act` with what lies in a journal, one after the other, and its number.
fn for_each_item(
    folder: &Folder,
    name: &str,
    act: &mut dyn FnMut(u64, JournalItem) -> Result<()>,
) -> Result<()> {
    let file = folder.read(name)?;
    let length = FileStatus::of(&file)?.size;
    let mut frames = Frames::new(BufReader::new(file), PREAMBLE as u64, length, 0);
    loop {
        cancel::check()?;
        let number = frames.number;
        match frames.next() {
            Ok(Next::Payload(payload)) => act(number, JournalItem::Operation(payload))?,
            Ok(Next::End) => return Ok(()),
            Ok(Next::Torn) => return act(number, JournalItem::Torn(length - frames.at)),
            Err(Error::Format { .. }) => {
                if !frames.resume()? {
                    return act(number, JournalItem::Damage(1));
                }
                act(number, JournalItem::Damage((frames.number - number).max(1)))?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The store of a snapshot that may be damaged, and the number of its journal.
fn salvage(
    file: &file::File<'_>,
    damaged: Vec<String>,
    report: &mut Repair,
) -> Result<(Store, Option<u64>)> {
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
        state.proposals.to_mut().clear();
        return Ok((file.store(state)?, journal));
    }
    state.unpool(&file.archive()?)?;
    if damaged.is_empty() {
        return Ok((file.store(state)?, journal));
    }
    let mut maker = Store::new(state.given.into_owned())?;
    maker.history = state.history.map(Cow::into_owned);
    maker.embedder = state.embedder.map(Cow::into_owned);
    maker.next_memory = state.next_memory;
    maker.next_episode = state.next_episode;
    let store = maker.made_again().map_err(|_| lost(&damaged[0]))?;
    report.rebuilt = damaged;
    Ok((store, journal))
}

/// Does what can be read of a journal.
fn follow(folder: &Folder, name: &str, store: &mut Store, report: &mut Repair) -> Result<()> {
    for_each_item(folder, name, &mut |number, found| {
        let payload = match found {
            JournalItem::Operation(payload) => payload,
            JournalItem::Damage(lost) => {
                report.damaged += lost;
                return Ok(());
            }
            JournalItem::Torn(bytes) => {
                report.cut = bytes;
                return Ok(());
            }
        };
        let gap = !report.has_journal();
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
        Ok(())
    })
}
