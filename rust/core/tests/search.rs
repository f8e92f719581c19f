//! The search against brute force in the canonical arithmetic, bit for bit.

mod world;

use proptest::prelude::*;
use sharpwave_core::{Config, Store, simd};
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
                .map(|(key, &id)| (simd::dot(&query, key), id))
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

fn filled(rows: &[f32], dim: usize) -> Store {
    let config = Config {
        keep_episodes: false,
        ..Config::new(dim)
    };
    let mut store = Store::new(config).unwrap();
    store.insert(rows, None, None).unwrap();
    store
}

/// The ladder: codes settle what has structure; what lies closer together than codes can tell goes on to a wider
/// pass; what no pass can tell apart is compared with everything. All of it finds the same.
#[test]
fn each_way_is_taken_where_it_should_be() {
    let (n, dim) = (4000, 64);
    let best = *simd::available().last().unwrap();
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
        let (_, _, report) = store.search_reported(queries, 8, Some(1)).unwrap();
        for threads in [2, 3] {
            let (_, _, again) = store.search_reported(queries, 8, Some(threads)).unwrap();
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
            "close" if simd::available().contains(&"avx2") => assert!(wide > 0, "{report:?}"),
            "same" => assert_eq!(report.plain, 150, "{report:?}"),
            _ => {}
        }
        check(&store, &queries[..40 * dim], 8, dim);
    }
}

/// The same properties on every instruction set that this processor has: it is chosen once a process.
#[test]
fn every_instruction_set_is_exact() {
    for set in simd::available() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .env("SHARPWAVE_SIMD", set)
            .args([
                "--exact",
                "equals_brute_force",
                "stays_exact_while_memories_come_move_and_go",
            ])
            .args(["each_way_is_taken_where_it_should_be"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && said.contains("3 passed"),
            "{set}: {said}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

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
    fn stays_exact_while_memories_come_move_and_go(kind in 0usize..5, seed in 0usize..1000) {
        let dim = 12;
        let config = Config { novelty: 0.5, capacity: Some(700), ..Config::new(dim) };
        let mut store = Store::new(config).unwrap();
        store.insert(&rows(kind, 650, dim, seed), None, None).unwrap();
        store.add_terminal("end", &rows(0, 1, dim, seed + 5), None, None).unwrap();
        for e in 0..12 {
            let steps = rows((kind + e) % 3, 11, dim, seed + 10 + e);
            observe(&mut store, &Batch::one(steps, dim), None);
        }
        let first = store.ids()[0];
        store.veto_memory(first).unwrap();
        check(&store, &rows(kind, 9, dim, seed + 99), 16, dim);
        let loaded = Store::from_bytes(&store.to_bytes().unwrap()).unwrap();
        check(&loaded, &rows(kind, 9, dim, seed + 99), 16, dim);
    }

    /// What a search made before an episode says, once mended, is what new searches would say: an episode
    /// written in one piece leaves the same memories as with the plain scan of a small `k`.
    #[test]
    fn writing_sees_every_change(seed in 0usize..1000, k in 1usize..5) {
        let dim = 6;
        let config = Config { novelty: 0.3, k, ..Config::new(dim) };
        let mut store = Store::new(config).unwrap();
        for e in 0..3 {
            observe(&mut store, &Batch::one(rows(1, 40, dim, seed + e), dim), None);
        }
        // Replayed step by step against the same gate, by hand.
        let mut keys: Vec<(Vec<f32>, u64)> = Vec::new();
        for e in 0..3 {
            for x in rows(1, 40, dim, seed + e).chunks_exact(dim) {
                let x = unit(x);
                let best = keys.iter().enumerate().map(|(i, (key, _))| (simd::dot(&x, key), i)).fold(
                    (f32::NEG_INFINITY, 0), |best, new| if new.0 > best.0 { new } else { best });
                let kappa = ((f64::from(best.0) - f64::from(0.2f32)) / (1.0 - f64::from(0.2f32))).clamp(0.0, 1.0);
                if keys.is_empty() || 1.0 - kappa * kappa >= 0.3 {
                    keys.push((x, 1));
                } else {
                    let (key, m) = &mut keys[best.1];
                    *m += 1;
                    let s = simd::dot(&x, key);
                    let moved: Vec<f32> = key.iter().zip(&x).map(|(k, x)| k + (x - s * k) / *m as f32).collect();
                    *key = unit(&moved);
                }
            }
        }
        let expected: Vec<f32> = keys.iter().flat_map(|(key, _)| key.clone()).collect();
        prop_assert_eq!(store.keys(), expected);
    }
}
