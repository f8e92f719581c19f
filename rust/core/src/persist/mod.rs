//! The store as bytes: snapshots, the digest that proves two states equal, and the journal of a directory.

mod check;
mod checksum;
pub(crate) mod digest;
pub(crate) mod directory;
pub(crate) mod file;
mod frame;
mod lock;
mod log;
pub(crate) mod record;
pub(crate) mod repair;
pub(crate) mod restore;
pub(crate) mod sections;
pub(crate) mod segment;
pub(crate) mod snapshot;
pub(crate) mod source;
