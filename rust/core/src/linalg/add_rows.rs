//! Adding rows up on AVX-512: as much of the sum as there are registers stays in them.

use std::arch::x86_64::{
    _mm512_add_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use super::{AHEAD, prefetch_line, row};

/// Numbers of a register.
const LANES: usize = 16;

/// [`super::add_rows`].
#[target_feature(enable = "avx512f")]
pub(super) fn add_rows(rows: &[f32], these: &[(u32, f32)], soon: &[(u32, f32)], y: &mut [f32]) {
    let dim = y.len();
    for &(name, _) in these.iter().chain(soon.iter().take(AHEAD)) {
        assert!(row(name, dim).end <= rows.len(), "there is no row {name}");
    }
    let mut done = 0;
    done = tiles::<24>(rows, these, soon, y, done);
    done = tiles::<8>(rows, these, soon, y, done);
    done = tiles::<1>(rows, these, soon, y, done);
    for &(name, alpha) in these {
        let x = &rows[row(name, dim)];
        for (y, &x) in y[done..].iter_mut().zip(&x[done..]) {
            *y += alpha * x;
        }
    }
}

/// Tiles of `N` registers from column `done` on, as many as fit. Every row must be there.
#[target_feature(enable = "avx512f")]
fn tiles<const N: usize>(
    rows: &[f32],
    these: &[(u32, f32)],
    soon: &[(u32, f32)],
    y: &mut [f32],
    mut done: usize,
) -> usize {
    let dim = y.len();
    while done + N * LANES <= dim {
        let of = |name: u32| rows.as_ptr().wrapping_add(name as usize * dim + done);
        let tile = y[done..done + N * LANES].as_mut_ptr();
        let mut sum = [_mm512_setzero_ps(); N];
        for (n, sum) in sum.iter_mut().enumerate() {
            // SAFETY: `tile` has N registers' worth of numbers.
            *sum = unsafe { _mm512_loadu_ps(tile.add(n * LANES)) };
        }
        let mut later = these.iter().chain(soon).skip(AHEAD);
        for &(name, alpha) in these {
            if let Some(&(name, _)) = later.next() {
                for n in 0..N {
                    prefetch_line(of(name).wrapping_add(n * LANES));
                }
            }
            let (x, alpha) = (of(name), _mm512_set1_ps(alpha));
            #[allow(clippy::needless_range_loop)] // `n` picks registers.
            for n in 0..N {
                // SAFETY: the row is there, as the caller made sure, and has `dim` numbers.
                let x = unsafe { _mm512_loadu_ps(x.add(n * LANES)) };
                sum[n] = _mm512_add_ps(sum[n], _mm512_mul_ps(alpha, x));
            }
        }
        for (n, sum) in sum.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(tile.add(n * LANES), sum) };
        }
        done += N * LANES;
    }
    done
}
