//! The first pass on NEON, and on NEON with the dot product instructions of Armv8.2.
//!
//! Keys are turned into signed codes, `c = (c + 128) ⊕ 128` bit by bit, so sums start at zero. Without `sdot`,
//! two products of ±127 are added in 16 bits: `127·127·2 = 32258` fits.

use std::arch::aarch64::{
    int8x16_t, int32x4_t, vdupq_n_s32, vdupq_n_u8, veorq_u8, vget_low_s8, vld1q_u8, vmull_high_s8,
    vmull_s8, vpadalq_s16, vpaddq_s16, vreinterpretq_s8_s32, vreinterpretq_s8_u8, vst1q_s32,
};

use crate::index::kernels::int8::{Kernel, TileCandidates, of_width, settle};
use crate::index::{Codes, PANEL, Tile};

pub(crate) const KERNEL: Kernel = Kernel {
    name: "neon",
    set: "neon",
    usable: || std::arch::is_aarch64_feature_detected!("neon"),
    largest: 127,
    width: 4,
    multiply: plain::panel,
};

pub(crate) const DOT: Kernel = Kernel {
    name: "neon-dot",
    set: "neon",
    usable: || {
        std::arch::is_aarch64_feature_detected!("neon")
            && std::arch::is_aarch64_feature_detected!("dotprod")
    },
    largest: 127,
    width: 4,
    multiply: dot::panel,
};

/// `sums + keys·word`, four products a lane, through 16 bits.
#[target_feature(enable = "neon")]
fn widening(sums: int32x4_t, keys: int8x16_t, word: int8x16_t) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(keys), vget_low_s8(word));
    let high = vmull_high_s8(keys, word);
    vpadalq_s16(sums, vpaddq_s16(low, high))
}

/// `sums + keys·word`, four products a lane, in one instruction.
#[target_feature(enable = "neon,dotprod")]
fn in_one(mut sums: int32x4_t, keys: int8x16_t, word: int8x16_t) -> int32x4_t {
    // SAFETY: registers in, a register out; the processor has `sdot`, as the caller's feature says.
    unsafe {
        std::arch::asm!(
            "sdot {sums:v}.4s, {keys:v}.16b, {word:v}.16b",
            sums = inout(vreg) sums,
            keys = in(vreg) keys,
            word = in(vreg) word,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
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

            /// One panel of 32 keys against `Q` queries, 16 keys at a time: 16 of 32 registers sum.
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
                let flip = vdupq_n_u8(128);
                let mut all = [[0i32; PANEL]; Q];
                for half in 0..2 {
                    let mut sums = [[vdupq_n_s32(0); 4]; Q];
                    for group in 0..groups {
                        let line = &lines[group * 2 + half].0;
                        let keys: [int8x16_t; 4] = std::array::from_fn(|i| {
                            // SAFETY: a line holds 64 bytes.
                            let bytes = unsafe { vld1q_u8(line.as_ptr().add(i * 16)) };
                            vreinterpretq_s8_u8(veorq_u8(bytes, flip))
                        });
                        for q in 0..Q {
                            // SAFETY: `words` holds `groups` arrays, as asserted above.
                            let word = vdupq_n_s32(unsafe { words.get_unchecked(group)[q] });
                            let word = vreinterpretq_s8_s32(word);
                            for (sums, &keys) in sums[q].iter_mut().zip(&keys) {
                                *sums = $add(*sums, keys, word);
                            }
                        }
                    }
                    for (sums, all) in sums.iter().zip(&mut all) {
                        for (four, all) in sums.iter().zip(all[half * 16..].chunks_exact_mut(4)) {
                            // SAFETY: the chunk holds 4 numbers.
                            unsafe { vst1q_s32(all.as_mut_ptr(), *four) };
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

kernel!(plain, "neon", widening);
kernel!(dot, "neon,dotprod", in_one);
