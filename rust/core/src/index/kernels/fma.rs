//! The f32 pass: a tile of keys against a panel of queries, multiplied and added in one.

use std::arch::x86_64::{
    __m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps,
    _mm256_storeu_ps,
};
use std::ops::Range;

use crate::index::Candidates;
use crate::index::kernels::float::{Bounds, FloatKernel};
use crate::index::kernels::int8::of_width;
use crate::memory::Memories;

pub(crate) const KERNEL: FloatKernel = FloatKernel {
    name: "f32",
    set: "avx2",
    usable: || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
    scan,
};

/// Queries of a panel: two registers.
const LANES: usize = 16;
/// Keys of a tile: 6 × 2 sums, and the rest of the 16 registers to load into.
const TILE: usize = 6;
/// Bytes of keys that a core keeps close while all queries pass over them.
const BLOCK_BYTES: usize = 256 * 1024;

/// Queries side by side: element `i` of every query, then element `i + 1`.
struct Panel {
    elements: Vec<f32>,
    bounds: Bounds<LANES>,
}

impl Panel {
    fn new(queries: &[&[f32]], dim: usize) -> Self {
        let mut elements = vec![0.0; dim * LANES];
        for (lane, query) in queries.iter().enumerate() {
            for (at, &x) in query.iter().enumerate() {
                elements[at * LANES + lane] = x;
            }
        }
        Self {
            elements,
            bounds: Bounds::of_f32(dim, queries.len()),
        }
    }
}

/// Offers the memories in `slots` to the candidates of the queries.
#[target_feature(enable = "avx2,fma")]
fn scan(
    memories: &Memories,
    slots: Range<usize>,
    queries: &[&[f32]],
    candidates: &mut [Candidates],
) {
    let dim = memories.dim();
    let mut panels: Vec<Panel> = queries.chunks(LANES).map(|q| Panel::new(q, dim)).collect();
    let block = (BLOCK_BYTES / (dim * 4) / TILE * TILE).max(TILE);
    let mut from = slots.start;
    while from < slots.end {
        let to = (from + block).min(slots.end);
        for (panel, candidates) in panels.iter_mut().zip(candidates.chunks_mut(LANES)) {
            panel.bounds.refresh(candidates);
            let mut first = from;
            while first < to {
                let keys = TILE.min(to - first);
                of_width!(keys, tile, (memories, first, panel, candidates), 1 2 3 4 5 6);
                first += keys;
            }
        }
        from = to;
    }
}

#[target_feature(enable = "avx2,fma")]
fn tile<const K: usize>(
    memories: &Memories,
    first: usize,
    panel: &mut Panel,
    candidates: &mut [Candidates],
) {
    let dim = memories.dim();
    let keys = &memories.columns().keys[first * dim..(first + K) * dim];
    assert!(panel.elements.len() == dim * LANES);
    let mut sums: [[__m256; 2]; K] = [[_mm256_setzero_ps(); 2]; K];
    for i in 0..dim {
        // SAFETY: `elements` holds dim·16 numbers, as asserted above.
        let queries = unsafe {
            let at = panel.elements.as_ptr().add(i * LANES);
            [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))]
        };
        for (k, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `keys` holds K·dim numbers by its slicing.
            let key = _mm256_broadcast_ss(unsafe { keys.get_unchecked(k * dim + i) });
            sums[0] = _mm256_fmadd_ps(key, queries[0], sums[0]);
            sums[1] = _mm256_fmadd_ps(key, queries[1], sums[1]);
        }
    }
    for (k, sums) in sums.iter().enumerate() {
        let mut about = [0.0f32; LANES];
        for (eight, about) in sums.iter().zip(about.chunks_exact_mut(8)) {
            // SAFETY: the chunk holds 8 numbers, and the store needs no alignment.
            unsafe { _mm256_storeu_ps(about.as_mut_ptr(), *eight) };
        }
        let bounds = &mut panel.bounds;
        bounds.settle(memories, first + k, &about, 0.0, candidates);
    }
}
