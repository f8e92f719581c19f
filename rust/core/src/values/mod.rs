//! Replay: ordered backups that carry value from rewarded memories to their predecessors.

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

pub(crate) use backup::{Model, distance, solve};
pub(crate) use budget::Budget;
pub use budget::Stopped;
pub use lookahead::Lookahead;
pub use need::Need;
pub(crate) use need::Needs;
pub(crate) use padded::PaddedValues;
pub(crate) use prioritized::{PushOutcome, Queue, SweepThreshold};
pub use replay::{Order, ReplayReport, ReplayRequest};
pub(crate) use table::Values;
