//! Replay: ordered backups that carry value from where it is had to what leads there.

pub(crate) mod ahead;
pub(crate) mod awake;
pub(crate) mod backup;
pub(crate) mod baseline;
mod kernel;
pub(crate) mod need;
pub(crate) mod priority;
pub(crate) mod sleep;
pub(crate) mod sweep;
pub(crate) mod values;

pub use ahead::Ahead;
pub use need::Need;
pub use sleep::{Order, ReplayReport, ReplayRequest, Stopped};
