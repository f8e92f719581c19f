//! What this machine can do at most, as a line of JSON: `cargo bench -p sharpwave-core --bench peak`.
//!
//! `int8` and `f32` in 10⁹ operations a second (a multiplication and an addition are two), out of registers; `read` in
//! GB/s, out of 512 MiB; each on one thread and on all. The best of several tries: a limit is what was reached once.
//! `make bench` measures shares of the peak against it, in the same run.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

const TRIES: usize = 9;
const ROUNDS: usize = 2_000_000;
/// Independent accumulators: more than latency times throughput, fewer than the registers.
const CHAINS: usize = 16;

/// The most of what `work` gives a second, over the tries; `work` runs on every thread and says how much it did.
fn best(threads: usize, work: impl Fn(usize) -> f64 + Sync) -> f64 {
    (0..TRIES)
        .map(|_| {
            let begun = Instant::now();
            let done: f64 = thread::scope(|scope| {
                let workers: Vec<_> = (0..threads)
                    .map(|n| {
                        let work = &work;
                        scope.spawn(move || work(n))
                    })
                    .collect();
                workers.into_iter().map(|w| w.join().unwrap()).sum()
            });
            done / begun.elapsed().as_secs_f64() / 1e9
        })
        .fold(0.0, f64::max)
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use std::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_set1_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_set1_epi32,
        _mm512_set1_ps,
    };
    use std::hint::black_box;

    use super::{CHAINS, ROUNDS};

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn vnni() -> f64 {
        let (a, b) = (
            _mm512_set1_epi32(black_box(1)),
            _mm512_set1_epi32(black_box(3)),
        );
        let mut sums = [_mm512_set1_epi32(0); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
        (ROUNDS * CHAINS * 64 * 2) as f64
    }

    #[target_feature(enable = "avx512f")]
    fn wide() -> f64 {
        let (a, b) = (
            _mm512_set1_ps(black_box(0.5)),
            _mm512_set1_ps(black_box(1.0)),
        );
        let mut sums = [_mm512_set1_ps(0.0); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
        (ROUNDS * CHAINS * 16 * 2) as f64
    }

    #[target_feature(enable = "avx2,fma")]
    fn narrow() -> f64 {
        let (a, b) = (
            _mm256_set1_ps(black_box(0.5)),
            _mm256_set1_ps(black_box(1.0)),
        );
        let mut sums = [_mm256_set1_ps(0.0); 12];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
        (ROUNDS * 12 * 8 * 2) as f64
    }

    /// Operations done by an int8 loop, if the processor has dot products of bytes.
    pub fn int8() -> Option<fn() -> f64> {
        let there = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
        // SAFETY: the features that the function needs were just found.
        there.then_some(|| unsafe { vnni() })
    }

    /// Operations done by a loop of fused multiply-adds.
    pub fn f32() -> Option<fn() -> f64> {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature that the function needs was just found.
            return Some(|| unsafe { wide() });
        }
        let there = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        // SAFETY: the features that the function needs were just found.
        there.then_some(|| unsafe { narrow() })
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod machine {
    /// Not measured on this architecture.
    pub fn int8() -> Option<fn() -> f64> {
        None
    }

    /// Not measured on this architecture.
    pub fn f32() -> Option<fn() -> f64> {
        None
    }
}

/// Bytes read: every word of this thread's share, in sixteen independent sums.
fn read(words: &[u64], thread: usize, threads: usize) -> f64 {
    let share = words.len() / threads;
    let mine = &words[thread * share..(thread + 1) * share];
    let mut sums = [0u64; 16];
    for chunk in mine.chunks_exact(16) {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    black_box(sums);
    (share * 8) as f64
}

fn main() {
    let all = thread::available_parallelism().map_or(1, usize::from);
    let words = vec![1u64; 64 << 20];
    let mut counts = vec![1, all];
    counts.dedup();
    let fields: Vec<String> = counts
        .into_iter()
        .flat_map(|threads| {
            let of = |work: Option<fn() -> f64>| {
                work.map_or("null".to_owned(), |work| {
                    format!("{:.1}", best(threads, |_| work()))
                })
            };
            let read = best(threads, |n| read(&words, n, threads));
            [
                format!("\"int8_{threads}\": {}", of(machine::int8())),
                format!("\"f32_{threads}\": {}", of(machine::f32())),
                format!("\"read_{threads}\": {read:.1}"),
            ]
        })
        .collect();
    println!("{{{}}}", fields.join(", "));
}
