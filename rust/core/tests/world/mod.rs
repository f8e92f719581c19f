//! Random stores and episodes for the property tests.
#![allow(dead_code)] // Each test file uses its part of the world.

use proptest::prelude::*;
use sharpwave_core::{
    Config, Drives, Episodes, Equation, Habituation, Observation, ObserveReport, ReplayRequest,
    ScoreRequest, Scores, Store,
};

/// How many cases a property is tried with: `n`, or as many times that as `SHARPWAVE_TIMES` says.
pub fn cases(n: u32) -> ProptestConfig {
    let times = std::env::var("SHARPWAVE_TIMES").map_or(1.0, |n| n.parse().expect("a number"));
    let cases = (f64::from(n) * times).ceil() as u32;
    ProptestConfig {
        cases,
        // Some properties hold for few of the lives that are drawn.
        max_global_rejects: 16 * cases.max(64),
        ..ProptestConfig::default()
    }
}

/// A ragged batch.
#[derive(Clone, Debug)]
pub struct Batch {
    pub steps: Vec<f32>,
    pub offsets: Vec<i64>,
}

impl Batch {
    pub fn one(steps: Vec<f32>, dim: usize) -> Self {
        let n = (steps.len() / dim) as i64;
        Self {
            steps,
            offsets: vec![0, n],
        }
    }

    pub fn episodes(&self) -> Episodes<'_> {
        Episodes {
            steps: &self.steps,
            offsets: &self.offsets,
        }
    }

    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }
}

/// The unit vector along axis `i`.
pub fn axis(i: usize, dim: usize) -> Vec<f32> {
    let mut x = vec![0.0; dim];
    x[i] = 1.0;
    x
}

/// One episode along the given axes.
pub fn along(axes: &[usize], dim: usize) -> Batch {
    Batch::one(axes.iter().flat_map(|&i| axis(i, dim)).collect(), dim)
}

pub fn observe(store: &mut Store, batch: &Batch, drives: Option<Drives<'_>>) -> ObserveReport {
    let observation = Observation {
        episodes: batch.episodes(),
        drives,
        ..Observation::default()
    };
    store.observe(&observation).unwrap()
}

pub fn sleep(store: &mut Store) {
    assert!(
        store
            .replay(&ReplayRequest {
                tol: 1e-6,
                ..ReplayRequest::default()
            })
            .unwrap()
            .converged
    );
}

pub fn score(
    store: &Store,
    batch: &Batch,
    functional: &str,
    context: usize,
    weights: Option<&[f64]>,
    habituation: Option<&Habituation>,
) -> Scores {
    let context = vec![context; batch.len()];
    let request = ScoreRequest {
        weights,
        functional,
        context: &context,
        habituation,
        discount: 1.0,
        details: true,
        threads: None,
    };
    store.score(&batch.episodes(), &request).unwrap()
}

/// Small integers as vectors, so that equal and similar steps are common.
pub fn episode(dim: usize) -> impl Strategy<Value = Batch> {
    prop::collection::vec(prop::collection::vec(-2i8..=2, dim), 1..8).prop_map(move |rows| {
        let steps = rows
            .into_iter()
            .flat_map(|mut row| {
                if row.iter().all(|&x| x == 0) {
                    row[0] = 1;
                }
                row.into_iter().map(f32::from).collect::<Vec<_>>()
            })
            .collect();
        Batch::one(steps, dim)
    })
}

pub fn config(dim: usize) -> impl Strategy<Value = Config> {
    (
        1usize..8,
        prop::sample::select(vec![0.0f64, 0.5, 0.95]),
        prop::sample::select(vec![1usize, 3, 32]),
        prop::sample::select(vec![0.3f64, 0.9, 1.0]),
        prop::sample::select(vec![Equation::Stopping, Equation::Return]),
        prop::option::of(3usize..20),
    )
        .prop_map(
            move |(k, trace, max_out, novelty, equation, capacity)| Config {
                k,
                trace,
                max_out,
                min_novelty: novelty,
                equation,
                capacity,
                ..Config::new(dim)
            },
        )
}

/// A store of two channels that lived through some episodes, and those episodes.
pub fn lived(dim: usize) -> impl Strategy<Value = (Store, Vec<Batch>)> {
    (
        config(dim),
        prop::collection::vec((episode(dim), 0u8..4), 1..12),
    )
        .prop_map(move |(config, episodes)| {
            let mut store = Store::new(config).unwrap();
            store
                .add_terminal("end", &axis(0, dim), None, None)
                .unwrap();
            store.add_channel("reward", 0.0, 1.0).unwrap();
            for (batch, reward) in &episodes {
                let reward = [f32::from(*reward) / 3.0];
                observe(&mut store, batch, Some(Drives::Episodes(&reward)));
            }
            (
                store,
                episodes.into_iter().map(|(batch, _)| batch).collect(),
            )
        })
}
