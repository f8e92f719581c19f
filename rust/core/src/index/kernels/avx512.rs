//! The first pass on AVX-512 VNNI: int8 codes, a tile of queries against a panel of keys at a time.
//!
//! The bounds of a tile are compared with the thresholds in registers, so no matrix of scores is written.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GE_OQ, _MM_HINT_T0, _mm_prefetch, _mm512_alignr_epi32,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps,
    _mm512_cvtss_f32, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_load_si512, _mm512_loadu_ps,
    _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_permutexvar_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
};

use crate::base::Slot;
use crate::index::candidates::LANES;
use crate::index::kernels::int8::{Kernel, TileCandidates, of_width};
use crate::index::{Candidates, Codes, PANEL, Query, Tile};

pub(crate) const KERNEL: Kernel = Kernel {
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

/// A panel against up to 12 queries.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn panel(codes: &Codes, panels: [usize; 2], tile: &Tile<'_>, found: &mut TileCandidates<'_>) {
    of_width!(tile.queries.len(), tile_of, (codes, panels, tile, found), 1 2 3 4 5 6 7 8 9 10 11 12);
}

/// A panel of 32 keys against `Q` queries.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile_of<const Q: usize>(
    codes: &Codes,
    [panel, fetched]: [usize; 2],
    tile: &Tile<'_>,
    found: &mut TileCandidates<'_>,
) {
    let (lines, ahead) = (codes.panel(panel), codes.panel(fetched));
    let words = tile.words::<Q>();
    let groups = codes.groups();
    assert!(lines.len() == groups * 2 && words.len() == groups && ahead.len() == lines.len());
    let starts: &[i32; Q] = tile.starts.first_chunk().expect("one a query");
    let mut sums = [[_mm512_setzero_si512(); 2]; Q];
    for (sums, &start) in sums.iter_mut().zip(starts) {
        *sums = [_mm512_set1_epi32(start); 2];
    }
    for group in 0..groups {
        // SAFETY: both hold 2·groups aligned lines of 64 bytes, as asserted above.
        let (low, high) = unsafe {
            let ahead = ahead.as_ptr().add(group * 2).cast::<i8>();
            _mm_prefetch::<_MM_HINT_T0>(ahead);
            _mm_prefetch::<_MM_HINT_T0>(ahead.add(64));
            let at = lines.as_ptr().add(group * 2);
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
    let first = panel * PANEL;
    let (scale, hidden) = (halves(&codes.scale, first), halves(&codes.slack, first));
    // By how much a bound exceeds the product at least as much as for any of the queries.
    let widest = _mm512_set1_ps(tile.widest);
    let slack = [
        _mm512_mul_ps(hidden[0], widest),
        _mm512_mul_ps(hidden[1], widest),
    ];
    let scales: &[f32; Q] = tile.scales.first_chunk().expect("one a query");
    let needed: &[f32; Q] = found.needed.first_chunk().expect("one a query");
    let (mut lanes, mut queries) = ([0; Q], 0);
    #[allow(clippy::needless_range_loop)] // As above.
    for q in 0..Q {
        let (factor, needed) = (_mm512_set1_ps(scales[q]), _mm512_set1_ps(needed[q]));
        let low = passed(sums[q][0], scale[0], factor, slack[0], needed);
        let high = passed(sums[q][1], scale[1], factor, slack[1], needed);
        lanes[q] = u32::from(low) | u32::from(high) << 16;
        queries |= u32::from(lanes[q] != 0) << q;
    }
    if queries != 0 {
        // A copy, so that the sums stay in registers until here.
        let sums = sums;
        offer(&sums, &lanes, queries, panel, codes, tile, found);
    }
}

/// The lanes whose `sum·scale·factor + slack` is at least `needed`.
#[inline]
#[target_feature(enable = "avx512f")]
fn passed(sums: __m512i, scale: __m512, factor: __m512, slack: __m512, needed: __m512) -> u16 {
    let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale);
    _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_fmadd_ps(product, factor, slack), needed)
}

/// Offers a panel to those of the `queries` of a tile, bit by bit, that some of its `lanes` passed.
#[inline(never)]
#[target_feature(enable = "avx512f")]
fn offer(
    sums: &[[__m512i; 2]],
    lanes: &[u32],
    mut queries: u32,
    panel: usize,
    codes: &Codes,
    tile: &Tile<'_>,
    found: &mut TileCandidates<'_>,
) {
    while queries != 0 {
        let q = queries.trailing_zeros() as usize;
        queries &= queries - 1;
        let mut bounds = [0.0; PANEL];
        let (query, candidates) = (tile.queries[q], &mut found.candidates[q]);
        let factor = _mm512_set1_ps(query.scale);
        let scale = halves(&codes.scale, panel * PANEL);
        // SAFETY: 32 numbers, twice 16, and the stores need no alignment.
        unsafe {
            for half in 0..2 {
                let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[q][half]), scale[half]);
                let at = bounds.as_mut_ptr().add(half * 16);
                _mm512_storeu_ps(at, _mm512_mul_ps(product, factor));
            }
        }
        match candidates.short_list().len() / LANES {
            1 => offer_to::<1>(&bounds, lanes[q], panel, codes, query, candidates),
            2 => offer_to::<2>(&bounds, lanes[q], panel, codes, query, candidates),
            3 => offer_to::<3>(&bounds, lanes[q], panel, codes, query, candidates),
            _ => each(lanes[q], panel, codes, query, |slot, lane, slack| {
                candidates.offer(slot, bounds[lane], slack);
            }),
        }
        found.needed[q] = tile.needed(q, candidates.threshold);
    }
}

/// Calls `take(slot, lane, slack)` for every memory among `lanes`.
#[inline(always)]
#[allow(clippy::inline_always)] // To be compiled for the instruction set around it.
fn each(
    mut lanes: u32,
    panel: usize,
    codes: &Codes,
    query: &Query,
    mut take: impl FnMut(Slot, usize, f32),
) {
    while lanes != 0 {
        let lane = lanes.trailing_zeros() as usize;
        lanes &= lanes - 1;
        let slot = panel * PANEL + lane;
        // A free slot has slack −∞; its bound passes only while there is no threshold.
        if codes.slack[slot] >= 0.0 {
            let slack = codes.slack[slot] * query.per_hidden + query.slack;
            take(slot as Slot, lane, slack);
        }
    }
}

/// Offers `lanes` to one query whose best lower bounds fill `N` registers, where they stay meanwhile.
#[target_feature(enable = "avx512f")]
fn offer_to<const N: usize>(
    about: &[f32; PANEL],
    lanes: u32,
    panel: usize,
    codes: &Codes,
    query: &Query,
    candidates: &mut Candidates,
) {
    let mut best = [_mm512_setzero_ps(); N];
    for (best, list) in best
        .iter_mut()
        .zip(candidates.short_list().as_chunks::<LANES>().0)
    {
        // SAFETY: 16 numbers, and the load needs no alignment.
        *best = unsafe { _mm512_loadu_ps(list.as_ptr()) };
    }
    let last = _mm512_set1_epi32((candidates.k() - 1) as i32 % LANES as i32);
    each(lanes, panel, codes, query, |slot, lane, slack| {
        let (lower, upper) = (about[lane] - slack, about[lane] + slack);
        if upper < candidates.threshold {
            return;
        }
        if lower > candidates.threshold {
            // Every bound becomes the greater of itself and the lesser of the new one and its predecessor.
            let new = _mm512_set1_ps(lower);
            let mut before = _mm512_set1_ps(f32::INFINITY);
            for best in &mut best {
                let (high, low) = (_mm512_castps_si512(*best), _mm512_castps_si512(before));
                let predecessors = _mm512_castsi512_ps(_mm512_alignr_epi32::<15>(high, low));
                before = *best;
                *best = _mm512_max_ps(*best, _mm512_min_ps(new, predecessors));
            }
            let kth = _mm512_cvtss_f32(_mm512_permutexvar_ps(last, best[N - 1]));
            candidates.threshold = candidates.threshold.max(kth);
        }
        candidates.see(slot, upper);
    });
    for (best, list) in best
        .iter()
        .zip(candidates.short_list().as_chunks_mut::<LANES>().0)
    {
        // SAFETY: 16 numbers, and the store needs no alignment.
        unsafe { _mm512_storeu_ps(list.as_mut_ptr(), *best) };
    }
}

/// The numbers of the keys of a panel.
#[target_feature(enable = "avx512f")]
fn halves(numbers: &[f32], first: usize) -> [__m512; 2] {
    let numbers: &[f32; PANEL] = numbers[first..].first_chunk().expect("whole panels");
    // SAFETY: twice 16 numbers are there, and the load needs no alignment.
    unsafe {
        [
            _mm512_loadu_ps(numbers.as_ptr()),
            _mm512_loadu_ps(numbers.as_ptr().add(16)),
        ]
    }
}
