//! The verbs of the store on clustered data: `cargo bench -p sharpwave-core`, or `make bench`.
//!
//! No test asserts a time; these print them, side by side in one run.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sharpwave_core::{
    Config, Episodes, Observation, Order, ReplayRequest, ScoreRequest, Store, linalg,
};

#[path = "clustered.rs"]
mod clustered;

use clustered::{DIM, rows};

fn offsets(steps: usize, length: usize) -> Vec<i64> {
    (0..=steps / length).map(|e| (e * length) as i64).collect()
}

fn filled(n: usize) -> Store {
    let mut store = Store::new(Config {
        keep_episodes: false,
        ..Config::new(DIM)
    })
    .unwrap();
    store.insert(&rows(n, 1), None, None).unwrap();
    store.add_terminal("end", &rows(1, 2), None, None).unwrap();
    store
}

fn observation<'a>(steps: &'a [f32], offsets: &'a [i64]) -> Observation<'a> {
    Observation {
        episodes: Episodes { steps, offsets },
        drives: None,
        texts: None,
        ids: None,
        source: None,
        propose: false,
    }
}

fn kernels(c: &mut Criterion) {
    let (a, b) = (rows(1, 3), rows(1, 4));
    let mut group = c.benchmark_group("kernel");
    group.throughput(Throughput::Elements(DIM as u64));
    group.bench_function(format!("dot/{}", linalg::instruction_set()), |bencher| {
        bencher.iter(|| linalg::dot(black_box(&a), black_box(&b)));
    });
    group.finish();
}

fn search(c: &mut Criterion) {
    let mut group = c.benchmark_group("search");
    group.sample_size(10);
    for n in [10_000, 100_000] {
        let store = filled(n);
        let queries = rows(32, 5);
        group.throughput(Throughput::Elements(32));
        for threads in [1, 2] {
            group.bench_function(
                BenchmarkId::new(format!("{threads} threads"), n),
                |bencher| {
                    bencher.iter(|| store.search(&queries, 16, Some(threads)).unwrap());
                },
            );
        }
    }
    group.finish();
}

fn verbs(c: &mut Criterion) {
    let mut group = c.benchmark_group("verbs at 10k");
    group.sample_size(10);
    let mut store = filled(10_000);
    let lived = rows(1024, 6);
    store
        .observe(&observation(&lived, &offsets(1024, 16)))
        .unwrap();
    let steps = rows(256, 7);
    let offsets = offsets(256, 16);
    let context = vec![1; 16];
    let request = ScoreRequest {
        weights: None,
        functional: "coverage",
        context: &context,
        habituation: None,
        discount: 1.0,
        details: false,
        threads: Some(1),
    };
    let episodes = Episodes {
        steps: &steps,
        offsets: &offsets,
    };
    group.bench_function("search 256", |bencher| {
        bencher.iter(|| store.search(&steps, 16, Some(1)).unwrap());
    });
    group.bench_function("score 256", |bencher| {
        bencher.iter(|| store.score(&episodes, &request).unwrap());
    });
    group.bench_function("observe 256", |bencher| {
        bencher.iter_batched_ref(
            || store.clone(),
            |store| store.observe(&observation(&steps, &offsets)).unwrap(),
            BatchSize::LargeInput,
        );
    });
    for (name, order) in [("prioritized", Order::Prioritized), ("full", Order::Full)] {
        group.bench_function(format!("sleep {name}"), |bencher| {
            bencher.iter_batched_ref(
                || store.clone(),
                |store| {
                    let request = ReplayRequest {
                        order,
                        ..ReplayRequest::default()
                    };
                    store.replay(&request).unwrap()
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.bench_function("to_bytes", |bencher| {
        bencher.iter(|| store.to_bytes().unwrap());
    });
    let bytes = store.to_bytes().unwrap();
    group.bench_function("from_bytes", |bencher| {
        bencher.iter(|| Store::from_bytes(&bytes).unwrap());
    });
    group.finish();
}

criterion_group!(benches, kernels, search, verbs);
criterion_main!(benches);
