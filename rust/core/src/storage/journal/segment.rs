//! A journal file that is written: records appended, taken back, and brought to the disk together.
//!
//! The file begins with 64 bytes that say which snapshot it goes on from:
//!
//! | offset | size | |
//! |---|---|---|
//! | 0 | 8 | `swjournl` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | 0 |
//! | 16 | 8 | the number of the journal |
//! | 24 | 32 | the checksum of the snapshot (SHA-256) |
//! | 56 | 4 | 0 |
//! | 60 | 4 | CRC-32 of the 60 bytes before |

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use crate::archive::{Journal, Record};
use crate::base::{Disk, cancel};
use crate::error::{Error, Result, damaged_if};
use crate::storage::folder::{FileStatus, Folder, JOURNAL};
use crate::storage::journal::frame::{HEADER, header};

/// Bytes before the first record.
pub(crate) const PREAMBLE: usize = 64;
const MAGIC: &[u8; 8] = b"swjournl";
const VERSION: u32 = 1;
/// Bytes written between two looks at the token.
const BYTES_PER_CHECK: usize = 4 << 20;

/// The first bytes of the journal of a number that goes on from a snapshot of that checksum.
pub(crate) fn preamble(number: u64, checksum: &str) -> [u8; PREAMBLE] {
    let mut bytes = [0; PREAMBLE];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    for (byte, digits) in bytes[24..56].iter_mut().zip(checksum.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).unwrap_or_default();
    }
    let sum = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Checks the first bytes of a journal.
pub(crate) fn check_preamble(file: &mut impl Read, number: u64, checksum: &str) -> Result<()> {
    let mut bytes = [0; PREAMBLE];
    let read = file.read_exact(&mut bytes);
    let short = "the file is shorter than its first 64 bytes";
    damaged_if!(read.is_err(), "journal", "{short}");
    let foreign = &bytes[..8] != MAGIC;
    damaged_if!(foreign, "journal", "not a journal of sharpwave");
    let damaged = !is_sound(&bytes);
    damaged_if!(damaged, "journal", "its first 64 bytes are damaged");
    let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    damaged_if!(
        version != VERSION,
        "journal",
        "version {version} is not known to this version of sharpwave"
    );
    damaged_if!(
        bytes != preamble(number, checksum),
        "journal",
        "it goes on from another snapshot than the one beside it, or is not number {number}"
    );
    Ok(())
}

/// Whether the first bytes of a journal are as they were written.
pub(crate) fn is_sound(bytes: &[u8]) -> bool {
    bytes.len() == PREAMBLE
        && bytes.starts_with(MAGIC)
        && bytes[60..] == crc32fast::hash(&bytes[..60]).to_le_bytes()
}

/// A journal file that is written.
pub(crate) struct Segment {
    file: File,
    /// In the store's directory.
    name: String,
    identity: (u64, u64),
    /// Where the next record goes.
    at: u64,
    /// Its number.
    number: u64,
    /// Where the last record of this opening begins.
    last: Option<u64>,
    /// Set when the file could not be brought back into a good state.
    broken: bool,
    disk: Arc<Disk<File>>,
}

impl Segment {
    /// A new file with its first bytes on the disk, as accessible as another.
    pub(crate) fn create(
        folder: &Folder,
        name: String,
        number: u64,
        checksum: &str,
        like: Option<FileStatus>,
    ) -> Result<Self> {
        let mut file = folder.make(&name, like)?;
        file.write_all(&preamble(number, checksum))?;
        file.sync_all()?;
        Self::around(file, name, PREAMBLE as u64, 0, PREAMBLE as u64)
    }

    /// Goes on with a file behind its last sound record, cutting off what follows.
    ///
    /// With `kept`, what was read is brought to the disk first, in a new file: the system may have read it from its
    /// memory, though an earlier attempt to bring it to the disk failed. Also a file that has a second name, as in a copy
    /// of the store made of links, is left alone, and a new one written.
    pub(crate) fn resume(
        folder: &Folder,
        name: String,
        at: u64,
        number: u64,
        kept: bool,
    ) -> Result<Self> {
        let mut file = folder.write(&name)?;
        if (kept && at > PREAMBLE as u64) || FileStatus::of(&file)?.names > 1 {
            folder.replace(&name, |copy| {
                io::copy(&mut (&mut file).take(at), copy)?;
                Ok(())
            })?;
            folder.sync(JOURNAL)?;
            file = folder.write(&name)?;
        }
        if file.metadata()?.len() != at {
            file.set_len(at)?;
            file.sync_all()?;
        }
        Self::around(file, name, at, number, if kept { at } else { 0 })
    }

    fn around(file: File, name: String, at: u64, number: u64, kept: u64) -> Result<Self> {
        let disk = Arc::new(Disk::new(file.try_clone()?, at, kept));
        Ok(Self {
            identity: FileStatus::of(&file)?.identity,
            name,
            file,
            at,
            number,
            last: None,
            broken: false,
            disk,
        })
    }

    /// In the store's directory.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the directory has this file under its name.
    pub(crate) fn is_in(&self, folder: &Folder) -> Result<bool> {
        let found = folder.status(&self.name)?;
        Ok(found.is_some_and(|found| found.identity == self.identity))
    }

    /// Bytes of records.
    pub(crate) fn size(&self) -> u64 {
        self.at - PREAMBLE as u64
    }

    /// Whether nothing can be appended any more, since what was could not be taken back.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Why the disk refused to keep what was written, if it did.
    pub(crate) fn failed(&self) -> Option<String> {
        self.disk.failed()
    }

    /// Cuts off what the disk did not keep, as far as the system lets; returns up to where it did.
    pub(crate) fn cut_to_kept(&mut self) -> u64 {
        self.at = self.at.min(self.disk.kept());
        self.cut(self.at);
        let _ = self.file.sync_all();
        self.at
    }

    /// Writes a record where the next one goes, a long one in parts.
    fn write(&mut self, payload: &[u8]) -> Result<()> {
        let mut sum = crc32fast::Hasher::new();
        for part in payload.chunks(BYTES_PER_CHECK) {
            cancel::check()?;
            sum.update(part);
        }
        let head = header(self.number, payload.len(), sum.finalize());
        self.file.seek(SeekFrom::Start(self.at))?;
        if payload.len() <= BYTES_PER_CHECK {
            // At once: the system is asked but once for what is done often.
            return Ok(self.file.write_all(&[&head[..], payload].concat())?);
        }
        self.file.write_all(&head)?;
        for part in payload.chunks(BYTES_PER_CHECK) {
            cancel::check()?;
            self.file.write_all(part)?;
        }
        Ok(())
    }

    fn cut(&mut self, at: u64) {
        self.broken |= self.file.set_len(at).is_err();
    }

    fn usable(&self) -> Result<()> {
        if self.broken {
            let reason = "the journal is not written to any more, since an earlier write could not be undone; \
                          flush() writes a snapshot instead and begins a new one";
            return Err(Error::Io(io::Error::other(reason)));
        }
        Ok(())
    }

    /// What is written by now, to be waited for.
    pub(crate) fn commit(&self) -> Commit {
        Commit {
            at: self.at,
            disk: Arc::clone(&self.disk),
        }
    }

    /// Ends all waiting: a snapshot holds the records.
    pub(crate) fn release(&self) {
        self.disk.release();
    }
}

impl Journal for Segment {
    fn append(&mut self, record: &Record<'_>) -> Result<()> {
        self.usable()?;
        let payload = record.encode()?;
        let size = (HEADER + payload.len()) as u64;
        if let Err(error) = self.write(&payload) {
            self.cut(self.at);
            return Err(error);
        }
        self.last = Some(self.at);
        self.at += size;
        self.number += 1;
        self.disk.wrote(self.at);
        Ok(())
    }

    fn retract(&mut self) {
        if let Some(last) = self.last.take() {
            self.cut(last);
            self.at = last;
            self.number -= 1;
            self.disk.took_back(last);
        }
    }
}

/// What was written, to be waited for until it is on the disk.
pub struct Commit {
    at: u64,
    disk: Arc<Disk<File>>,
}

impl Commit {
    /// Returns when the disk has it. Of many that wait, one asks the system, for all that was written by then.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refused. What it holds is unknown then, so the journal is not used any more.
    pub fn wait(&self) -> Result<()> {
        Ok(self.disk.wait(self.at)?)
    }

    /// Whether the disk has it, or another file.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.disk.kept() >= self.at
    }
}
