//! Where a memory lies.

/// Where a memory lies in the columns.
pub(crate) type Slot = u32;
