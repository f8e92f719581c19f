//! The inverted file: memories in blocks around centres.

pub(crate) mod blocks;
pub(crate) mod build;
pub(crate) mod kmeans;
pub(crate) mod visit;
