//! What writes: every change of a store, and the history of all of them.

pub(crate) mod gate;
pub(crate) mod history;
pub(crate) mod insert;
pub(crate) mod observe;
pub(crate) mod partition;
pub(crate) mod reorder;
pub(crate) mod setup;
pub(crate) mod sleep;
