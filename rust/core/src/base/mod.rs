//! What everything stands on: errors aside, nothing here knows what the store is.

pub(crate) mod copied;
pub(crate) mod discard;
pub(crate) mod huge;
pub(crate) mod interrupt;
pub(crate) mod parallel;
pub(crate) mod rng;
