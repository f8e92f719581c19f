//! The search against brute force in the canonical arithmetic, bit for bit.

mod world;

use std::cell::Cell;
use std::rc::Rc;

use proptest::prelude::*;
use sharpwave_core::{Cancel, Config, Error, Store, linalg};
use world::{Batch, observe};

/// A pseudo-random unit-scale number.
fn noise(i: usize) -> f32 {
    let z = (i as u64)
        .wrapping_add(1)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (z >> 40) as f32 / 8_388_608.0 - 1.0
}

/// Rows of several kinds, all awkward for a first pass in some way.
fn rows(kind: usize, n: usize, dim: usize, seed: usize) -> Vec<f32> {
    let at = |i: usize, j: usize| noise(seed * 1_000_003 + i * dim + j);
    let mut rows: Vec<f32> = match kind {
        // Gaussian-like.
        0 => (0..n * dim).map(|i| at(i / dim, i % dim)).collect(),
        // Tight clusters.
        1 => (0..n * dim)
            .map(|i| at(i / dim % 5 + n, i % dim) + 0.02 * at(i / dim, i % dim))
            .collect(),
        // Duplicates: all ties.
        2 => (0..n * dim).map(|i| at(i / dim % 3, i % dim)).collect(),
        // One dimension outweighs all others.
        3 => (0..n * dim)
            .map(|i| {
                if i % dim == 0 {
                    1000.0
                } else {
                    at(i / dim, i % dim)
                }
            })
            .collect(),
        // Gaussian, nearly: the sum of four.
        4 => (0..n * dim)
            .map(|i| (0..4).map(|j| at(4 * i / dim, 4 * i % dim + j)).sum())
            .collect(),
        // Nearly nothing but one entry, subnormals among the rest.
        _ => (0..n * dim)
            .map(|i| {
                if i % dim == i / dim % dim {
                    1.0
                } else {
                    1e-42 * at(i / dim, i % dim)
                }
            })
            .collect(),
    };
    for row in rows.chunks_exact_mut(dim) {
        if row.iter().all(|x| *x == 0.0) {
            row[0] = 1.0;
        }
    }
    rows
}

fn unit(x: &[f32]) -> Vec<f32> {
    let norm = x
        .iter()
        .fold(0.0f64, |sum, x| sum + f64::from(*x) * f64::from(*x))
        .sqrt();
    x.iter().map(|x| (f64::from(*x) / norm) as f32).collect()
}

fn check(store: &Store, queries: &[f32], k: usize, dim: usize) {
    let (ids, keys) = (store.ids(), store.keys());
    for threads in [1, 3] {
        let (found, similarities) = store.search(queries, k, Some(threads)).unwrap();
        for (at, query) in queries.chunks_exact(dim).enumerate() {
            let query = unit(query);
            let mut expected: Vec<(f32, i64)> = keys
                .chunks_exact(dim)
                .zip(&ids)
                .map(|(key, &id)| (linalg::dot(&query, key), id))
                .collect();
            expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            expected.resize(k.max(expected.len()), (f32::NEG_INFINITY, -1));
            for (place, &(similarity, id)) in expected.iter().take(k).enumerate() {
                assert_eq!(found[at * k + place], id);
                let got = similarities[at * k + place];
                assert_eq!(got.to_bits(), similarity.to_bits());
            }
        }
    }
}

/// All memories are in a block, each in one: to look into all blocks but one at a time finds what is there.
fn check_partition(store: &Store, kind: usize, seed: usize, dim: usize) {
    let Some(blocks) = store.blocks() else { return };
    let asked = rows(kind, 9, dim, seed + 98);
    check(store, &asked, 16, dim);
    if blocks > 1 {
        let n = store.len();
        let (ids, _, _) = store
            .search_reported(&asked, n, Some(blocks - 1), Some(3))
            .unwrap();
        for found in ids.chunks_exact(n) {
            let mut found: Vec<i64> = found.iter().copied().filter(|&id| id >= 0).collect();
            let count = found.len();
            found.sort_unstable();
            found.dedup();
            assert_eq!(found.len(), count);
            assert!(found.iter().all(|id| store.ids().contains(id)));
        }
    }
}

fn filled(rows: &[f32], dim: usize) -> Store {
    let config = Config {
        keep_episodes: false,
        ..Config::new(dim)
    };
    let mut store = Store::new(config).unwrap();
    store.insert(rows, None, None).unwrap();
    store
}

/// The bound of any summation order (Higham 2002, 3.1): `n·u·Σ|a_i b_i|`.
#[test]
fn the_dot_is_within_its_error_bound() {
    for n in [1, 31, 32, 33, 384, 2100] {
        let (a, b) = (rows(0, 1, n, 3), rows(0, 1, n, 4));
        let products = || a.iter().zip(&b).map(|(x, y)| f64::from(*x) * f64::from(*y));
        let bound =
            (n + 2) as f64 * f64::from(f32::EPSILON) * products().map(f64::abs).sum::<f64>();
        let dot = f64::from(linalg::dot(&a, &b));
        assert!((dot - products().sum::<f64>()).abs() <= bound);
    }
}

/// The ladder: codes settle what has structure; what lies closer together than codes can tell goes on to a wider
/// pass; what no pass can tell apart is compared with everything. All of it finds the same.
#[test]
fn each_way_is_taken_where_it_should_be() {
    let (n, dim) = (4000, 64);
    let best = *linalg::available().last().unwrap();
    let forced = std::env::var("SHARPWAVE_SIMD").unwrap_or_else(|_| best.to_owned());
    // Around 4 centres, at a distance that bf16 can tell apart and int8 cannot.
    let close: Vec<f32> = (0..n * dim)
        .map(|i| noise(i / dim % 4 * dim + i % dim) + 0.008 * noise(1_000_000 + i))
        .collect();
    for (name, keys) in [
        ("noise", rows(0, n, dim, 1)),
        ("close", close),
        ("same", rows(2, n, dim, 1)),
    ] {
        let store = filled(&keys, dim);
        let queries = &keys[..150 * dim];
        let (_, _, report) = store.search_reported(queries, 8, None, Some(1)).unwrap();
        for threads in [2, 3] {
            let (_, _, again) = store
                .search_reported(queries, 8, None, Some(threads))
                .unwrap();
            assert_eq!(report, again);
        }
        let wide = report.bf16 + report.f32;
        assert_eq!(report.int8 + wide + report.plain, 150, "{name} {report:?}");
        if forced == "portable" {
            assert_eq!((report.kernel, report.plain), (None, 150));
            continue;
        }
        assert!(report.kernel.is_some());
        match name {
            "noise" => assert_eq!(report.int8, 150, "{report:?}"),
            "close" if linalg::available().contains(&"avx2") => assert!(wide > 0, "{report:?}"),
            "same" => assert_eq!(report.plain, 150, "{report:?}"),
            _ => {}
        }
        check(&store, &queries[..40 * dim], 8, dim);
    }
}

/// Clusters far apart: the search looks into few blocks, on any number of threads the same ones, also for memories
/// that came, moved and went after the division. Noise: it does not even try.
#[test]
fn bounds_leave_out_blocks_of_tight_clusters() {
    let (n, dim) = (6000, 32);
    let cluster = |i: usize, seed: usize| -> Vec<f32> {
        (0..dim)
            .map(|j| noise(i % 30 * dim + j) + 0.05 * noise(9_000_000 + seed + i * dim + j))
            .collect()
    };
    let tight: Vec<f32> = (0..n).flat_map(|i| cluster(i, 0)).collect();
    let config = Config {
        min_novelty: 0.02,
        keep_episodes: false,
        capacity: Some(n + 10),
        ..Config::new(dim)
    };
    let mut store = Store::new(config).unwrap();
    store.insert(&tight, None, None).unwrap();
    store.partition(None, 3, None).unwrap();
    for e in 0..3 {
        let steps: Vec<f32> = (0..20).flat_map(|i| cluster(i, 77 + e)).collect();
        observe(&mut store, &Batch::one(steps, dim), None);
    }
    let asked: Vec<f32> = (0..50).flat_map(|i| cluster(i, 555)).collect();
    check(&store, &asked, 8, dim);
    let (.., report) = store.search_reported(&asked, 8, None, Some(1)).unwrap();
    let (.., again) = store.search_reported(&asked, 8, None, Some(3)).unwrap();
    assert_eq!(report.probed, again.probed);
    if report.kernel.is_some() {
        assert_eq!(report.blocks, 50, "{report:?}");
        assert!(
            report.probed < 50 * store.blocks().unwrap() / 4,
            "{report:?}"
        );
    }
    let recall = store
        .recall_at(&asked, 8, store.blocks().unwrap() / 4, None)
        .unwrap();
    assert!(recall > 0.9, "{recall}");

    let mut noisy = filled(&rows(0, n, dim, 1), dim);
    noisy.partition(None, 3, None).unwrap();
    let (.., report) = noisy.search_reported(&asked, 8, None, None).unwrap();
    assert_eq!((report.blocks, report.probed), (0, 0));
}

/// The division is the same for a seed, on any number of threads, and no part of the store's state.
#[test]
fn a_partition_is_deterministic_and_beside_the_state() {
    let dim = 24;
    let keys = rows(0, 3000, dim, 1);
    let asked = rows(0, 40, dim, 2);
    let found = |seed: u64, threads: usize| {
        let mut store = filled(&keys, dim);
        let before = store.digest();
        store.partition(Some(50), seed, Some(threads)).unwrap();
        assert_eq!(store.digest(), before);
        let bytes = store.to_bytes().unwrap();
        assert!(bytes.len() == filled(&keys, dim).to_bytes().unwrap().len());
        assert_eq!(Store::from_bytes(&bytes).unwrap().blocks(), None);
        store.search_reported(&asked, 8, Some(3), None).unwrap()
    };
    assert_eq!(found(5, 1), found(5, 3));
    assert_ne!(found(5, 1).0, found(6, 1).0);
}

/// Whoever waits for a look into many blocks can give up between any two of them.
#[test]
fn a_visit_looks_up_between_blocks() {
    let (dim, nprobe) = (24, 40);
    let mut store = filled(&rows(0, 3000, dim, 1), dim);
    store.partition(Some(50), 5, None).unwrap();
    let one = rows(0, 1, dim, 2);
    let search = || store.search_reported(&one, 8, Some(nprobe), Some(1));
    let asked = Rc::new(Cell::new(0));
    let counter = Rc::clone(&asked);
    let count = move || {
        counter.set(counter.get() + 1);
        false
    };
    let (.., report) = Cancel::new(count).scope(search).unwrap();
    if report.kernel.is_some() {
        assert!(asked.get() >= nprobe, "{} times", asked.get());
        for looks in [nprobe / 2, nprobe - 1] {
            let left = Cell::new(looks);
            let enough = move || {
                left.set(left.get().saturating_sub(1));
                left.get() == 0
            };
            let outcome = Cancel::new(enough).scope(search);
            assert!(matches!(outcome, Err(Error::Interrupted)));
        }
    }
}

/// A division is refused by memories that it was not made of, and by bad numbers.
#[test]
fn a_partition_is_of_its_memories() {
    let dim = 8;
    let mut store = filled(&rows(0, 100, dim, 1), dim);
    assert!(
        store
            .search_reported(&rows(0, 1, dim, 2), 4, Some(1), None)
            .is_err()
    );
    let stale = store.divided(None, 0, None).unwrap();
    store.insert(&rows(0, 1, dim, 3), None, None).unwrap();
    assert!(store.adopt(stale).is_err());
    for blocks in [0, 102] {
        assert!(store.partition(Some(blocks), 0, None).is_err());
    }
    assert_eq!(store.blocks(), None);
    let fresh = store.divided(None, 0, None).unwrap();
    store.adopt(fresh).unwrap();
    assert_eq!(store.blocks(), Some(10));
    assert!(
        store
            .search_reported(&rows(0, 1, dim, 2), 4, Some(0), None)
            .is_err()
    );
}

/// The same properties on every instruction set that this processor has: it is chosen once a process.
#[test]
fn every_instruction_set_is_exact() {
    for set in linalg::available() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .env("SHARPWAVE_SIMD", set)
            .args([
                "--exact",
                "equals_brute_force",
                "stays_exact_while_memories_come_move_and_go",
                "a_partition_changes_nothing",
                "bounds_leave_out_blocks_of_tight_clusters",
            ])
            .args(["each_way_is_taken_where_it_should_be"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && said.contains("5 passed"),
            "{set}: {said}"
        );
    }
}

proptest! {
    #![proptest_config(world::cases(40))]

    #[test]
    fn equals_brute_force(
        kind in 0usize..6,
        n in 500usize..900,
        dim in prop::sample::select(vec![1usize, 3, 7, 16, 33, 65, 100, 384]),
        k in prop::sample::select(vec![1usize, 2, 16, 48, 49, 60, 100, 1000]),
        queries in 1usize..30,
        seed in 0usize..1000,
    ) {
        let mut store = Store::new(Config::new(dim)).unwrap();
        store.insert(&rows(kind, n, dim, seed), None, None).unwrap();
        let mut asked = rows(kind, queries, dim, seed + 1);
        asked.extend(&store.keys()[..dim]);
        check(&store, &asked, k, dim);
    }

    #[test]
    fn a_partition_changes_nothing(
        kind in 0usize..6,
        n in 1usize..1500,
        dim in prop::sample::select(vec![1usize, 3, 16, 65, 100]),
        k in prop::sample::select(vec![1usize, 2, 16, 60, 1000]),
        blocks in 1usize..60,
        seed in 0usize..1000,
    ) {
        let mut store = filled(&rows(kind, n, dim, seed), dim);
        store.partition(Some(blocks.min(n)), seed as u64, None).unwrap();
        let mut asked = rows(kind, 6, dim, seed + 1);
        asked.extend(rows(0, 3, dim, seed + 2));
        asked.extend(&store.keys()[..dim]);
        check(&store, &asked, k, dim);
        let (ids, similarities) = store.search(&asked, k, None).unwrap();
        let all = store.search_reported(&asked, k, Some(blocks), None).unwrap();
        prop_assert_eq!((&all.0, &all.1), (&ids, &similarities));
        // In fewer blocks: the same on any number of threads, and nothing that is not there.
        for nprobe in [1, 2, blocks / 2 + 1] {
            let one = store.search_reported(&asked, k, Some(nprobe), Some(1)).unwrap();
            let three = store.search_reported(&asked, k, Some(nprobe), Some(3)).unwrap();
            prop_assert_eq!(&one, &three);
            for (at, (&id, &similarity)) in one.0.iter().zip(&one.1).enumerate() {
                prop_assert!(similarity <= similarities[at]);
                if id >= 0 {
                    let query = unit(&asked[at / k * dim..(at / k + 1) * dim]);
                    let key = &store.keys()[id as usize * dim..(id as usize + 1) * dim];
                    prop_assert_eq!(similarity.to_bits(), linalg::dot(&query, key).to_bits());
                }
            }
        }
    }

    #[test]
    fn stays_exact_while_memories_come_move_and_go(
        kind in 0usize..5,
        seed in 0usize..1000,
        blocks in prop::option::of(1usize..40),
    ) {
        let dim = 12;
        let config = Config { min_novelty: 0.5, capacity: Some(700), ..Config::new(dim) };
        let mut store = Store::new(config).unwrap();
        store.insert(&rows(kind, 650, dim, seed), None, None).unwrap();
        if blocks.is_some() {
            store.partition(blocks, 0, None).unwrap();
        }
        store.add_terminal("end", &rows(0, 1, dim, seed + 5), None, None).unwrap();
        for e in 0..12 {
            let steps = rows((kind + e) % 3, 11, dim, seed + 10 + e);
            observe(&mut store, &Batch::one(steps, dim), None);
        }
        check_partition(&store, kind, seed, dim);
        let first = store.ids()[0];
        store.veto_memory(first).unwrap();
        prop_assert_eq!(store.blocks(), blocks);
        check_partition(&store, kind, seed, dim);
        check(&store, &rows(kind, 9, dim, seed + 99), 16, dim);
        let loaded = Store::from_bytes(&store.to_bytes().unwrap()).unwrap();
        check(&loaded, &rows(kind, 9, dim, seed + 99), 16, dim);
    }

    /// What a search made before an episode says, once mended, is what new searches would say: an episode
    /// written in one piece leaves the same memories as with the plain scan of a small `k`.
    #[test]
    fn writing_sees_every_change(seed in 0usize..1000, k in 1usize..5) {
        let dim = 6;
        let config = Config { min_novelty: 0.3, k, ..Config::new(dim) };
        let mut store = Store::new(config).unwrap();
        for e in 0..3 {
            observe(&mut store, &Batch::one(rows(1, 40, dim, seed + e), dim), None);
        }
        // Replayed step by step against the same gate, by hand.
        let mut keys: Vec<(Vec<f32>, u64)> = Vec::new();
        for e in 0..3 {
            for x in rows(1, 40, dim, seed + e).chunks_exact(dim) {
                let x = unit(x);
                let best = keys.iter().enumerate().map(|(i, (key, _))| (linalg::dot(&x, key), i)).fold(
                    (f32::NEG_INFINITY, 0), |best, new| if new.0 > best.0 { new } else { best });
                let kappa = ((f64::from(best.0) - f64::from(0.2f32)) / (1.0 - f64::from(0.2f32))).clamp(0.0, 1.0);
                if keys.is_empty() || 1.0 - kappa * kappa >= 0.3 {
                    keys.push((x, 1));
                } else {
                    let (key, m) = &mut keys[best.1];
                    *m += 1;
                    let s = linalg::dot(&x, key);
                    let moved: Vec<f32> = key.iter().zip(&x).map(|(k, x)| k + (x - s * k) / *m as f32).collect();
                    *key = unit(&moved);
                }
            }
        }
        let expected: Vec<f32> = keys.iter().flat_map(|(key, _)| key.clone()).collect();
        prop_assert_eq!(store.keys(), expected);
    }
}
