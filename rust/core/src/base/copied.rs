//! Copies of much memory, which can be given up in the middle.

use crate::base::discard::Heavy;
use crate::base::interrupt::Interrupt;
use crate::base::slot::Slot;
use crate::error::{Error, Result};

/// Bytes copied between two questions: a millisecond, when the system has to find the memory.
const BYTES: usize = 1 << 20;
/// Elements that own memory, copied between two questions.
const OWNING: usize = 1024;

/// An error once the caller had enough.
pub(crate) fn ask(interrupt: Interrupt<'_>) -> Result<()> {
    if interrupt() {
        return Err(Error::Interrupted);
    }
    Ok(())
}

/// Appends plain elements to those of a vector.
///
/// # Errors
/// [`Error::Interrupted`].
pub(crate) fn append<T: Copy>(to: &mut Vec<T>, from: &[T], interrupt: Interrupt<'_>) -> Result<()> {
    let slice = (BYTES / size_of::<T>().max(1)).max(1);
    to.reserve_exact(from.len());
    for part in from.chunks(slice) {
        ask(interrupt)?;
        to.extend_from_slice(part);
    }
    Ok(())
}

/// A copy of plain elements.
///
/// # Errors
/// [`Error::Interrupted`].
pub(crate) fn plain<T: Copy + Send + 'static>(
    from: &[T],
    interrupt: Interrupt<'_>,
) -> Result<Vec<T>> {
    let mut copy = Heavy::new(Vec::new());
    append(&mut copy, from, interrupt)?;
    Ok(copy.keep())
}

/// A copy of elements that own a little memory each.
///
/// # Errors
/// [`Error::Interrupted`].
pub(crate) fn owning<T: Clone + Send + 'static>(
    from: &[T],
    interrupt: Interrupt<'_>,
) -> Result<Vec<T>> {
    collected(from.iter().cloned(), interrupt)
}

/// Elements that own a little memory each, as they come.
///
/// # Errors
/// [`Error::Interrupted`].
pub(crate) fn collected<T: Send + 'static>(
    mut elements: impl ExactSizeIterator<Item = T>,
    interrupt: Interrupt<'_>,
) -> Result<Vec<T>> {
    let mut copy = Heavy::new(Vec::with_capacity(elements.len()));
    while elements.len() > 0 {
        ask(interrupt)?;
        copy.extend(elements.by_ref().take(OWNING));
    }
    Ok(copy.keep())
}

/// Rows of `width` plain elements each, in another order.
///
/// # Errors
/// [`Error::Interrupted`].
pub(crate) fn rows<T: Copy + Send + 'static>(
    from: &[T],
    width: usize,
    order: &[Slot],
    interrupt: Interrupt<'_>,
) -> Result<Vec<T>> {
    let mut copy = Heavy::new(Vec::with_capacity(order.len() * width));
    for part in order.chunks(OWNING) {
        ask(interrupt)?;
        for &slot in part {
            copy.extend_from_slice(&from[slot as usize * width..(slot as usize + 1) * width]);
        }
    }
    Ok(copy.keep())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_copy_is_whole_or_given_up_when_asked() {
        let numbers: Vec<u32> = (0..3_000_000).collect();
        let texts: Vec<String> = (0..5000).map(|n| n.to_string()).collect();
        assert_eq!(plain(&numbers, &|| false).unwrap(), numbers);
        assert_eq!(owning(&texts, &|| false).unwrap(), texts);
        assert!(plain::<u64>(&[], &|| true).unwrap().is_empty());
        let asked = Cell::new(0);
        let third = || {
            asked.set(asked.get() + 1);
            asked.get() == 3
        };
        assert!(matches!(plain(&numbers, &third), Err(Error::Interrupted)));
        assert_eq!(asked.replace(0), 3);
        assert!(matches!(owning(&texts, &third), Err(Error::Interrupted)));
        assert_eq!(asked.get(), 3);
    }
}
