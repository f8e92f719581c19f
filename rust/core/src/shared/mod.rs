//! A store that many threads share: many readers, one writer at a time, frozen moments that need no lock, and a journal
//! that many calls bring to the disk together.
//!
//! The files here know no store and no file, and take their locks from [`sync`] alone. So `tests/schedules.rs` compiles
//! the very same files with the locks of a scheduler that tries interleavings.

use crate::base::{log, sync};
use crate::error::{Error, Result};
use crate::ops::observe::Access;
use crate::storage::journal::directory::Journal;
use crate::store::Store;

mod held_locks;
mod rwlock;

pub use rwlock::{Denied, Shared, Writer};

impl<E: From<Denied> + From<Error>> Access for Writer<'_, Store, Journal, E> {
    type Error = E;

    fn read<T>(&mut self, work: impl FnOnce(&Store) -> Result<T>) -> std::result::Result<T, E> {
        Self::read(self, |store| Ok(work(store)?))
    }

    fn write<T>(
        &mut self,
        work: impl FnOnce(&mut Store) -> Result<T>,
    ) -> std::result::Result<T, E> {
        Self::write(self, |store| Ok(work(store)?))
    }
}
