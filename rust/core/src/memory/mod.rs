//! The memories: their columns, the channels they drive, and what a caller gives to be written.

pub(crate) mod channels;
pub(crate) mod column;
pub(crate) mod columns;
pub(crate) mod episodes;

pub(crate) use channels::{Channel, Channels, Kind};
pub(crate) use column::SlotMap;
pub(crate) use column::{Column, rows};
pub(crate) use columns::{Memories, NewMemory, Provenance, Stored, narrow, widen};
pub(crate) use episodes::{Batch, Episode, Episodes, normalise, normalised_rows};
