//! The first pass on AVX-512 VNNI: int8 codes, a tile of queries against a panel of keys at a time.
//!
//! The bounds of a tile are compared with the thresholds in registers, so no matrix of scores is written.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GE_OQ, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps,
    _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_storeu_ps,
};
use std::ops::Range;

use crate::memory::Slot;
use crate::search::candidates::Candidates;
use crate::search::codes::{Codes, PANEL};
use crate::search::query::Query;

/// Queries of the largest tile: 12 × 2 accumulators, and the rest of the 32 registers to load into.
const TILE: usize = 12;
/// Bytes of codes that a core keeps close while all queries pass over them.
const BLOCK_BYTES: usize = 512 * 1024;

/// Whether this processor can run the pass.
pub(crate) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
}

/// Offers every memory of `panels` that could matter to the candidates of its queries.
pub(crate) fn scan(
    codes: &Codes,
    panels: Range<usize>,
    queries: &[Query],
    candidates: &mut [Candidates],
) {
    let block = (BLOCK_BYTES / (codes.groups() * 128)).max(1);
    let mut from = panels.start;
    while from < panels.end {
        let to = (from + block).min(panels.end);
        // Tiles of even width: a narrow one waits for its own sums.
        let tiles = queries.len().div_ceil(TILE);
        for tile in 0..tiles {
            let rows = queries.len() * tile / tiles..queries.len() * (tile + 1) / tiles;
            let (q, c) = (&queries[rows.clone()], &mut candidates[rows]);
            for panel in from..to {
                // SAFETY: callers have asked `available()`.
                unsafe { of_width(codes, panel, q, c) };
            }
        }
        from = to;
    }
}

/// One panel against up to [`TILE`] queries.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn of_width(codes: &Codes, panel: usize, queries: &[Query], candidates: &mut [Candidates]) {
    macro_rules! widths {
        ($($width:literal)*) => {
            match queries.len() {
                $($width => tile::<$width>(codes, panel, queries, candidates),)*
                width => unreachable!("tiles of {width} queries are not cut"),
            }
        };
    }
    widths!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// One panel of 32 keys against `Q` queries.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile<const Q: usize>(
    codes: &Codes,
    panel: usize,
    queries: &[Query],
    candidates: &mut [Candidates],
) {
    let lines = codes.panel(panel);
    let words: [&[i32]; Q] = std::array::from_fn(|q| queries[q].words.as_slice());
    let groups = codes.groups();
    assert!(lines.len() == groups * 2 && words.iter().all(|w| w.len() == groups));
    let mut sums: [[__m512i; 2]; Q] =
        std::array::from_fn(|q| [_mm512_set1_epi32(queries[q].start); 2]);
    for group in 0..groups {
        // SAFETY: `lines` holds 2·groups aligned lines of 64 bytes, as asserted above.
        let (low, high) = unsafe {
            let at = lines.as_ptr().add(group * 2);
            (
                _mm512_load_si512(at.cast::<__m512i>()),
                _mm512_load_si512(at.add(1).cast::<__m512i>()),
            )
        };
        for q in 0..Q {
            // SAFETY: every `words[q]` holds `groups` words, as asserted above.
            let word = _mm512_set1_epi32(unsafe { *words[q].get_unchecked(group) });
            sums[q][0] = _mm512_dpbusd_epi32(sums[q][0], low, word);
            sums[q][1] = _mm512_dpbusd_epi32(sums[q][1], high, word);
        }
    }
    #[allow(clippy::needless_range_loop)] // `half` picks registers, not only elements of `sums`.
    for half in 0..2 {
        let first = panel * PANEL + half * 16;
        let scale = load(&codes.scale[first..first + 16]);
        let hidden = load(&codes.slack[first..first + 16]);
        for q in 0..Q {
            let query = &queries[q];
            let about = _mm512_mul_ps(
                _mm512_mul_ps(_mm512_cvtepi32_ps(sums[q][half]), scale),
                _mm512_set1_ps(query.scale),
            );
            let slack = _mm512_add_ps(
                _mm512_mul_ps(hidden, _mm512_set1_ps(query.per_hidden)),
                _mm512_set1_ps(query.slack),
            );
            let upper = _mm512_add_ps(about, slack);
            let threshold = _mm512_set1_ps(candidates[q].threshold);
            let mut passed = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(upper, threshold);
            if passed != 0 {
                let (about, slack) = (store(about), store(slack));
                while passed != 0 {
                    let lane = passed.trailing_zeros() as usize;
                    passed &= passed - 1;
                    // A free slot has slack −∞; its bound passes only while there is no threshold.
                    if slack[lane] >= 0.0 {
                        candidates[q].offer((first + lane) as Slot, about[lane], slack[lane]);
                    }
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
fn load(numbers: &[f32]) -> __m512 {
    assert!(numbers.len() >= 16);
    // SAFETY: 16 numbers are there, and the load needs no alignment.
    unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
}

#[target_feature(enable = "avx512f")]
fn store(x: __m512) -> [f32; 16] {
    let mut numbers = [0.0; 16];
    // SAFETY: the array holds 16 numbers, and the store needs no alignment.
    unsafe { _mm512_storeu_ps(numbers.as_mut_ptr(), x) };
    numbers
}
