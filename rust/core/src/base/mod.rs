//! What everything stands on: errors aside, nothing here knows what the store is.

pub(crate) mod alloc;
pub(crate) mod copied;
pub(crate) mod discard;
pub mod fpenv;
pub(crate) mod group_commit;
pub(crate) mod heap;
pub(crate) mod huge;
pub(crate) mod interrupt;
pub(crate) mod parallel;
pub(crate) mod rng;
pub(crate) mod slot;
pub(crate) mod sync;
