//! A store that many threads share: many readers, one writer at a time, frozen moments that need no lock, and a journal
//! that many calls bring to the disk together.
//!
//! The files here know no store and no file, and take their locks from [`sync`] alone. So `tests/schedules.rs` compiles
//! the very same files with the locks of a scheduler that tries interleavings.

mod access;
mod held_locks;
mod rwlock;

use crate::base::{log, sync};
pub use rwlock::{Denied, Shared, Writer};
