//! The memories: their columns, the channels they drive, and what a caller gives to be written.

pub(crate) mod channels;
pub(crate) mod column;
pub(crate) mod columns;
pub(crate) mod episodes;
pub(crate) mod slot_map;
