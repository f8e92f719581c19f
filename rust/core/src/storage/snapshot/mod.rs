//! Snapshots: the whole store in one file.

pub(crate) mod check;
pub(crate) mod checksum;
pub(crate) mod file;
pub(crate) mod restore;
pub(crate) mod sections;
pub(crate) mod source;
pub(crate) mod state;
pub(crate) mod write;
