//! int8 codes of the keys, with a bound on the rounding error of each.
//!
//! A key is `k = s·c + e` with integers `c ∈ [−127, 127]`; `‖e‖` is stored. Codes lie in panels of 32 keys,
//! four dimensions of one key side by side, so that one vector instruction multiplies 16 keys with four
//! dimensions of a query:
//!
//! ```text
//! panel │ dimensions 0‥3: key 0, key 1, … key 15 │ key 16 … key 31 │ dimensions 4‥7: key 0 …
//! ```
//!
//! Codes are held as unsigned bytes `c + 128`: the product with a query's codes `q` is then too large by
//! `128·Σq`, which the scan subtracts beforehand. A freed slot has slack −∞ and is never a candidate.

use crate::base::{Huge, Slot, heap_sized, no_heap, threads};
use crate::error::Result;

/// Keys a panel holds.
pub(crate) const PANEL: usize = 32;
/// Keys that a thread encodes at a time: whole panels.
const KEYS_PER_PART: usize = 8 * PANEL;
/// Parts that are encoded before they are put together.
const PARTS_PER_ROUND: usize = 256;
/// Dimensions that one 32-bit lane holds.
const GROUP: usize = 4;
/// The largest code of a key.
const MAX_CODE: i8 = 127;
/// Sums of `255·127` over more dimensions could overflow 32 bits.
pub(crate) const MAX_DIMENSIONS: usize = 65_536;

/// One aligned vector register of codes: 16 keys, four dimensions.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line(pub(crate) [u8; 64]);

no_heap!(Line);

heap_sized! {
    /// The codes of all slots.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Codes {
        groups: usize,
        lines: Huge<Line>,
        /// `s`, by slot; whole panels.
        pub(crate) scale: Vec<f32>,
        /// `‖e‖` rounded up, by slot; −∞ where free.
        pub(crate) slack: Vec<f32>,
    }
}

impl Codes {
    pub(crate) fn new(dim: usize) -> Self {
        Self {
            groups: dim.div_ceil(GROUP),
            ..Self::default()
        }
    }

    /// The codes of the rows of `keys` `(n, dim)`, the first in slot 0, computed on all threads.
    pub(crate) fn of_rows(keys: &[f32], dim: usize) -> Result<Self> {
        let mut all = Self::new(dim);
        all.reserve(keys.len() / dim);
        for round in keys.chunks(PARTS_PER_ROUND * KEYS_PER_PART * dim) {
            let parts: Vec<&[f32]> = round.chunks(KEYS_PER_PART * dim).collect();
            for part in threads::map(parts.len(), None, |at| {
                let mut part = Self::new(dim);
                for (slot, key) in parts[at].chunks_exact(dim).enumerate() {
                    part.set(slot as Slot, key);
                }
                part
            })? {
                all.lines.append(&part.lines);
                all.scale.extend_from_slice(&part.scale);
                all.slack.extend_from_slice(&part.slack);
            }
        }
        Ok(all)
    }

    /// Makes room for `more` keys, if there is too little.
    pub(crate) fn reserve_for(&mut self, more: usize) {
        let lines = more.div_ceil(PANEL) * self.groups * 2;
        self.lines.reserve_for(lines);
    }

    /// Makes room for `more` keys.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.lines.reserve(more.div_ceil(PANEL) * self.groups * 2);
    }

    pub(crate) fn panels(&self) -> usize {
        self.scale.len() / PANEL
    }

    /// Groups of four dimensions a code has.
    pub(crate) fn groups(&self) -> usize {
        self.groups
    }

    /// Two lines a group: keys 0–15 and keys 16–31 of the panel.
    pub(crate) fn panel(&self, panel: usize) -> &[Line] {
        &self.lines[panel * self.groups * 2..(panel + 1) * self.groups * 2]
    }

    /// Encodes `key` into `slot`.
    pub(crate) fn set(&mut self, slot: Slot, key: &[f32]) {
        let (panel, lane) = (slot as usize / PANEL, slot as usize % PANEL);
        if panel >= self.panels() {
            let panels = panel + 1;
            let more = panels * self.groups * 2 - self.lines.len();
            self.lines.extend(more, Line([128; 64]));
            self.scale.resize(panels * PANEL, 0.0);
            self.slack.resize(panels * PANEL, f32::NEG_INFINITY);
        }
        let code = Code::of(key, MAX_CODE);
        let first = panel * self.groups * 2 + lane / 16;
        let at = lane % 16 * GROUP;
        for (group, four) in code.codes.chunks(GROUP).enumerate() {
            let line = &mut self.lines[first + group * 2].0;
            for (byte, &c) in line[at..at + GROUP].iter_mut().zip(four) {
                *byte = (i16::from(c) + 128) as u8;
            }
        }
        self.scale[slot as usize] = code.scale;
        self.slack[slot as usize] = code.hidden;
    }

    /// Frees a slot: no scan offers it.
    pub(crate) fn clear(&mut self, slot: Slot) {
        self.scale[slot as usize] = 0.0;
        self.slack[slot as usize] = f32::NEG_INFINITY;
    }
}

/// A unit vector in integers.
pub(crate) struct Code {
    pub(crate) scale: f32,
    pub(crate) codes: Vec<i8>,
    /// `‖x − scale·codes‖`, rounded up.
    pub(crate) hidden: f32,
}

impl Code {
    /// Adding and subtracting 1.5·2²³ rounds a small f32 to the nearest integer, without a call.
    const ROUND: f32 = 12_582_912.0;
    /// Elements worked on side by side.
    const WIDTH: usize = 16;

    /// `x` in codes of `[−most, most]`.
    pub(crate) fn of(x: &[f32], most: i8) -> Self {
        let most = f32::from(most);
        // Whole parts apart from the rest, because the compiler makes vectors of what has a length that it knows.
        let (whole, rest) = x.as_chunks::<{ Self::WIDTH }>();
        let mut lanes = [0.0f32; Self::WIDTH];
        let larger = |lane: &mut f32, x: f32| {
            let size = x.abs();
            *lane = if size > *lane { size } else { *lane };
        };
        for part in whole {
            lanes
                .iter_mut()
                .zip(part)
                .for_each(|(lane, &x)| larger(lane, x));
        }
        lanes
            .iter_mut()
            .zip(rest)
            .for_each(|(lane, &x)| larger(lane, x));
        let largest = lanes.iter().fold(0.0f32, |most, &x| most.max(x));
        // Of a unit vector the largest element is at least 1/√d, so the quotient is an ordinary number.
        let (scale, inverse) = if largest > 1e-30 {
            (largest / most, most / largest)
        } else {
            (0.0, 0.0)
        };
        let mut codes = vec![0i8; x.len()];
        let mut hidden = [0.0f64; Self::WIDTH];
        let encode = |x: f32, code: &mut i8, hidden: &mut f64| {
            let c = ((x * inverse + Self::ROUND) - Self::ROUND).clamp(-most, most);
            let e = f64::from(x) - f64::from(scale) * f64::from(c);
            *hidden += e * e;
            *code = c as i8;
        };
        let (whole_codes, rest_of_codes) = codes.as_chunks_mut::<{ Self::WIDTH }>();
        for (part, codes) in whole.iter().zip(whole_codes) {
            for ((&x, code), hidden) in part.iter().zip(codes).zip(&mut hidden) {
                encode(x, code, hidden);
            }
        }
        for ((&x, code), hidden) in rest.iter().zip(rest_of_codes).zip(&mut hidden) {
            encode(x, code, hidden);
        }
        let hidden: f64 = hidden.iter().sum();
        Self {
            scale,
            codes,
            hidden: (hidden.sqrt() * (1.0 + 1e-6)) as f32 + f32::MIN_POSITIVE,
        }
    }
}

/// Codes of a query and the slack of comparing it with a key of hidden part `h`: `per_hidden·h + slack`.
pub(crate) struct Query {
    pub(crate) scale: f32,
    /// Four int8 codes a word.
    pub(crate) words: Vec<i32>,
    /// `−128·Σ codes`: what unsigned keys add too much.
    pub(crate) start: i32,
    pub(crate) per_hidden: f32,
    pub(crate) slack: f32,
}

impl Query {
    /// `x` in codes of `[−most, most]`. For unit `x` and `k`, with `x = x̂ + e_x`, `k = k̂ + e_k`:
    ///
    /// ```text
    /// |⟨x,k⟩ − ⟨x̂,k̂⟩| = |⟨e_x,k⟩ + ⟨x̂,e_k⟩| ≤ ‖e_x‖‖k‖ + ‖x̂‖‖e_k‖        (Cauchy–Schwarz)
    /// ```
    ///
    /// and the canonical dot differs from the exact one by at most `(d/32 + 6)·2^−24·‖x‖‖k‖`: a lane adds
    /// d/32 products, the tree has five levels (Higham 2002, 3.1). The f32 arithmetic of the bound itself,
    /// on numbers of size 1, is covered by the last summand.
    pub(crate) fn of(x: &[f32], most: i8) -> Self {
        let code = Code::of(x, most);
        let (fours, rest) = code.codes.as_chunks::<4>();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        let last = (!rest.is_empty()).then_some(&last);
        let words = fours.iter().chain(last);
        let words = words.map(|four| i32::from_le_bytes(four.map(i8::cast_unsigned)));
        let words = words.collect();
        let sum: i32 = code.codes.iter().map(|&c| i32::from(c)).sum();
        let rounding = (x.len() as f32 / 32.0 + 7.0) * (f32::EPSILON / 2.0) * 1.01 + 2e-6;
        Self {
            scale: code.scale,
            words,
            start: -128 * sum,
            per_hidden: (1.0 + code.hidden) * 1.000_01,
            slack: code.hidden * 1.000_01 + rounding,
        }
    }
}

/// Queries that a kernel multiplies with a panel at once.
pub(crate) struct Tile<'a> {
    pub(crate) queries: Vec<&'a Query>,
    /// The words of all its queries for one group of dimensions, then those for the next.
    words: Vec<i32>,
    pub(crate) starts: Vec<i32>,
    pub(crate) scales: Vec<f32>,
    /// The largest `per_hidden`.
    pub(crate) widest: f32,
}

impl<'a> Tile<'a> {
    pub(crate) fn of(queries: Vec<&'a Query>) -> Self {
        let groups = queries.first().map_or(0, |query| query.words.len());
        let mut words = Vec::with_capacity(groups * queries.len());
        for group in 0..groups {
            words.extend(queries.iter().map(|query| query.words[group]));
        }
        Self {
            words,
            starts: queries.iter().map(|query| query.start).collect(),
            scales: queries.iter().map(|query| query.scale).collect(),
            widest: queries.iter().fold(0.0, |most, q| q.per_hidden.max(most)),
            queries,
        }
    }

    /// What the similarity of a key to query `q` must reach with its own share of the slack, a little less than that:
    /// rounding must not hide what would pass the threshold.
    pub(crate) fn needed(&self, q: usize, threshold: f32) -> f32 {
        threshold - self.queries[q].slack - 1e-6
    }

    /// The words of each group.
    pub(crate) fn words<const Q: usize>(&self) -> &[[i32; Q]] {
        self.words.as_chunks().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_a_code_hides_is_bounded(
            x in prop::collection::vec(-1.0f32..1.0, 1..80),
            most in prop::sample::select(vec![64i8, 127]),
        ) {
            let code = Code::of(&x, most);
            prop_assert!(code.codes.iter().all(|c| c.unsigned_abs() <= most.unsigned_abs()));
            let hidden: f64 = x
                .iter()
                .zip(&code.codes)
                .map(|(x, c)| (f64::from(*x) - f64::from(code.scale) * f64::from(*c)).powi(2))
                .sum();
            prop_assert!(hidden.sqrt() <= f64::from(code.hidden));
        }
    }
}
