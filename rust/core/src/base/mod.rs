//! What every layer may use: nothing here knows what a store is.

pub(crate) mod alloc;
pub(crate) mod cancel;
pub mod fpenv;
pub(crate) mod group_commit;
pub(crate) mod heap;
pub(crate) mod huge;
pub(crate) mod log;
pub(crate) mod rng;
pub(crate) mod slot;
pub(crate) mod sync;
pub(crate) mod threads;
