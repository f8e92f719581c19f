//! The invariants of `docs/model.md`, What must always hold, by their numbers there.

mod world;

use std::collections::BTreeMap;

use proptest::prelude::*;
use sharpwave_core::{Config, Drives, Equation, Kernel, Need, Order, ReplayRequest, Scores, Store};
use world::{Batch, along, axis, episode, lived, observe, score, sleep};

const DIM: usize = 5;

fn rows(store: &Store) -> BTreeMap<i64, f64> {
    let (sources, _, weights) = store.edges();
    let mut rows = BTreeMap::new();
    for (source, p) in sources.into_iter().zip(weights) {
        assert!(p >= 0.0);
        *rows.entry(source).or_default() += p;
    }
    rows
}

/// `(I − γP) v = r` by Gaussian elimination with pivoting, one channel.
fn dense_solve(store: &Store, q: usize) -> Vec<f64> {
    let ids = store.ids();
    let (n, channels, gamma) = (ids.len(), store.channels().len(), store.config().gamma);
    let mut a = vec![vec![0.0; n + 1]; n];
    for (i, row) in a.iter_mut().enumerate() {
        row[i] = 1.0;
        row[n] = f64::from(store.drives()[i * channels + q]);
    }
    let rank = |id: i64| ids.binary_search(&id).unwrap();
    let (sources, targets, weights) = store.edges();
    for ((source, target), p) in sources.into_iter().zip(targets).zip(weights) {
        a[rank(source)][rank(target)] -= gamma * p;
    }
    for i in 0..n {
        let pivot = (i..n)
            .max_by(|&x, &y| a[x][i].abs().total_cmp(&a[y][i].abs()))
            .unwrap();
        a.swap(i, pivot);
        for j in i + 1..n {
            let f = a[j][i] / a[i][i];
            let row = a[i].clone();
            for (x, y) in a[j].iter_mut().zip(row) {
                *x -= f * y;
            }
        }
    }
    let mut v = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|k| a[i][k] * v[k]).sum();
        v[i] = (a[i][n] - known) / a[i][i];
    }
    v
}

fn with_equation(store: &Store, orders: &[Order]) -> Vec<Vec<f32>> {
    orders
        .iter()
        .map(|&order| {
            let mut store = store.clone();
            let report = store
                .replay(&ReplayRequest {
                    order,
                    tol: 1e-5,
                    need: Need::Uniform,
                    ..ReplayRequest::default()
                })
                .unwrap();
            assert!(report.converged && report.residual <= 1.001e-5);
            store.values()
        })
        .collect()
}

fn steps_of(scores: &Scores) -> &[f32] {
    &scores.step
}

proptest! {
    #![proptest_config(world::cases(64))]

    #[test]
    fn p1_rows_are_sub_stochastic_after_anything((mut store, episodes) in lived(DIM), which in any::<prop::sample::Index>()) {
        prop_assert!(rows(&store).values().all(|&sum| sum <= 1.0 + 1e-9));
        sleep(&mut store);
        let ids = store.ids();
        let id = ids[which.index(ids.len())];
        if !store.is_terminal()[which.index(ids.len())] {
            store.veto_memory(id).unwrap();
            prop_assert!(rows(&store).values().all(|&sum| sum <= 1.0 + 1e-9));
        }
        store.veto_episodes(vec![which.index(episodes.len()) as i64]).unwrap();
        prop_assert!(rows(&store).values().all(|&sum| sum <= 1.0 + 1e-9));
    }

    #[test]
    fn p2_one_hot_transitions_are_empirical_frequencies(walks in prop::collection::vec(prop::collection::vec(0usize..6, 2..9), 1..8)) {
        let config = Config { epsilon: 1e-3, ..Config::new(6) };
        let mut store = Store::new(config).unwrap();
        let mut seen: BTreeMap<usize, i64> = BTreeMap::new();
        let (mut from, mut pairs) = (BTreeMap::new(), BTreeMap::new());
        for walk in &walks {
            let report = observe(&mut store, &along(walk, 6), None);
            for (&state, &id) in walk.iter().zip(&report.memory_ids) {
                seen.insert(state, id);
            }
            for pair in walk.windows(2) {
                *from.entry(pair[0]).or_insert(0.0) += 1.0;
                *pairs.entry((pair[0], pair[1])).or_insert(0.0) += 1.0;
            }
        }
        let (sources, targets, weights) = store.edges();
        let learned: BTreeMap<(i64, i64), f64> =
            sources.into_iter().zip(targets).zip(weights).collect();
        for ((a, b), n) in &pairs {
            let expected = if a == b { 0.0 } else { n / from[a] / 1.001 };
            let p = learned.get(&(seen[a], seen[b])).copied().unwrap_or(0.0);
            prop_assert!((p - expected).abs() < 1e-12, "{a}->{b}: {p} {expected}");
        }
        prop_assert_eq!(learned.len(), pairs.keys().filter(|(a, b)| a != b).count());
    }

    #[test]
    fn p3_every_fair_order_reaches_one_fixed_point((store, _) in lived(DIM)) {
        let found = with_equation(&store, &[Order::Prioritized, Order::Reverse, Order::Full]);
        for other in &found[1..] {
            for (a, b) in found[0].iter().zip(other) {
                prop_assert!((a - b).abs() <= 2.1e-5);
            }
        }
    }

    #[test]
    fn p3_the_residual_bounds_the_distance((store, _) in lived(DIM), budget in 0u64..40) {
        let mut exact = store.clone();
        sleep(&mut exact);
        let mut partial = store;
        let report = partial
            .replay(&ReplayRequest { budget: Some(budget), ..ReplayRequest::default() })
            .unwrap();
        prop_assert!(report.backups <= budget);
        for (a, b) in partial.values().iter().zip(exact.values()) {
            prop_assert!(f64::from((a - b).abs()) <= report.residual + 3e-6);
        }
    }

    #[test]
    fn p4_stopping_values_lie_between_the_drive_and_the_best_drive((mut store, _) in lived(DIM)) {
        sleep(&mut store);
        if store.config().equation == Equation::Stopping {
            let (drives, values) = (store.drives(), store.values());
            let best = (0..2).map(|q| drives.iter().skip(q).step_by(2).copied().fold(0.0, f32::max));
            let best: Vec<f32> = best.collect();
            for (at, (&r, &v)) in drives.iter().zip(&values).enumerate() {
                prop_assert!(r <= v + 1e-6 && v <= best[at % 2] + 1e-6);
            }
        }
    }

    #[test]
    fn p5_return_values_equal_the_dense_solve((mut store, _) in lived(DIM)) {
        sleep(&mut store);
        if store.config().equation == Equation::Return {
            for q in 0..2 {
                for (v, exact) in store.values().iter().skip(q).step_by(2).zip(dense_solve(&store, q)) {
                    prop_assert!((f64::from(*v) - exact).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn p7_repetition_pays_exactly_nothing((mut store, _) in lived(DIM), story in episode(DIM), at in any::<prop::sample::Index>()) {
        sleep(&mut store);
        for functional in ["coverage", "progress"] {
            let n = story.steps.len() / DIM;
            let t = at.index(n);
            let step = &story.steps[t * DIM..(t + 1) * DIM];
            let mut repeated = story.clone();
            let end = (t + 1) * DIM;
            repeated.steps.splice(end..end, step.iter().copied());
            repeated.offsets[1] += 1;
            let scores = score(&store, &repeated, functional, 0, None, None);
            if store.config().equation == Equation::Stopping {
                prop_assert_eq!(steps_of(&scores)[t + 1], 0.0);
                let once = score(&store, &world::Batch::one(step.to_vec(), DIM), functional, 0, None, None);
                let many = score(&store, &world::Batch::one(step.repeat(4), DIM), functional, 0, None, None);
                prop_assert_eq!(once.total[0].to_bits(), many.total[0].to_bits());
            }
            for (pay, support) in scores.step.iter().zip(&scores.support) {
                prop_assert!(*support > 0.0 || *pay == 0.0);
            }
        }
    }

    #[test]
    fn p7_progress_is_bounded_by_the_best_value((mut store, _) in lived(DIM), story in episode(DIM)) {
        sleep(&mut store);
        let scores = score(&store, &story, "progress", 0, Some(&[0.3, 0.7]), None);
        let values = store.values();
        let best = |q: usize| values.iter().skip(q).step_by(2).copied().fold(0.0, f32::max);
        prop_assert!(scores.total[0] <= 0.3 * best(0) + 0.7 * best(1) + 1e-5);
    }

    #[test]
    fn p7_without_edge_support_at_most_rho_is_paid((mut store, _) in lived(DIM), story in episode(DIM)) {
        sleep(&mut store);
        let gated = score(&store, &story, "coverage", 0, None, None);
        let open = store.frozen();
        let rho = store.config().rho as f32;
        // A single step has no predecessor, hence E = 0: its pay is ρ of its gain.
        let alone = score(&open, &world::Batch::one(story.steps[..DIM].to_vec(), DIM), "coverage", 0, None, None);
        let advantage: f32 = {
            let (values, base, ids) = (store.values(), store.baseline(), store.ids());
            let terminal = store.is_terminal();
            alone.ids.iter().zip(&alone.phi).filter(|&(&id, _)| id >= 0).map(|(&id, &phi)| {
                let rank = ids.binary_search(&id).unwrap();
                if terminal[rank] { return 0.0 }
                phi * (0..2).map(|q| (values[rank * 2 + q] - base[q]).max(0.0) / 2.0).sum::<f32>()
            }).sum()
        };
        prop_assert!(alone.total[0] <= rho * advantage + 1e-6);
        prop_assert_eq!(gated.step[0].to_bits(), alone.step[0].to_bits());
    }

    #[test]
    fn p9_potential_telescopes((mut store, _) in lived(DIM), story in episode(DIM)) {
        sleep(&mut store);
        let (phi, _) = store.value(&story.steps, &Kernel::default(), None).unwrap();
        let first = f32::midpoint(phi[0], phi[1]);
        for context in [0, 1] {
            let scores = score(&store, &story, "potential", context, None, None);
            if story.steps.len() / DIM > context {
                prop_assert!((scores.total[0] + first).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn p10_rotations_change_nothing((store, episodes) in lived(DIM), story in episode(DIM), turn in 0usize..DIM) {
        // Drawn numbers are whole, so that many lie on a threshold, where rounding decides: a little off it they do not.
        let off = |x: &[f32]| -> Vec<f32> { (1u16..).zip(x).map(|(i, v)| v + 0.01 * (7.0 * f32::from(i)).sin()).collect() };
        // A cyclic shift of the axes with a change of signs is orthogonal.
        let rotate = |x: &[f32]| -> Vec<f32> {
            x.chunks_exact(DIM)
                .flat_map(|row| (0..DIM).map(|i| row[(i + turn) % DIM] * if i % 2 == 0 { 1.0 } else { -1.0 }).collect::<Vec<_>>())
                .collect()
        };
        // Of edges that weigh the same, rounding says which is pruned: with room for all of them, none is.
        let config = Config { max_out: 64, ..store.config().clone() };
        let mut stores = [config.clone(), config].map(|config| Store::new(config).unwrap());
        let mut histories: [Vec<i64>; 2] = Default::default();
        for (which, store) in stores.iter_mut().enumerate() {
            let end = if which == 0 { axis(0, DIM) } else { rotate(&axis(0, DIM)) };
            store.add_terminal("end", &end, None, None).unwrap();
            for batch in &episodes {
                let mut batch = batch.clone();
                batch.steps = off(&batch.steps);
                if which == 1 { batch.steps = rotate(&batch.steps); }
                histories[which].extend(observe(store, &batch, None).memory_ids);
            }
            sleep(store);
        }
        let mut story = story.clone();
        story.steps = off(&story.steps);
        let mut turned = story.clone();
        turned.steps = rotate(&story.steps);
        // Ties may fall either way: for the memory that a step is written into, and, unless memories are few, for the k-th place.
        prop_assume!(stores[0].len() <= stores[0].config().k && histories[0] == histories[1]);
        let a = score(&stores[0], &story, "coverage", 0, None, None);
        let b = score(&stores[1], &turned, "coverage", 0, None, None);
        prop_assert!((a.total[0] - b.total[0]).abs() < 1e-4, "{} {}", a.total[0], b.total[0]);
    }

    #[test]
    fn p12_threads_bytes_and_batching_change_nothing((store, episodes) in lived(DIM), story in episode(DIM)) {
        let bytes = store.to_bytes().unwrap();
        let loaded = Store::from_bytes(&bytes).unwrap();
        prop_assert_eq!(loaded.digest(), store.digest());
        let a = score(&store, &story, "coverage", 1, None, None);
        let b = score(&loaded, &story, "coverage", 1, None, None);
        prop_assert_eq!(a, b);

        let fresh = |batches: &[world::Batch]| {
            let mut store = Store::new(store.config().clone()).unwrap();
            for batch in batches { observe(&mut store, batch, None); }
            store.digest()
        };
        let mut all = world::Batch { steps: Vec::new(), offsets: vec![0] };
        for batch in &episodes {
            all.steps.extend(&batch.steps);
            all.offsets.push((all.steps.len() / DIM) as i64);
        }
        prop_assert_eq!(fresh(&episodes), fresh(&[all]));
    }

    #[test]
    fn p13_a_vetoed_episode_was_never_seen((store, episodes) in lived(DIM), which in any::<prop::sample::Index>()) {
        let gone = which.index(episodes.len());
        let build = |skip: Option<usize>| {
            let mut store = Store::new(store.config().clone()).unwrap();
            store.add_terminal("end", &axis(0, DIM), None, None).unwrap();
            for (e, batch) in episodes.iter().enumerate() {
                if Some(e) != skip { observe(&mut store, batch, None); }
                if e % 3 == 0 { store.replay(&ReplayRequest { budget: Some(5), ..ReplayRequest::default() }).unwrap(); }
            }
            store
        };
        let mut vetoed = build(None);
        let before = vetoed.ids();
        vetoed.veto_episodes(vec![gone as i64]).unwrap();
        prop_assert_eq!(vetoed.digest(), build(Some(gone)).digest());
        // Ids are never used for something else. (An evicted memory from before may be back.)
        if store.config().capacity.is_none() {
            let last = before.iter().copied().max().unwrap_or(-1);
            prop_assert!(vetoed.ids().iter().all(|id| before.contains(id) || *id > last));
        }
    }
}

/// A chain of one-hot memories whose last has drive 1, its values still at their drives.
fn chain(n: usize) -> Store {
    let mut store = Store::new(Config::new(n)).unwrap();
    observe(&mut store, &along(&(0..n).collect::<Vec<_>>(), n), None);
    store
        .add_terminal("end", &axis(n - 1, n), None, None)
        .unwrap();
    store
}

#[test]
fn p6_a_chain_needs_one_reverse_replay_or_a_square_of_sweeps() {
    let n = 9;
    for (order, backups) in [(Order::Reverse, n - 1), (Order::Full, (n - 1) * (n - 1))] {
        let mut store = chain(n);
        let report = store
            .replay(&ReplayRequest {
                order,
                tol: 0.0,
                ..ReplayRequest::default()
            })
            .unwrap();
        assert_eq!(report.backups, backups as u64, "{order:?}");
        assert!(report.converged && report.residual == 0.0);
        for (i, v) in store.values().iter().take(n).enumerate() {
            let expected = (0.7f64 / 1.02).powi((n - 1 - i) as i32);
            assert!((f64::from(*v) - expected).abs() < 1e-6);
        }
    }
}

#[test]
fn p6_awake_replay_of_a_chain_is_t_minus_1_backups() {
    let n = 7;
    for trace in [0.0, 0.5, 0.95] {
        let config = Config {
            trace,
            epsilon: 1e-3,
            ..Config::new(n)
        };
        let mut store = Store::new(config).unwrap();
        store.add_channel("goal", 0.0, 1.0).unwrap();
        let report = observe(
            &mut store,
            &along(&(0..n).collect::<Vec<_>>(), n),
            Some(Drives::Episodes(&[1.0])),
        );
        assert_eq!(report.backups, n as u64 - 1);
        sleep(&mut store);
        // Whatever λ: a jump over several memories costs one factor 1/(1 + ε) instead of several.
        for (i, v) in store.values().iter().enumerate() {
            let distance = (n - 1 - i) as i32;
            let expected = 0.7f64.powi(distance);
            assert!((f64::from(*v) / expected - 1.0).abs() < 1.1e-3 * f64::from(distance) + 1e-6);
        }
    }
}

#[test]
fn p8_with_open_gates_coverage_is_order_free_monotone_and_submodular() {
    let dim = 6;
    let config = Config {
        rho: 1.0,
        sigma_0: 1e-12,
        d_lo: 1.5,
        d_hi: 2.0,
        ..Config::new(dim)
    };
    let mut store = Store::new(config).unwrap();
    store.add_channel("goal", 0.0, 1.0).unwrap();
    for walk in [[0, 1, 2], [3, 1, 4], [5, 4, 2]] {
        observe(
            &mut store,
            &along(&walk, dim),
            Some(Drives::Episodes(&[1.0])),
        );
    }
    // The baseline stays 0: only a sleep sets it.
    let mixed = |weights: &[f32]| -> Vec<f32> { weights.to_vec() };
    let items = [
        mixed(&[1.0, 0.4, 0.0, 0.0, 0.1, 0.0]),
        mixed(&[0.2, 1.0, 0.3, 0.0, 0.0, 0.0]),
        mixed(&[0.0, 0.5, 0.0, 1.0, 0.5, 0.0]),
        mixed(&[0.0, 0.0, 0.0, 0.3, 1.0, 0.6]),
    ];
    let total = |order: &[usize]| -> f64 {
        if order.is_empty() {
            return 0.0;
        }
        let steps = order.iter().flat_map(|&i| items[i].clone()).collect();
        let batch = world::Batch::one(steps, dim);
        f64::from(score(&store, &batch, "coverage", 0, None, None).total[0])
    };
    let subset = |mask: u32| -> Vec<usize> { (0..4).filter(|i| mask >> i & 1 == 1).collect() };
    let values: Vec<f64> = (0..16).map(|mask| total(&subset(mask))).collect();
    for mask in 0..16u32 {
        let mut reversed = subset(mask);
        reversed.reverse();
        assert!((total(&reversed) - values[mask as usize]).abs() < 1e-6);
        for i in (0..4).filter(|i| mask >> i & 1 == 0) {
            let gain = values[(mask | 1 << i) as usize] - values[mask as usize];
            assert!(gain >= -1e-6, "monotone");
            for sub in (0..16u32).filter(|sub| sub & mask == *sub) {
                let earlier = values[(sub | 1 << i) as usize] - values[sub as usize];
                assert!(gain <= earlier + 1e-6, "submodular");
            }
        }
    }
    let best: f64 = store.values().iter().map(|&v| f64::from(v)).sum();
    assert!(values[15] <= best, "no memory pays more than its value");
}

#[test]
fn p11_deleting_memories_degrades_scores_gradually() {
    // 400 noisy walks along a ring; stores keep all, 70 % or 10 % of the inserted memories.
    let dim = 24;
    let noise = |i: usize, j: usize| {
        let x = (i * 7919 + j * 104_729 + 12_345) % 1000;
        x as f32 / 1000.0 - 0.5
    };
    let point = |state: usize, i: usize| -> Vec<f32> {
        (0..dim)
            .map(|j| f32::from(u8::from(j == state % dim)) + 0.5 * noise(i, j))
            .collect()
    };
    let build = |keep: usize| {
        let mut store = Store::new(Config {
            min_novelty: 0.3,
            ..Config::new(dim)
        })
        .unwrap();
        store
            .add_terminal("end", &axis(0, dim), Some(0.0), Some(1.0))
            .unwrap();
        for i in 0..200 {
            if i % 10 < keep {
                let steps = (0..6).flat_map(|t| point(i % dim + t, i * 6 + t)).collect();
                observe(&mut store, &world::Batch::one(steps, dim), None);
            }
        }
        sleep(&mut store);
        let stories: Vec<f32> = (0..60)
            .map(|i| {
                let steps = (0..5)
                    .flat_map(|t| point(i % dim + t, 5000 + i * 6 + t))
                    .collect();
                score(
                    &store,
                    &world::Batch::one(steps, dim),
                    "mean",
                    0,
                    None,
                    None,
                )
                .total[0]
            })
            .collect();
        stories
    };
    let full = build(10);
    let correlation = |other: &[f32]| {
        let rank = |x: &[f32]| -> Vec<f64> {
            x.iter()
                .map(|a| x.iter().filter(|b| *b < a).count() as f64)
                .collect()
        };
        let (a, b) = (rank(&full), rank(other));
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let (ma, mb) = (mean(&a), mean(&b));
        let cov: f64 = a.iter().zip(&b).map(|(x, y)| (x - ma) * (y - mb)).sum();
        let var = |x: &[f64], m: f64| x.iter().map(|x| (x - m) * (x - m)).sum::<f64>();
        cov / (var(&a, ma) * var(&b, mb)).sqrt()
    };
    let (most, few) = (correlation(&build(7)), correlation(&build(1)));
    assert!(most > 0.9 && few > 0.3 && most >= few, "{most} {few}");
}

/// What `src/graph/mod.rs` says of memory, on a store that lives, prunes and evicts.
#[test]
fn an_association_takes_the_bytes_that_are_stated() {
    let dim = 16;
    let config = Config {
        keep_episodes: false,
        min_novelty: 0.05,
        tau: -0.5,
        max_out: 12,
        capacity: Some(3000),
        ..Config::new(dim)
    };
    let mut store = Store::new(config).unwrap();
    let mut most = 0.0f64;
    for round in 0..40 {
        let noise = |i: usize| ((round * 100 * dim + i) as f32 * 12.9898).sin() * 43_758.547 % 1.0;
        let steps = (0..100 * dim).map(noise).collect();
        let offsets = vec![0, 50, 100];
        observe(&mut store, &Batch { steps, offsets }, None);
        let (edges, bytes) = store.associations();
        // Slots that were freed count, too: no more than a round evicts.
        let slots = store.len() + 100;
        let stated =
            1.4 * (16 * edges) as f64 + (32 * 2 * slots + 9216 * slots.div_ceil(1024)) as f64;
        assert!(
            bytes as f64 <= stated,
            "round {round}: {bytes} bytes, stated {stated}"
        );
        most = most.max(bytes as f64 / edges as f64);
        let (sources, ..) = store.edges();
        assert_eq!(sources.len(), edges);
        assert!(sources.chunk_by(|a, b| a == b).all(|row| row.len() <= 12));
    }
    assert!(store.associations().0 > 10_000 && most > 16.0);
}
