//! The first pass on AVX2, and on AVX2 with VNNI.
//!
//! Without VNNI, `vpmaddubsw` multiplies unsigned keys with signed query codes and adds two products in
//! 16 bits, with saturation. Query codes within ±64 keep every such sum below `255·64·2 = 32640`, so none
//! saturates and the pass is exact in integers.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_dpbusd_avx_epi32, _mm256_load_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_storeu_si256,
};

use crate::index::kernels::int8::{Kernel, TileCandidates, of_width, settle};
use crate::index::{Codes, PANEL, Tile};

pub(crate) const KERNEL: Kernel = Kernel {
    name: "avx2",
    set: "avx2",
    usable: || is_x86_feature_detected!("avx2"),
    largest: 64,
    width: 4,
    multiply: plain::panel,
};

pub(crate) const VNNI: Kernel = Kernel {
    name: "avx2-vnni",
    set: "avx2",
    usable: || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni"),
    largest: 127,
    width: 4,
    multiply: vnni::panel,
};

/// `sums + keys·word`, four products a lane.
#[target_feature(enable = "avx2")]
fn widening(sums: __m256i, keys: __m256i, word: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(keys, word);
    _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

macro_rules! kernel {
    ($module:ident, $features:literal, $add:ident) => {
        mod $module {
            use super::*;

            /// One panel against up to four queries.
            #[target_feature(enable = $features)]
            pub(crate) fn panel(
                codes: &Codes,
                panels: [usize; 2],
                tile: &Tile<'_>,
                found: &mut TileCandidates<'_>,
            ) {
                of_width!(tile.queries.len(), tile_of, (codes, panels, tile, found), 1 2 3 4);
            }

            /// One panel of 32 keys against `Q` queries, 16 keys at a time: all that 16 registers hold.
            #[target_feature(enable = $features)]
            fn tile_of<const Q: usize>(
                codes: &Codes,
                [panel, _]: [usize; 2],
                tile: &Tile<'_>,
                found: &mut TileCandidates<'_>,
            ) {
                let lines = codes.panel(panel);
                let (queries, words) = (&tile.queries, tile.words::<Q>());
                let groups = codes.groups();
                assert!(lines.len() == groups * 2 && words.len() == groups);
                let mut all = [[0i32; PANEL]; Q];
                for half in 0..2 {
                    let mut sums: [[__m256i; 2]; Q] =
                        std::array::from_fn(|q| [_mm256_set1_epi32(queries[q].start); 2]);
                    for group in 0..groups {
                        // SAFETY: `lines` holds 2·groups aligned lines of 64 bytes, as asserted above.
                        let keys = unsafe {
                            let at = lines.as_ptr().add(group * 2 + half).cast::<__m256i>();
                            [_mm256_load_si256(at), _mm256_load_si256(at.add(1))]
                        };
                        for q in 0..Q {
                            // SAFETY: `words` holds `groups` arrays, as asserted above.
                            let word = _mm256_set1_epi32(unsafe { words.get_unchecked(group)[q] });
                            sums[q][0] = $add(sums[q][0], keys[0], word);
                            sums[q][1] = $add(sums[q][1], keys[1], word);
                        }
                    }
                    for (sums, all) in sums.iter().zip(&mut all) {
                        for (eight, all) in sums.iter().zip(all[half * 16..].chunks_exact_mut(8)) {
                            // SAFETY: the chunk holds 8 numbers, and the store needs no alignment.
                            unsafe { _mm256_storeu_si256(all.as_mut_ptr().cast(), *eight) };
                        }
                    }
                }
                for q in 0..Q {
                    settle(&all[q], panel, codes, queries[q], &mut found.candidates[q]);
                }
            }
        }
    };
}

kernel!(plain, "avx2", widening);
kernel!(vnni, "avx2,avxvnni", _mm256_dpbusd_avx_epi32);
