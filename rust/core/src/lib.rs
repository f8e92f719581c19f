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
//!     ..Observation::default()
//! };
//! let report = store.observe(&observation)?;
//! assert_eq!(report.memory_ids, [0, 1, 2]);
//!
//! // One awake replay carried the goal's value back along the episode: γ/(1 + ε) a step.
//! let step = 0.7 / 1.02;
//! for (v, expected) in store.values().iter().zip([step * step, step, 1.0]) {
//!     assert!((f64::from(*v) - expected).abs() < 1e-6);
//! }
//! assert!(store.replay(&ReplayRequest::default())?.converged);
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

#[cfg(not(unix))]
compile_error!("a store's directory needs openat, flock and fork handlers: sharpwave runs on Unix");

mod archive;
mod base;
mod config;
mod error;
mod graph;
mod index;
pub mod linalg;
mod memory;
mod ops;
mod query;
mod shared;
mod storage;
mod store;
mod values;

pub use base::cancel::Cancel;
pub use base::log::Log;
pub use base::threads::{num_threads, set_num_threads};
pub use config::{Config, Equation};
pub use error::{Error, Result};
/// What benchmarks reach of the passes of a search; no part of the interface.
#[doc(hidden)]
pub use index::probe::Probe;
pub use index::{Kernel, Partition, SearchReport};
pub use memory::channels::{Channel, Kind};
pub use memory::episodes::Episodes;
pub use ops::gate::Outcome;
pub use ops::history::Veto;
pub use ops::observe::{Access, Drives, Observation, ObserveReport, observe};
pub use ops::setup::Calibration;
pub use ops::sleep::ReplayPlan;
pub use query::frozen::Frozen;
pub use query::origins::{EpisodeRecord, Origin};
pub use query::recall::{Path, RecallRequest};
pub use query::score::{
    Association, Explanation, Habituation, Payment, ScoreRequest, Scores, functionals,
};
pub use query::spread::AssociateRequest;
pub use shared::{Denied, Shared, Writer};
#[cfg(fuzzing)]
pub use storage::journal::directory::follow_records;
pub use storage::journal::directory::{Durability, Journal, Recovery};
pub use storage::journal::segment::Commit;
pub use storage::repair::{Repair, repair};
pub use store::Store;
pub use values::{Lookahead, Need, Order, ReplayReport, ReplayRequest, Stopped};
