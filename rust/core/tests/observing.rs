//! Batches beside single episodes, and calls that are cancelled anywhere.

use std::cell::Cell;
use std::rc::Rc;

use sharpwave_core::{
    Cancel, Config, Drives, Episodes, Error, Observation, ObserveReport, Outcome, ReplayRequest,
    Result, Store,
};

/// `SplitMix64`, as in `src/base/rng.rs`.
fn splitmix64(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const DIM: usize = 6;

/// Rows of which many are close to each other.
fn rows(n: usize, seed: u64) -> Vec<f32> {
    (0..(n * DIM) as u64)
        .map(|i| (splitmix64(seed << 32 | i) >> 61) as f32 - 3.4)
        .collect()
}

fn observe(
    store: &mut Store,
    steps: &[f32],
    lengths: &[usize],
    drives: Option<Drives<'_>>,
) -> Result<ObserveReport> {
    let mut offsets = vec![0i64];
    for &length in lengths {
        offsets.push(offsets[offsets.len() - 1] + length as i64);
    }
    let episodes = Episodes {
        steps,
        offsets: &offsets,
    };
    store.observe(&Observation {
        episodes,
        drives,
        ..Observation::default()
    })
}

/// With a drive that rises from step to step.
fn observe_rising(store: &mut Store, steps: &[f32], lengths: &[usize]) -> Result<ObserveReport> {
    let drives: Vec<f32> = (0..steps.len() / DIM).map(|t| t as f32 / 100.0).collect();
    observe(store, steps, lengths, Some(Drives::Steps(&drives)))
}

/// A store that merged, evicted, slept and has free slots.
fn lived(capacity: Option<usize>) -> Store {
    let mut store = Store::new(Config {
        capacity,
        half_life: 1,
        min_novelty: 0.15,
        w_surprise: 0.5,
        ..Config::new(DIM)
    })
    .unwrap();
    store.add_channel("v", 0.0, 10.0).unwrap();
    for (name, seed) in [("goal", 9), ("a", 10), ("b", 11), ("c", 12)] {
        store
            .add_terminal(name, &rows(1, seed), None, None)
            .unwrap();
    }
    observe_rising(&mut store, &rows(600, 1), &[100, 3, 297, 200]).unwrap();
    store.replay(&ReplayRequest::default()).unwrap();
    let last = store.ids()[store.len() - 1];
    store.veto_memory(last).unwrap();
    observe_rising(&mut store, &rows(90, 2), &[40, 50]).unwrap();
    for name in ["a", "b", "c"] {
        store.remove_channel(name).unwrap();
    }
    store
}

/// Does `work`, which is given up when it asks for the `last`-th time.
fn until<T>(last: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let asked = Rc::new(Cell::new(0));
    let ask = move || {
        asked.set(asked.get() + 1);
        asked.get() >= last
    };
    Cancel::new(ask).scope(work)
}

/// What is given up anywhere leaves the bytes of the store, archive included, as they were; and it goes on as if
/// nobody had begun.
fn leaves_no_trace(
    capacity: Option<usize>,
    partitioned: bool,
    least: usize,
    mut work: impl FnMut(&mut Store) -> Result<()>,
) {
    let (mut store, mut twin) = (lived(capacity), lived(capacity));
    if partitioned {
        store.partition(Some(5), 1, None).unwrap();
    }
    let before = store.to_bytes().unwrap();
    let mut given_up = 0;
    loop {
        match until(1 + given_up, || work(&mut store)) {
            Ok(()) => break,
            Err(error) => assert!(matches!(error, Error::Interrupted)),
        }
        given_up += 1;
        assert_eq!(store.to_bytes().unwrap(), before, "{given_up}");
    }
    assert!(given_up > least, "{given_up}");
    work(&mut twin).unwrap();
    assert_eq!(store.digest(), twin.digest());
    let more = rows(300, 5);
    for store in [&mut store, &mut twin] {
        observe_rising(store, &more, &[150, 2, 148]).unwrap();
        store.replay(&ReplayRequest::default()).unwrap();
    }
    assert_eq!(store.to_bytes().unwrap(), twin.to_bytes().unwrap());
    let found = |store: &Store| store.search(&more, 7, None).unwrap();
    assert_eq!(found(&store), found(&twin));
}

#[test]
fn a_long_episode_that_is_given_up_leaves_no_trace() {
    let steps = rows(200, 3);
    for partitioned in [false, true] {
        leaves_no_trace(Some(120), partitioned, 3, |store| {
            let report = observe_rising(store, &steps, &[200])?;
            if report.interrupted && report.episode_ids.is_empty() {
                return Err(Error::Interrupted);
            }
            let new = report.outcomes.iter().filter(|o| **o == Outcome::New);
            assert!((1..200).contains(&new.count()), "some are merged");
            Ok(())
        });
    }
}

#[test]
fn an_insertion_that_is_given_up_leaves_no_trace() {
    let keys = rows(200, 4);
    for partitioned in [false, true] {
        leaves_no_trace(None, partitioned, 100, |store| {
            store.insert(&keys, None, None).map(drop)
        });
    }
}

/// Few dimensions and few memories, so that nearly all of them are touched in every window; much merging, eviction
/// and empty episodes.
#[test]
fn a_batch_is_written_as_its_episodes_one_by_one() {
    for (case, capacity) in [(0, None), (1, Some(18)), (2, Some(40)), (3, Some(300))] {
        for novelty in [0.02, 0.4, 0.9] {
            let dim = [3, 8, 24][case as usize % 3];
            let config = Config {
                min_novelty: novelty,
                capacity,
                tau: -0.3,
                half_life: 2,
                ..Config::new(dim)
            };
            let (mut whole, mut single) = (
                Store::new(config.clone()).unwrap(),
                Store::new(config).unwrap(),
            );
            for round in 0..4u64 {
                let lengths: Vec<usize> = (0..60)
                    .map(|e| (splitmix64(round << 8 | e) % 17) as usize)
                    .collect();
                let n = lengths.iter().sum::<usize>() * dim;
                let steps: Vec<f32> = (0..n as u64)
                    .map(|i| {
                        (splitmix64(case << 50 | round << 40 | i) >> 40) as f32 / 8_388_608.0 - 1.0
                    })
                    .collect();
                observe(&mut whole, &steps, &lengths, None).unwrap();
                let mut rest = steps.as_slice();
                for &length in &lengths {
                    let (episode, later) = rest.split_at(length * dim);
                    observe(&mut single, episode, &[length], None).unwrap();
                    rest = later;
                }
                assert_eq!(whole.digest(), single.digest(), "{case} {novelty} {round}");
            }
        }
    }
}

#[test]
fn work_stops_when_it_is_cancelled_and_only_then() {
    let check = || Cancel::current().check();
    assert!(check().is_ok());
    let asked = Rc::new(Cell::new(0));
    let counter = Rc::clone(&asked);
    let cancel = Cancel::new(move || {
        counter.set(counter.get() + 1);
        counter.get() > 3
    });
    let rounds = cancel.scope(|| (0..9).take_while(|_| check().is_ok()).count());
    assert_eq!(rounds, 3);
    assert!(check().is_ok(), "it holds for the work alone");
    cancel.scope(|| {
        assert!(Cancel::never().scope(check).is_ok());
        assert!(check().is_err(), "and stays cancelled");
    });
    assert_eq!(asked.get(), 4);
}
