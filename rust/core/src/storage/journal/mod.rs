//! The journal of a directory: what was done since the snapshot.

pub(crate) mod directory;
pub(crate) mod frame;
pub(crate) mod record;
pub(crate) mod segment;
