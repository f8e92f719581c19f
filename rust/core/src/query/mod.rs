//! What reads: nothing here changes a store.

pub(crate) mod columns;
pub(crate) mod frozen;
pub(crate) mod origins;
pub(crate) mod read;
pub(crate) mod recall;
pub(crate) mod score;
pub(crate) mod spread;
