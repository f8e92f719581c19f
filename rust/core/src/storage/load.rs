//! A store from bytes, a file or a directory.

use std::path::Path;

use crate::error::Result;
use crate::storage::folder::SNAPSHOT;
use crate::storage::journal::directory::Journal;
use crate::storage::snapshot::file::read;
use crate::storage::snapshot::source::Source;
use crate::store::Store;

impl Store {
    /// The store that [`Store::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`crate::Error::Format`] naming the section that is damaged or foreign.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Ok(read(Source::Memory(bytes))?.store)
    }

    /// Reads a snapshot, or the store of a directory as it is now.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if it cannot be read, [`crate::Error::Format`] if it is damaged.
    pub fn load(path: &Path) -> Result<Self> {
        if path.join(SNAPSHOT).is_file() {
            return Ok(Journal::read(path)?.0);
        }
        Ok(read(Source::file(path)?)?.store)
    }
}
