//! The canonical vector arithmetic, and the instruction set it runs on.
//!
//! | kernel | what is canonical about it |
//! |---|---|
//! | [`dot`] | 32 lanes, separate multiply and add, a fixed tree of halves at the end |
//! | [`add_rows`] | separate multiply and add per element, row by row |
//!
//! One body is compiled once per instruction set. Rust never contracts a multiply and an add, so
//! every copy computes the same bits; `SHARPWAVE_SIMD=portable|avx2|avx512|neon` forces one, for tests.

#[cfg(target_arch = "x86_64")]
mod add_rows;

use std::sync::OnceLock;

pub use crate::base::fpenv;

const LANES: usize = 32;

type Dot = fn(&[f32], &[f32]) -> f32;
type AddRows = fn(&[f32], &[(u32, f32)], &[(u32, f32)], &mut [f32]);

/// Rows between the one added and the one fetched meanwhile.
const AHEAD: usize = 8;

struct Kernels {
    name: &'static str,
    dot: Dot,
    add_rows: AddRows,
}

/// `⟨a, b⟩` in the canonical order: element i is added to lane i mod 32, and the lanes are summed by
/// halves.
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    (kernels().dot)(a, b)
}

/// `y ← (((y + α₀·x₀) + α₁·x₁) + …)`, element by element: the bits of one row after the other. A row is named by its
/// place among rows of the length of `y`; those that come `soon`, in the next call, are fetched meanwhile.
///
/// # Panics
///
/// If there is no row of a name among `rows`.
pub fn add_rows(rows: &[f32], these: &[(u32, f32)], soon: &[(u32, f32)], y: &mut [f32]) {
    (kernels().add_rows)(rows, these, soon, y);
}

/// Fetches numbers into the cache, where the processor can be told to.
#[inline]
pub(crate) fn prefetch<T>(x: &[T]) {
    for line in x.chunks((64 / size_of::<T>()).max(1)) {
        prefetch_line(line.as_ptr());
    }
}

/// Fetches the line at an address, which may be any, into the cache.
#[inline(always)]
#[allow(clippy::inline_always)] // To be compiled for the instruction set around it.
pub(crate) fn prefetch_line<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint that may name any address; it reads nothing into the program.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The bits of a number, so that they are ordered as numbers are: −∞, −1, −0, 0, 1, ∞.
pub(crate) fn ordered_bits(number: f32) -> u32 {
    let bits = number.to_bits();
    bits ^ if bits >> 31 == 1 { u32::MAX } else { 1 << 31 }
}

/// The inverse of [`ordered_bits`].
pub(crate) fn from_ordered_bits(bits: u32) -> f32 {
    f32::from_bits(bits ^ if bits >> 31 == 0 { u32::MAX } else { 1 << 31 })
}

/// The instruction set the kernels were chosen for: `"portable"`, `"avx2"`, `"avx512"` or `"neon"`.
#[must_use]
pub fn instruction_set() -> &'static str {
    kernels().name
}

/// The instruction sets this processor can run, best last.
#[must_use]
pub fn available() -> Vec<&'static str> {
    ALL.iter()
        .filter(|(_, usable)| usable())
        .map(|(kernels, _)| kernels.name)
        .collect()
}

/// The instruction set in force and those it includes.
pub(crate) fn up_to_the_one_in_force() -> Vec<&'static str> {
    let mut sets = available();
    let at = sets.iter().position(|&set| set == kernels().name);
    sets.truncate(1 + at.unwrap_or(0));
    sets
}

type Usable = fn() -> bool;

static ALL: &[(Kernels, Usable)] = &[
    (PORTABLE, || true),
    #[cfg(target_arch = "x86_64")]
    (x86::AVX2, || is_x86_feature_detected!("avx2")),
    #[cfg(target_arch = "x86_64")]
    (x86::AVX512, || is_x86_feature_detected!("avx512f")),
    // NEON is a part of every aarch64, so the compiler uses it in the portable body too.
    #[cfg(target_arch = "aarch64")]
    (NEON, || true),
];

#[cfg(target_arch = "aarch64")]
const NEON: Kernels = Kernels {
    name: "neon",
    ..PORTABLE
};

const PORTABLE: Kernels = Kernels {
    name: "portable",
    dot: dot_body,
    add_rows: add_rows_body,
};

fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let forced = std::env::var("SHARPWAVE_SIMD").ok();
        ALL.iter()
            .filter(|(_, usable)| usable())
            .map(|(kernels, _)| kernels)
            .rfind(|kernels| forced.as_deref().is_none_or(|name| kernels.name == name))
            .unwrap_or(&ALL[0].0)
    })
}

#[inline(always)]
#[allow(clippy::inline_always)] // The body must be compiled again inside each instruction set.
fn dot_body(a: &[f32], b: &[f32]) -> f32 {
    debug_assert_eq!(a.len(), b.len());
    let mut lanes = [0.0f32; LANES];
    let (a_blocks, a_tail) = a.as_chunks::<LANES>();
    let (b_blocks, b_tail) = b.as_chunks::<LANES>();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    for (lane, (x, y)) in a_tail.iter().zip(b_tail).enumerate() {
        lanes[lane] += x * y;
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The place of a row among rows of `dim` numbers.
pub(crate) fn row(name: u32, dim: usize) -> std::ops::Range<usize> {
    let at = name as usize * dim;
    at..at + dim
}

#[inline(always)]
#[allow(clippy::inline_always)] // As above.
fn add_rows_body(rows: &[f32], these: &[(u32, f32)], soon: &[(u32, f32)], y: &mut [f32]) {
    let dim = y.len();
    let mut later = these.iter().chain(soon).skip(AHEAD);
    // Four at once, because each comes from elsewhere in memory: four wait together.
    let (fours, rest) = these.as_chunks::<4>();
    for four in fours {
        for &(name, _) in later.by_ref().take(4) {
            prefetch(&rows[row(name, dim)]);
        }
        let [x0, x1, x2, x3] = four.map(|(name, _)| &rows[row(name, dim)]);
        let alpha = four.map(|(_, alpha)| alpha);
        for (i, y) in y.iter_mut().enumerate() {
            let mut sum = *y;
            sum += alpha[0] * x0[i];
            sum += alpha[1] * x1[i];
            sum += alpha[2] * x2[i];
            sum += alpha[3] * x3[i];
            *y = sum;
        }
    }
    for &(name, alpha) in rest {
        for (y, &x) in y.iter_mut().zip(&rows[row(name, dim)]) {
            *y += alpha * x;
        }
    }
    for &(name, _) in later.take(4) {
        prefetch(&rows[row(name, dim)]);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::add_rows::add_rows;
    use super::{Kernels, add_rows_body, dot_body};

    macro_rules! compile_for {
        ($name:ident, $text:literal, $features:literal, $add_rows:ident) => {
            pub(super) const $name: Kernels = {
                #[target_feature(enable = $features)]
                fn dot(a: &[f32], b: &[f32]) -> f32 {
                    dot_body(a, b)
                }
                Kernels {
                    name: $text,
                    // SAFETY: `kernels()` hands this table out only after the processor was found
                    // to have these features, and nothing else reaches it.
                    dot: |a, b| unsafe { dot(a, b) },
                    // SAFETY: as above.
                    add_rows: |rows, these, soon, y| unsafe { $add_rows(rows, these, soon, y) },
                }
            };
        };
    }

    #[target_feature(enable = "avx2")]
    fn add_rows_avx2(rows: &[f32], these: &[(u32, f32)], soon: &[(u32, f32)], y: &mut [f32]) {
        add_rows_body(rows, these, soon, y);
    }

    compile_for!(AVX2, "avx2", "avx2", add_rows_avx2);
    compile_for!(
        AVX512,
        "avx512",
        "avx512f,avx512vl,avx512bw,avx512dq",
        add_rows
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::splitmix64;

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        (0..n as u64)
            .map(|i| (splitmix64(seed ^ (i << 20)) >> 40) as f32 / 8_388_608.0 - 1.0)
            .collect()
    }

    #[test]
    fn every_instruction_set_computes_the_same_bits() {
        for n in (1..70).chain([127, 128, 129, 383, 384, 385, 1024, 2100]) {
            let (a, b) = (noise(n, 1), noise(n, 2));
            let rows = noise(9 * n, 3);
            let names = [8u32, 0, 3, 3, 7, 1, 2, 6, 5, 4, 8];
            let alpha = [0.3, -2.0, 0.0, 1e-3, -0.7];
            let named = names.iter().zip(alpha.iter().cycle());
            let named: Vec<(u32, f32)> = named.map(|(&name, &alpha)| (name, alpha)).collect();
            for (kernels, usable) in ALL {
                if !usable() {
                    continue;
                }
                assert_eq!((kernels.dot)(&a, &b).to_bits(), dot_body(&a, &b).to_bits());
                for many in 0..=named.len() {
                    let mut expected = b.clone();
                    for &(name, alpha) in &named[..many] {
                        for (y, x) in expected.iter_mut().zip(&rows[row(name, n)]) {
                            *y += alpha * x;
                        }
                    }
                    let mut y = b.clone();
                    (kernels.add_rows)(&rows, &named[..many], &named[many..], &mut y);
                    assert_eq!(y, expected, "{} {n} {many}", kernels.name);
                }
            }
        }
    }

    #[test]
    fn ordered_bits_are_ordered_as_their_numbers() {
        let numbers = [f32::NEG_INFINITY, f32::MIN, -1.5, -1e-40, -0.0];
        let all: Vec<f32> = numbers
            .into_iter()
            .chain(numbers.map(|x| -x).into_iter().rev())
            .collect();
        assert!(
            all.windows(2)
                .all(|two| ordered_bits(two[0]) < ordered_bits(two[1]))
        );
        let back = |&x: &f32| from_ordered_bits(ordered_bits(x)).to_bits() == x.to_bits();
        assert!(all.iter().all(back));
    }
}
