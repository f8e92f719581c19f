//! Memory: what the machine has.

use crate::error::{Error, Result, invalid_if};

/// Refuses what the machine's memory could never hold, before any of it is asked for: a failed allocation aborts.
///
/// # Errors
/// [`Error::Invalid`] naming the argument that makes it so large.
pub(crate) fn afford(argument: &'static str, items: usize, size: usize) -> Result<()> {
    let there = machine();
    let wanted = items.checked_mul(size);
    invalid_if!(
        wanted.is_none_or(|wanted| wanted > there),
        argument,
        "the answer would take {items} × {size} bytes; this machine has {there} in all"
    );
    Ok(())
}

/// Room for so many bytes, which a file or a caller asks for.
///
/// # Errors
/// [`Error::Io`] if there is none.
pub(crate) fn room(bytes: usize) -> Result<Vec<u8>> {
    let mut room = Vec::new();
    let reserved = room.try_reserve_exact(bytes);
    reserved.map_err(|error| Error::Io(std::io::Error::other(error)))?;
    Ok(room)
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
