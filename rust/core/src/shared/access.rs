//! Writing to a shared store episode by episode.

use crate::error::{Error, Result};
use crate::ops::observe::Access;
use crate::shared::{Denied, Writer};
use crate::storage::journal::directory::Journal;
use crate::store::Store;

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
