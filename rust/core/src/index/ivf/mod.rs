//! The inverted file: memories in blocks around centres.

pub(crate) mod block_search;
pub(crate) mod blocks;
pub(crate) mod kmeans;
