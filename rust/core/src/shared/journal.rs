//! The journal of a directory, as a shared store sees it.

use crate::error::{Error, Result};
use crate::ops::observe::Access;
use crate::shared::{Denied, Log, Writer};
use crate::storage::journal::directory::Journal;
use crate::storage::journal::segment::Commit;
use crate::store::Store;

impl Log<Store> for Journal {
    type Ticket = Commit;
    type Error = Error;

    fn copy(store: &Store, _: &dyn Fn() -> bool) -> Result<Store> {
        Ok(store.clone())
    }

    fn during<T, E: From<Error>>(
        &mut self,
        store: &mut Store,
        work: impl FnOnce(&mut Store) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        Self::during(self, store, work)
    }

    fn ticket(&self) -> Option<Commit> {
        self.commit()
    }

    fn wait(ticket: &Commit) -> Result<()> {
        ticket.wait()
    }

    fn is_kept(ticket: &Commit) -> bool {
        ticket.is_kept()
    }

    fn give_up(&mut self) -> Result<Option<Store>> {
        Self::give_up(self)
    }

    fn has_records(&self) -> bool {
        Self::has_records(self)
    }

    fn is_long(&self) -> bool {
        Self::is_long(self)
    }

    fn compact(&mut self, store: &Store) -> Result<()> {
        Self::compact(self, store)
    }

    fn reordered(store: &Store, _: &dyn Fn() -> bool) -> Result<Option<Store>> {
        store.reordered()
    }

    fn close(&mut self, store: &Store) -> Result<()> {
        Self::close(self, store)
    }
}

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
