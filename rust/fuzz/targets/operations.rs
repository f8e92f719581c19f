//! Any sequence of operations on a store in a directory: what they say holds afterwards, and opening makes it again.

#![no_main]

use std::path::PathBuf;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sharpwave_core::{Config, Drives, Durability, Episodes, Error, Journal, Log, Lookahead, Need, Observation, Order, ReplayRequest, Store};

const DIM: usize = 4;

#[derive(Arbitrary, Debug)]
enum Verb {
    Calibrate(Vec<[i8; DIM]>),
    AddTerminal(u8, [i8; DIM], Option<(f32, f32)>),
    AddChannel(u8, f32, f32),
    RemoveChannel(u8),
    Observe(Vec<Vec<[i8; DIM]>>, Vec<f32>, Option<i64>, bool),
    Insert(Vec<[f32; DIM]>, Option<String>),
    Replay(u8, Option<u16>, f64, bool, Option<f64>, Vec<i64>),
    VetoEpisode(i64),
    VetoMemory(i64),
    BindEmbedder(String),
    Compact,
    Reopen,
}

#[derive(Arbitrary, Debug)]
struct Life {
    capacity: Option<u8>,
    keep_episodes: bool,
    max_out: u8,
    verbs: Vec<Verb>,
}

fn flat(rows: &[[i8; DIM]]) -> Vec<f32> {
    rows.iter().flatten().map(|&x| f32::from(x)).collect()
}

fn act(store: &mut Store, verb: &Verb) -> Result<(), Error> {
    match verb {
        Verb::Calibrate(rows) => {
            let (steps, offsets) = (flat(rows), [0, rows.len() as i64]);
            let episodes = Episodes {
                steps: &steps,
                offsets: &offsets,
            };
            store.calibrate(&episodes).map(drop)
        }
        Verb::AddTerminal(name, key, range) => store
            .add_terminal(
                &name.to_string(),
                &flat(&[*key]),
                range.map(|r| r.0),
                range.map(|r| r.1),
            )
            .map(drop),
        Verb::AddChannel(name, low, high) => {
            store.add_channel(&name.to_string(), *low, *high).map(drop)
        }
        Verb::RemoveChannel(name) => store.remove_channel(&name.to_string()),
        Verb::Observe(batch, drives, id, propose) => {
            let mut offsets = vec![0];
            let mut steps = Vec::new();
            for episode in batch {
                steps.extend(flat(episode));
                offsets.push((steps.len() / DIM) as i64);
            }
            let observation = Observation {
                episodes: Episodes {
                    steps: &steps,
                    offsets: &offsets,
                },
                drives: (!drives.is_empty()).then_some(Drives::Episodes(drives)),
                texts: None,
                ids: id.as_ref().map(std::slice::from_ref),
                source: None,
                propose: *propose,
            };
            store.observe(&observation).map(drop)
        }
        Verb::Insert(rows, text) => {
            let texts = text.as_ref().map(|text| vec![text.clone(); rows.len()]);
            store
                .insert(rows.as_flattened(), None, texts.as_deref())
                .map(drop)
        }
        Verb::Replay(kind, budget, tol, consolidate, max_drift, starts) => {
            let request = ReplayRequest {
                budget: Some(u64::from(budget.unwrap_or(300))),
                tol: *tol,
                order: [Order::Prioritized, Order::Reverse, Order::Full][usize::from(kind % 3)],
                need: match kind / 3 % 3 {
                    0 => Need::Uniform,
                    1 => Need::Frequency,
                    _ => Need::From(starts.clone()),
                },
                lookahead: Lookahead {
                    floor: [0.0, 1e-10, 0.3][usize::from(kind / 9 % 3)],
                    extend: kind / 27 % 2 == 1,
                },
                consolidate: *consolidate,
                max_drift: *max_drift,
                seconds: None,
                threads: Some(1),
            };
            store.replay(&request).map(drop)
        }
        Verb::VetoEpisode(id) => store.veto_episodes(vec![*id]),
        Verb::VetoMemory(id) => store.veto_memory(*id),
        Verb::BindEmbedder(name) => store.bind_embedder(name),
        Verb::Compact | Verb::Reopen => Ok(()),
    }
}

/// `came` terminals came since the last episode, which stay in a store that was full: what is too much goes with the next.
fn check(store: &Store, came: usize) {
    let (sources, targets, weights) = store.edges();
    assert!(sources.iter().zip(&targets).all(|(i, j)| i != j));
    assert!(weights.iter().all(|p| (0.0..=1.000_001).contains(p)));
    assert!(store.values().iter().all(|v| v.is_finite()));
    let ids = store.ids();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    if let Some(capacity) = store.config().capacity {
        let terminals = store.is_terminal().iter().filter(|&&t| t).count();
        assert!(store.len() <= capacity.max(terminals) + came);
    }
}

fuzz_target!(|life: Life| {
    let config = Config {
        capacity: life.capacity.map(|n| 8 + usize::from(n)),
        keep_episodes: life.keep_episodes,
        max_out: 1 + usize::from(life.max_out),
        ..Config::new(DIM)
    };
    let folder = PathBuf::from(format!("/dev/shm/sharpwave-fuzz-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let open = |config| Journal::open(&folder, config, Durability::Process).unwrap();
    let (mut store, mut journal, _) = open(Some(&config));
    let mut came = 0;
    for verb in life.verbs.iter().take(40) {
        let (lived, memories) = (store.episodes_observed(), store.len());
        match verb {
            Verb::Compact => journal.compact(&store).unwrap(),
            Verb::Reopen => {
                let before = store.to_bytes().unwrap();
                drop(journal);
                (store, journal, _) = open(None);
                assert!(store.to_bytes().unwrap() == before);
            }
            verb => {
                let before = store.digest();
                let done = journal.during(&mut store, |store| act(store, verb));
                if done.is_err() {
                    assert_eq!(store.digest(), before, "what fails leaves no trace");
                }
            }
        }
        if store.episodes_observed() > lived {
            came = 0;
        } else if matches!(verb, Verb::AddTerminal(..)) {
            came += store.len() - memories;
        } else if matches!(verb, Verb::VetoEpisode(..) | Verb::VetoMemory(..)) {
            // The episode that drove them out may never have been.
            came = store.is_terminal().iter().filter(|&&t| t).count();
        }
        check(&store, came);
    }
    let (read, _) = Journal::read(&folder).unwrap();
    assert!(read.to_bytes().unwrap() == store.to_bytes().unwrap());
});
