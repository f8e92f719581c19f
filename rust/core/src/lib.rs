//! A value memory for reinforcement learning.
//!
//! The store remembers episodes as embeddings, learns by Hebb's rule which memory leads to which,
//! replays episodes backwards to infer what is valuable as a means to a set of terminal values, and
//! scores new episodes by the path they take. `docs/model.md` holds every definition.
//!
//! ```
//! use sharpwave_core::{Config, Drives, Episodes, Observation, ReplayRequest, ScoreRequest, Store};
//!
//! # fn main() -> sharpwave_core::Result<()> {
//! let mut store = Store::new(Config::new(4))?;
//! store.add_channel("goal", 0.0, 1.0)?;
//!
//! // One episode of three steps; the last one reaches the goal.
//! let steps = [1., 0., 0., 0., 0., 1., 0., 0., 0., 0., 1., 0.];
//! let episodes = Episodes { steps: &steps, offsets: &[0, 3] };
//! let observation = Observation {
//!     episodes,
//!     drives: Some(Drives::Episodes(&[1.0])),
//!     texts: None,
//!     ids: None,
//!     source: None,
//!     propose: false,
//! };
//! let report = store.observe(&observation, &|| false)?;
//! assert_eq!(report.memory_ids, [0, 1, 2]);
//!
//! // One awake replay carried the goal's value back along the episode: γ/(1 + ε) a step.
//! let step = 0.7 / 1.02;
//! for (v, expected) in store.values().iter().zip([step * step, step, 1.0]) {
//!     assert!((f64::from(*v) - expected).abs() < 1e-6);
//! }
//! assert!(store.replay(&ReplayRequest::default(), &|| false)?.converged);
//!
//! let request = ScoreRequest {
//!     weights: None,
//!     functional: "coverage",
//!     context: &[1],
//!     habituation: None,
//!     discount: 1.0,
//!     details: false,
//!     threads: None,
//! };
//! let scores = store.score(&episodes, &request)?;
//! assert_eq!(scores.step[0], 0.0); // the prompt earns nothing
//! assert!(scores.total[0] > 0.0);
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

mod activation;
mod ahead;
mod associate;
mod calibrate;
mod channel;
mod columns;
mod config;
mod copied;
mod discard;
mod episodes;
mod error;
mod frozen;
mod gate;
mod graph;
mod history;
mod huge;
mod insert;
mod interrupt;
mod memory;
mod nbytes;
mod observe;
mod parallel;
mod partition;
mod persist;
mod predict;
mod read;
mod recall;
mod replay;
mod rng;
mod score;
mod search;
mod setup;
mod shared;
pub mod simd;
mod sleep;
mod store;
mod tidy;
mod trace;
mod undo;

pub use calibrate::Calibration;
pub use channel::{Channel, Kind};
pub use config::{Config, Equation};
pub use episodes::Episodes;
pub use error::{Error, Result};
pub use frozen::Frozen;
pub use gate::Outcome;
pub use history::Veto;
pub use interrupt::interruptible;
pub use observe::{Drives, Observation, ObserveReport, Pending};
pub use parallel::{num_threads, set_num_threads};
#[cfg(fuzzing)]
pub use persist::directory::follow_records;
pub use persist::directory::{Durability, Journal, Recovery};
pub use persist::repair::{Repair, repair};
pub use persist::segment::Commit;
pub use recall::{Path, RecallRequest};
pub use replay::{Ahead, Need, Order, ReplayReport, ReplayRequest, Stopped};
pub use score::{Association, Explanation, Habituation, Payer, ScoreRequest, Scores, functionals};
/// What benchmarks reach of the passes of a search; no part of the interface.
#[doc(hidden)]
pub use search::probe::Probe;
pub use search::{Partition, SearchReport};
pub use shared::{Denied, Log, Shared, Writer};
pub use sleep::Dream;
pub use store::Store;
