//! The first pass on AVX-512 VNNI: int8 codes, a tile of queries against a panel of keys at a time.
//!
//! The bounds of a tile are compared with the thresholds in registers, so no matrix of scores is written.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GE_OQ, _MM_HINT_T0, _mm_prefetch, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps,
    _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_load_si512, _mm512_loadu_ps, _mm512_mul_ps,
    _mm512_set1_epi32, _mm512_set1_ps,
};

use crate::memory::Slot;
use crate::search::candidates::Candidates;
use crate::search::codes::{Codes, PANEL};
use crate::search::kernel::{Kernel, of_width};
use crate::search::query::{Query, Tile};

pub(super) const KERNEL: Kernel = Kernel {
    name: "avx512-vnni",
    set: "avx512",
    usable: || {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
    },
    largest: 127,
    // 12 × 2 accumulators, and the rest of the 32 registers to load into.
    width: 12,
    multiply: panel,
};

/// Lines between what is read and what is fetched from memory meanwhile: 2 KB.
const AHEAD: usize = 32;

/// One panel against up to [`TILE`] queries.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn panel(codes: &Codes, panel: usize, tile: &Tile<'_>, candidates: &mut [Candidates]) {
    of_width!(tile.queries.len(), tile_of, (codes, panel, tile, candidates), 1 2 3 4 5 6 7 8 9 10 11 12);
}

/// One panel of 32 keys against `Q` queries.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile_of<const Q: usize>(
    codes: &Codes,
    panel: usize,
    tile: &Tile<'_>,
    candidates: &mut [Candidates],
) {
    let lines = codes.panel(panel);
    let (queries, words) = (&tile.queries, tile.words::<Q>());
    let groups = codes.groups();
    assert!(lines.len() == groups * 2 && words.len() == groups);
    let mut sums: [[__m512i; 2]; Q] =
        std::array::from_fn(|q| [_mm512_set1_epi32(queries[q].start); 2]);
    for group in 0..groups {
        // SAFETY: `lines` holds 2·groups aligned lines of 64 bytes, as asserted above.
        let (low, high) = unsafe {
            let at = lines.as_ptr().add(group * 2);
            {
                // A fetch past the end does nothing.
                let ahead = at.wrapping_add(AHEAD).cast::<i8>();
                _mm_prefetch::<_MM_HINT_T0>(ahead);
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64));
            }
            (
                _mm512_load_si512(at.cast::<__m512i>()),
                _mm512_load_si512(at.add(1).cast::<__m512i>()),
            )
        };
        #[allow(clippy::needless_range_loop)] // `q` picks registers, not only elements of `sums`.
        for q in 0..Q {
            // SAFETY: `words` holds `groups` arrays, as asserted above.
            let word = _mm512_set1_epi32(unsafe { words.get_unchecked(group)[q] });
            sums[q][0] = _mm512_dpbusd_epi32(sums[q][0], low, word);
            sums[q][1] = _mm512_dpbusd_epi32(sums[q][1], high, word);
        }
    }
    // By how much a bound exceeds the product at least as much as for any of the queries.
    let widest = queries.iter().fold(0.0, |most, q| q.per_hidden.max(most));
    let first = panel * PANEL;
    let scale = [first, first + 16].map(|at| load(&codes.scale[at..at + 16]));
    let slack = [first, first + 16].map(|at| {
        let hidden = load(&codes.slack[at..at + 16]);
        _mm512_mul_ps(hidden, _mm512_set1_ps(widest))
    });
    #[allow(clippy::needless_range_loop)] // `q` picks registers, not only elements of `sums`.
    for q in 0..Q {
        // Rounding must not hide what `offer` would take.
        let needed = candidates[q].threshold - queries[q].slack - 1e-6;
        let passed = |half: usize| {
            let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[q][half]), scale[half]);
            let factor = _mm512_set1_ps(queries[q].scale);
            let upper = _mm512_fmadd_ps(product, factor, slack[half]);
            _mm512_cmp_ps_mask::<_CMP_GE_OQ>(upper, _mm512_set1_ps(needed))
        };
        let (low, high) = (passed(0), passed(1));
        if low | high != 0 {
            let passed = u32::from(low) | u32::from(high) << 16;
            offer(
                &sums[q],
                passed,
                first,
                codes,
                queries[q],
                &mut candidates[q],
            );
        }
    }
}

/// Offers the lanes of `passed` to one query.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f")]
fn offer(
    sums: &[__m512i; 2],
    mut passed: u32,
    first: usize,
    codes: &Codes,
    query: &Query,
    candidates: &mut Candidates,
) {
    // SAFETY: both are 128 bytes, and any bits are integers.
    let sums: &[i32; PANEL] = unsafe { &*std::ptr::from_ref(sums).cast() };
    while passed != 0 {
        let lane = passed.trailing_zeros() as usize;
        passed &= passed - 1;
        let slot = first + lane;
        // A free slot has slack −∞; its bound passes only while there is no threshold.
        if codes.slack[slot] >= 0.0 {
            let about = sums[lane] as f32 * codes.scale[slot] * query.scale;
            let slack = codes.slack[slot] * query.per_hidden + query.slack;
            candidates.offer(slot as Slot, about, slack);
        }
    }
}

#[target_feature(enable = "avx512f")]
fn load(numbers: &[f32]) -> __m512 {
    assert!(numbers.len() >= 16);
    // SAFETY: 16 numbers are there, and the load needs no alignment.
    unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
}
