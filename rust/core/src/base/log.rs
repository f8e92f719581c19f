//! What a shared store needs of its journal.

/// Where the operations on a store `S` are recorded before they are done.
pub trait Log<S>: Sized {
    /// What to wait for before an operation is acknowledged.
    type Ticket;
    /// Why it refuses.
    type Error;

    /// Does some work on the store, whose operations are recorded first. The record of one that fails is taken back.
    ///
    /// # Errors
    /// As `work`, or if it cannot be recorded.
    fn during<T, E: From<Self::Error>>(
        &mut self,
        store: &mut S,
        work: impl FnOnce(&mut S) -> Result<T, E>,
    ) -> Result<T, E>;

    /// What to wait for before what was done by now is acknowledged, if anything.
    fn ticket(&self) -> Option<Self::Ticket>;

    /// Returns when what the ticket stands for is kept.
    ///
    /// # Errors
    /// If it may not be.
    fn wait(ticket: &Self::Ticket) -> Result<(), Self::Error>;

    /// Whether it is kept.
    fn is_kept(ticket: &Self::Ticket) -> bool;

    /// After a wait has failed: nothing is recorded any more. Returns the store that everything acknowledged makes, or
    /// nothing if it was returned before.
    ///
    /// # Errors
    /// If it cannot be made.
    fn give_up(&mut self) -> Result<Option<S>, Self::Error>;

    /// Whether anything was recorded since the last snapshot.
    fn has_records(&self) -> bool;

    /// Whether so much was recorded that it is worth a new snapshot.
    fn is_long(&self) -> bool;

    /// Writes a snapshot and begins anew.
    ///
    /// # Errors
    /// If it cannot: all is as it was then.
    fn compact(&mut self, store: &S) -> Result<(), Self::Error>;

    /// The same store laid out anew, if it would be quicker to use so.
    ///
    /// # Errors
    /// If the call is cancelled.
    fn reordered(store: &S) -> Result<Option<S>, Self::Error>;

    /// Takes leave.
    ///
    /// # Errors
    /// If operations might be lost.
    fn close(&mut self, store: &S) -> Result<(), Self::Error>;
}
