//! The store as bytes: snapshots, and the digest that proves two states equal.

pub(crate) mod digest;
pub(crate) mod restore;
pub(crate) mod sections;
pub(crate) mod snapshot;
