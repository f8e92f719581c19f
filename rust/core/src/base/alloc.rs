//! Memory: what the machine has.

use crate::error::{Error, Result};

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
