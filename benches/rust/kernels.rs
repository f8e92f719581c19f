//! Every pass of a search by name, beside what the processor can do at most: `cargo bench --bench kernels`.
//!
//! The peaks are measured in the same run by loops that do nothing else: independent chains of the one instruction,
//! and a sum over memory that no cache holds. `share` is the pass's rate over the peak of its instruction.

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sharpwave_core::Probe;

#[path = "clustered.rs"]
mod clustered;
#[path = "limits.rs"]
mod limits;

use clustered::{DIM, rows};

/// The median of some runs, in seconds.
fn seconds(runs: usize, mut f: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let begin = Instant::now();
            f();
            begin.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

/// Rates and shares, printed: what the report of Criterion has no column for.
fn shares() {
    let peaks = limits::measure();
    println!("one thread, {DIM} dimensions, medians");
    for peak in &peaks {
        println!("  peak {:<22} {:8.1} {}", peak.name, peak.rate, peak.unit);
    }
    for n in [10_000, 100_000] {
        let probe = Probe::new(&rows(n, 1), DIM).unwrap();
        for pass in Probe::passes() {
            for batch in [1, 32, 256] {
                let queries = rows(batch, 5);
                let run = || {
                    black_box(probe.candidates(pass, black_box(&queries), 16).unwrap());
                };
                let time = seconds(if batch == 256 { 9 } else { 31 }, run);
                let rate = 2.0 * (n * batch * DIM) as f64 / time / 1e9;
                let share = peaks
                    .iter()
                    .find(|peak| peak.passes.contains(&pass))
                    .map_or_else(String::new, |peak| {
                        format!("{:5.1} % of {}", 100.0 * rate / peak.rate, peak.name)
                    });
                println!(
                    "  {pass:<12} N = {n:<7} B = {batch:<4} {:9.0} queries/s {rate:8.1} Gop/s {share}",
                    batch as f64 / time
                );
            }
        }
    }
}

fn kernels(c: &mut Criterion) {
    shares();
    let n = 10_000;
    let probe = Probe::new(&rows(n, 1), DIM).unwrap();
    let mut group = c.benchmark_group("pass at 10k");
    group.sample_size(20);
    for batch in [1, 32, 256] {
        let queries = rows(batch, 5);
        group.throughput(Throughput::Elements(batch as u64));
        for pass in Probe::passes() {
            group.bench_function(BenchmarkId::new(pass, batch), |bencher| {
                bencher.iter(|| probe.candidates(pass, black_box(&queries), 16).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, kernels);
criterion_main!(benches);
