//! How much memory a store holds, from the sizes of what it is made of.

use std::mem::size_of;

use crate::error::{Error, Result};
use crate::store::Store;

/// Refuses what the machine's memory could never hold, before any of it is asked for: a failed allocation aborts.
///
/// # Errors
/// [`Error::Invalid`] naming the argument that makes it so large.
pub(crate) fn afford(argument: &'static str, items: usize, size: usize) -> Result<()> {
    let there = machine();
    match items.checked_mul(size) {
        Some(wanted) if wanted <= there => Ok(()),
        _ => Err(Error::invalid(
            argument,
            format!(
                "the answer would take {items} × {size} bytes; this machine has {there} in all"
            ),
        )),
    }
}

/// The machine's memory in bytes, where the system tells.
fn machine() -> usize {
    #[cfg(target_os = "linux")]
    {
        let told = rustix::system::sysinfo();
        usize::try_from(told.totalram)
            .unwrap_or(usize::MAX)
            .saturating_mul(told.mem_unit as usize)
    }
    #[cfg(not(target_os = "linux"))]
    {
        usize::MAX / 4
    }
}

/// What a vector has reserved, without what its elements hold elsewhere.
pub(crate) fn reserved<T>(vector: &Vec<T>) -> usize {
    vector.capacity() * size_of::<T>()
}

impl Store {
    /// The bytes of memory that it holds, the archive included. Working space of a call comes on top of it, and a copy of
    /// all but the archive while a frozen view is kept and the store is written to.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        let arrays: usize = crate::storage::snapshot::sections::arrays(self)
            .map(|array| size_of_val(array) + size_of::<Vec<f32>>())
            .sum();
        let texts: usize = self
            .history
            .iter()
            .flatten()
            .flat_map(|entry| entry.operation.texts())
            .chain(self.proposals.iter().flat_map(|episode| &episode.texts))
            .map(|text| text.capacity() + size_of::<String>())
            .sum();
        self.memories.nbytes()
            + self.graph.bytes()
            + self.values.nbytes()
            + arrays
            + texts
            + reserved(&self.sample)
            + reserved(&self.episode_ids)
            + 2 * self.ordinals.capacity() * size_of::<(i64, u64)>()
            + size_of::<Self>()
    }
}
