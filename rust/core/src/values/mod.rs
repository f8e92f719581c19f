//! Replay: ordered backups that carry value from where it is had to what leads there.

pub(crate) mod awake;
pub(crate) mod backup;
pub(crate) mod baseline;
pub(crate) mod budget;
pub(crate) mod lookahead;
pub(crate) mod need;
pub(crate) mod padded;
pub(crate) mod prioritized;
pub(crate) mod replay;
pub(crate) mod sweep;
pub(crate) mod table;

pub use budget::Stopped;
pub use lookahead::Lookahead;
pub use need::Need;
pub use replay::{Order, ReplayReport, ReplayRequest};
