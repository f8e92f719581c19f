//! The store as bytes: snapshots, the digest that proves two states equal, and the journal of a directory.

pub(crate) mod digest;
pub(crate) mod folder;
pub(crate) mod journal;
pub(crate) mod load;
pub(crate) mod lock;
pub(crate) mod repair;
pub(crate) mod snapshot;
