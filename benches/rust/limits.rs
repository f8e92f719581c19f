//! The most that one core can do, measured.

use std::time::Instant;

/// A rate that no program exceeds.
pub struct Peak {
    pub name: &'static str,
    /// Of operations (a multiplication and an addition are two) or bytes, times 10⁹.
    pub rate: f64,
    pub unit: &'static str,
    /// The passes that are measured against it.
    pub passes: &'static [&'static str],
}

/// Independent chains a loop keeps in flight: more than any processor needs to hide a latency.
const CHAINS: usize = 24;

/// The best of some runs: what lowers a rate is others' work.
fn best(operations: f64, mut f: impl FnMut()) -> f64 {
    (0..15)
        .map(|_| {
            let begin = Instant::now();
            f();
            operations / begin.elapsed().as_secs_f64() / 1e9
        })
        .fold(0.0, f64::max)
}

/// Reads 512 MB.
fn memory() -> Peak {
    let words = vec![1u64; 1 << 26];
    let mut sum = 0;
    let rate = best((words.len() * 8) as f64, || {
        sum += std::hint::black_box(&words).iter().sum::<u64>();
    });
    assert!(sum > 0);
    Peak {
        name: "memory read",
        rate,
        unit: "GB/s",
        passes: &[],
    }
}

/// All peaks that this processor has.
pub fn measure() -> Vec<Peak> {
    let mut peaks = vec![memory()];
    #[cfg(target_arch = "x86_64")]
    x86::add(&mut peaks);
    peaks
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm256_add_epi32, _mm256_dpbusd_avx_epi32, _mm256_fmadd_ps,
        _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi32, _mm256_set1_ps,
        _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_set1_epi32, _mm512_set1_ps,
    };
    use std::hint::black_box;
    use std::mem::transmute;

    use super::{CHAINS, Peak, best};

    const TURNS: usize = 200_000;

    macro_rules! chains {
        ($name:ident, $features:literal, $count:expr, $zero:expr, $operand:expr, $step:expr) => {
            #[target_feature(enable = $features)]
            fn $name() {
                let mut sums = [$zero; $count];
                let operand = black_box($operand);
                for _ in 0..TURNS {
                    for sum in &mut sums {
                        *sum = $step(*sum, operand);
                    }
                }
                black_box(sums);
            }
        };
    }

    chains!(
        vnni512,
        "avx512f,avx512vnni",
        CHAINS,
        _mm512_set1_epi32(0),
        _mm512_set1_epi32(1),
        |sum, x| _mm512_dpbusd_epi32(sum, x, x)
    );
    chains!(
        bf16,
        "avx512f,avx512bf16",
        CHAINS,
        _mm512_set1_ps(0.0),
        _mm512_set1_epi32(0x3F80_3F80),
        |sum, x| {
            // SAFETY: both are 64 bytes, and any bits are bf16.
            let x = unsafe { transmute::<__m512i, __m512bh>(x) };
            _mm512_dpbf16_ps(sum, x, x)
        }
    );
    chains!(
        vnni256,
        "avx2,avxvnni",
        CHAINS / 2,
        _mm256_set1_epi32(0),
        _mm256_set1_epi32(1),
        |sum, x| _mm256_dpbusd_avx_epi32(sum, x, x)
    );
    chains!(
        maddubs,
        "avx2",
        CHAINS / 3,
        _mm256_set1_epi32(0),
        _mm256_set1_epi32(0x0101_0101),
        |sum, x| {
            // The product depends on the sum, or it would be computed once.
            let pairs = _mm256_maddubs_epi16(sum, x);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, x))
        }
    );
    chains!(
        fma256,
        "avx2,fma",
        CHAINS / 2,
        _mm256_set1_ps(0.0),
        _mm256_set1_ps(0.5),
        |sum, x| _mm256_fmadd_ps(x, x, sum)
    );

    pub fn add(peaks: &mut Vec<Peak>) {
        let mut peak =
            |name, passes, usable: bool, products: usize, chains: usize, f: unsafe fn()| {
                if usable {
                    let operations = (2 * products * chains * TURNS) as f64;
                    peaks.push(Peak {
                        name,
                        // SAFETY: `usable` says that the processor has the instructions.
                        rate: best(operations, || unsafe { f() }),
                        unit: "Gop/s",
                        passes,
                    });
                }
            };
        let has_vnni = is_x86_feature_detected!("avx512vnni");
        let has_bf16 = is_x86_feature_detected!("avx512bf16");
        let has_avx_vnni = is_x86_feature_detected!("avxvnni");
        let has_avx2 = is_x86_feature_detected!("avx2");
        let has_fma = is_x86_feature_detected!("fma");
        peak(
            "int8, AVX-512 VNNI",
            &["avx512-vnni"],
            has_vnni,
            64,
            CHAINS,
            vnni512,
        );
        peak("bf16, AVX-512 BF16", &["bf16"], has_bf16, 32, CHAINS, bf16);
        peak(
            "int8, AVX2 VNNI",
            &["avx2-vnni"],
            has_avx_vnni,
            32,
            CHAINS / 2,
            vnni256,
        );
        peak("int8, AVX2", &["avx2"], has_avx2, 32, CHAINS / 3, maddubs);
        peak("f32, AVX2 FMA", &["f32"], has_fma, 8, CHAINS / 2, fma256);
    }
}
