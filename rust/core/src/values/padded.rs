//! One pass over rows of P for several channels at once: an association is loaded once for all of them.
//!
//! A sweep is bound by access to the successors' values, not by arithmetic. So the values of a memory lie
//! side by side, and the rows to come are fetched while this one is summed up. Loops over associations go in steps of
//! [`UNROLLED`] without a branch between them: a mispredicted end of a loop discards the
//! prefetches already begun. The body is compiled once per instruction set; multiply and add stay apart, so every copy
//! computes the same bits.

use crate::base::{Slot, alloc};
use crate::config::{Config, Equation};
use crate::graph::Row;
#[cfg(target_arch = "x86_64")]
use crate::linalg;
use crate::linalg::prefetch_line;
use crate::values::{Model, solve};

/// How many rows ahead successors' values are prefetched: enough to keep the memory busy.
const VALUES_AHEAD: usize = 16;

/// How many rows ahead the rows themselves are prefetched, so that they arrive before their values are prefetched.
const ROWS_AHEAD: usize = 2 * VALUES_AHEAD;

/// Associations without a branch between them.
const UNROLLED: usize = 8;

/// Numbers of a cache line.
const LINE_NUMBERS: usize = 16;

/// `v_iq` by slot without gaps, channels filled up to a multiple of the lanes.
#[derive(Debug)]
pub(crate) struct PaddedValues {
    memory: Vec<f32>,
    /// Where the first slot lies: at the beginning of a cache line, so that no memory lies across two.
    first: usize,
    /// 1, 2, 4 or 8 channels that one pass serves.
    lanes: usize,
    pub(crate) stride: usize,
}

impl PaddedValues {
    pub(crate) fn new(slots: usize, channels: usize) -> Self {
        let lanes = channels.next_power_of_two().clamp(1, 8);
        let stride = channels.div_ceil(lanes).max(1) * lanes;
        let (memory, first) = alloc::zeros(slots * stride);
        Self {
            memory,
            first,
            lanes,
            stride,
        }
    }

    pub(crate) fn of(&self, slot: Slot) -> &[f32] {
        let at = self.first + slot as usize * self.stride;
        &self.memory[at..at + self.stride]
    }

    pub(crate) fn of_mut(&mut self, slot: Slot) -> &mut [f32] {
        let at = self.first + slot as usize * self.stride;
        &mut self.memory[at..at + self.stride]
    }

    /// Writes the values of a memory, filled up to the stride, and tells whether any is another: −0 is 0.
    #[inline]
    pub(crate) fn write(&mut self, slot: Slot, v: &[f32]) -> bool {
        let old = self.of_mut(slot);
        // All of a memory's eight at once, where there are eight.
        if let (Ok(old), Ok(v)) = (
            <&mut [f32; 8]>::try_from(&mut *old),
            <&[f32; 8]>::try_from(v),
        ) {
            let differ: u32 = (0..8).map(|q| u32::from(old[q] != v[q])).sum();
            *old = *v;
            return differ > 0;
        }
        let differ = *old != *v;
        old.copy_from_slice(v);
        differ
    }

    /// What backups of the rows would write, `(rows, stride)`; `Σ_j P_ij v_jq` runs by rising id of j.
    pub(crate) fn proposed(&self, rows: &[Slot], model: Model<'_>, out: &mut [f32]) {
        debug_assert_eq!(out.len(), rows.len() * self.stride);
        match (self.lanes, self.stride) {
            (1, _) => self.dispatch::<1, 1>(rows, model, out),
            (2, _) => self.dispatch::<2, 2>(rows, model, out),
            (4, _) => self.dispatch::<4, 4>(rows, model, out),
            (_, 8) => self.dispatch::<8, 8>(rows, model, out),
            _ => self.dispatch::<8, 0>(rows, model, out),
        }
    }

    /// `STRIDE` is the stride, or 0 if it is not known when this is compiled.
    fn dispatch<const LANES: usize, const STRIDE: usize>(
        &self,
        rows: &[Slot],
        model: Model<'_>,
        out: &mut [f32],
    ) {
        #[cfg(target_arch = "x86_64")]
        match linalg::instruction_set() {
            // SAFETY: `simd` chooses an instruction set only if this processor has it.
            "avx512" => return unsafe { x86::avx512::<LANES, STRIDE>(self, rows, model, out) },
            // SAFETY: as above.
            "avx2" => return unsafe { x86::avx2::<LANES, STRIDE>(self, rows, model, out) },
            _ => {}
        }
        self.body::<LANES, STRIDE>(rows, model, out);
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // The body must be compiled again inside each instruction set.
    fn body<const LANES: usize, const STRIDE: usize>(
        &self,
        rows: &[Slot],
        model: Model<'_>,
        out: &mut [f32],
    ) {
        let stride = if STRIDE == 0 { self.stride } else { STRIDE };
        let v = &self.memory[self.first..];
        let graph = model.graph;
        for &slot in rows.iter().take(ROWS_AHEAD) {
            prefetch_row(graph.row(slot));
        }
        for &slot in rows.iter().take(VALUES_AHEAD) {
            prefetch_values(v, graph.row(slot).targets, stride);
        }
        for (at, (&slot, out)) in rows.iter().zip(out.chunks_exact_mut(stride)).enumerate() {
            if let Some(&slot) = rows.get(at + ROWS_AHEAD) {
                prefetch_row(graph.row(slot));
            }
            if let Some(&slot) = rows.get(at + VALUES_AHEAD) {
                prefetch_values(v, graph.row(slot).targets, stride);
            }
            let (row, mass) = (graph.row(slot), graph.mass(slot));
            let mut drives = model.memories.drives(slot).chunks(LANES);
            for (pass, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let mut ahead = [0.0f64; LANES];
                let mut add = |target: Slot, p: f64| {
                    let at = target as usize * stride + pass * LANES;
                    let v = v[at..].first_chunk::<LANES>().expect("of that stride");
                    for lane in 0..LANES {
                        ahead[lane] += p * f64::from(v[lane]);
                    }
                };
                let (targets, last_targets) = row.targets.as_chunks::<UNROLLED>();
                let (sums, last_sums) = row.sums.as_chunks::<UNROLLED>();
                for (targets, sums) in targets.iter().zip(sums) {
                    let p = sums.map(|sum| sum / mass);
                    for step in 0..UNROLLED {
                        add(targets[step], p[step]);
                    }
                }
                for (&target, &sum) in last_targets.iter().zip(last_sums) {
                    add(target, sum / mass);
                }
                // Padding channels have drive 0.
                let some = drives.next().unwrap_or_default();
                let r = some.first_chunk::<LANES>().copied().unwrap_or_else(|| {
                    std::array::from_fn(|lane| some.get(lane).copied().unwrap_or_default())
                });
                *out = solved(model.config, &r, &ahead);
            }
        }
    }
}

/// The value equation in all lanes.
#[inline(always)]
#[allow(clippy::inline_always)] // As above.
fn solved<const LANES: usize>(
    config: &Config,
    r: &[f32; LANES],
    ahead: &[f64; LANES],
) -> [f32; LANES] {
    let gamma = config.gamma;
    let each = |equation| std::array::from_fn(|q| solve(equation, gamma, r[q], ahead[q]));
    match config.equation {
        Equation::Stopping => each(Equation::Stopping),
        Equation::Return => each(Equation::Return),
    }
}

/// Prefetches a row.
#[inline(always)]
#[allow(clippy::inline_always)] // As above.
fn prefetch_row(row: Row<'_>) {
    for targets in row.targets.chunks(LINE_NUMBERS) {
        prefetch_line(targets.as_ptr());
    }
    for sums in row.sums.chunks(LINE_NUMBERS / 2) {
        prefetch_line(sums.as_ptr());
    }
}

/// Prefetches the values of successors.
#[inline(always)]
#[allow(clippy::inline_always)] // As above.
fn prefetch_values(v: &[f32], targets: &[Slot], stride: usize) {
    let ask = |&target: &Slot| prefetch_line(v.as_ptr().wrapping_add(target as usize * stride));
    let (targets, last) = targets.as_chunks::<UNROLLED>();
    for targets in targets {
        targets.iter().for_each(ask);
    }
    last.iter().for_each(ask);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::PaddedValues;
    use crate::base::Slot;
    use crate::values::Model;

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2<const LANES: usize, const STRIDE: usize>(
        values: &PaddedValues,
        rows: &[Slot],
        model: Model<'_>,
        out: &mut [f32],
    ) {
        values.body::<LANES, STRIDE>(rows, model, out);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512<const LANES: usize, const STRIDE: usize>(
        values: &PaddedValues,
        rows: &[Slot],
        model: Model<'_>,
        out: &mut [f32],
    ) {
        values.body::<LANES, STRIDE>(rows, model, out);
    }
}
