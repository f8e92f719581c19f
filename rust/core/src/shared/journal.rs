//! The journal of a directory, as a shared store sees it.

use std::sync::Arc;

use crate::base::discard;
use crate::error::{Error, Result};
use crate::shared::Log;
use crate::storage::journal::directory::Journal;
use crate::storage::journal::segment::Commit;
use crate::store::Store;

impl Log<Store> for Journal {
    type Ticket = Commit;
    type Error = Error;

    fn copy(store: &Store, ask: &dyn Fn() -> bool) -> Result<Store> {
        store.copied(ask)
    }

    fn let_go(store: Arc<Store>) {
        discard::later(store);
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

    fn tidied(store: &Store, ask: &dyn Fn() -> bool) -> Result<Option<Store>> {
        store.tidied(ask)
    }

    fn close(&mut self, store: &Store) -> Result<()> {
        Self::close(self, store)
    }
}
