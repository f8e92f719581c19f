//! A query as the first pass sees it.

use crate::index::quantize::Code;

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
