//! Ragged batches of episodes, checked and normalised once at the door.

use serde::{Deserialize, Serialize};

use crate::base::{cancel, heap_sized};
use crate::error::{Error, Result, invalid_if};

/// `x / ‖x‖`, the norm in f64 over the elements in order, each quotient rounded once to f32.
///
/// `None` if the norm is zero or not finite.
pub(crate) fn normalise(x: &[f32], out: &mut [f32]) -> Option<()> {
    let mut square = 0.0f64;
    for &x in x {
        square += f64::from(x) * f64::from(x);
    }
    let norm = square.sqrt();
    if norm == 0.0 || !norm.is_finite() {
        return None;
    }
    for (out, &x) in out.iter_mut().zip(x) {
        *out = (f64::from(x) / norm) as f32;
    }
    Some(())
}

/// Checks that `rows` is `(n, dim)` and returns every row normalised.
/// If not, the error names `argument` and the row that is zero, NaN or infinite.
pub(crate) fn normalised_rows(
    argument: &'static str,
    rows: &[f32],
    dim: usize,
) -> Result<Vec<f32>> {
    let n = rows.len();
    let whole = n.is_multiple_of(dim);
    invalid_if!(!whole, argument, "{n} numbers are not rows of {dim}");
    let mut all = vec![0.0; rows.len()];
    for (row, (x, out)) in rows
        .chunks_exact(dim)
        .zip(all.chunks_exact_mut(dim))
        .enumerate()
    {
        if row % 256 == 0 {
            cancel::check()?;
        }
        if normalise(x, out).is_none() {
            let what = if x.iter().any(|x| x.is_nan()) {
                "contains NaN"
            } else if x.iter().any(|x| x.is_infinite()) {
                "contains an infinity"
            } else {
                "has length zero"
            };
            return Err(Error::invalid(argument, format!("row {row} {what}")));
        }
    }
    Ok(all)
}

/// A batch of episodes in Arrow style: episode e is rows `offsets[e]..offsets[e + 1]` of `steps`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Episodes<'a> {
    /// `(ΣT, dim)` row by row, as given.
    pub steps: &'a [f32],
    /// `(E + 1,)`, from 0 to ΣT, never falling.
    pub offsets: &'a [i64],
}

impl Episodes<'_> {
    /// Checks the offsets and normalises the steps.
    pub(crate) fn checked(&self, dim: usize) -> Result<Batch> {
        let steps = normalised_rows("steps", self.steps, dim)?;
        let n = steps.len() / dim;
        let offsets = self.offsets;
        let name = "offsets";
        let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
            return Err(Error::invalid(name, "must hold at least one entry"));
        };
        invalid_if!(first != 0, name, "must begin with 0, not {first}");
        let ends = last == n as i64;
        let given = format!("the number of steps {n}, not {last}");
        invalid_if!(!ends, name, "must end with {given}");
        for (at, pair) in (1..).zip(offsets.windows(2)) {
            let &[before, entry] = pair else { continue };
            invalid_if!(
                entry < before,
                name,
                "must not fall: entry {at} is {entry} after {before}"
            );
        }
        Ok(Batch {
            dim,
            steps,
            offsets: offsets.iter().map(|&o| o as usize).collect(),
        })
    }
}

/// A checked batch with normalised steps.
#[derive(Debug)]
pub(crate) struct Batch {
    dim: usize,
    steps: Vec<f32>,
    offsets: Vec<usize>,
}

impl Batch {
    pub(crate) fn step(&self, t: usize) -> &[f32] {
        &self.steps[t * self.dim..(t + 1) * self.dim]
    }

    pub(crate) fn len(&self) -> usize {
        self.steps.len() / self.dim
    }

    pub(crate) fn episodes(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The rows of episode `e`.
    pub(crate) fn range(&self, e: usize) -> std::ops::Range<usize> {
        self.offsets[e]..self.offsets[e + 1]
    }

    pub(crate) fn rows(&self) -> &[f32] {
        &self.steps
    }
}

heap_sized! {
    /// One episode as it was given: what the archive keeps and what `observe` writes.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Episode {
        pub(crate) id: i64,
        /// `(T, dim)`, raw: normalising twice is not the identity.
        #[serde(skip)]
        pub(crate) steps: Vec<f32>,
        /// `(T, Qs)`, NaN where nothing was observed; empty without scalar channels.
        #[serde(skip)]
        pub(crate) drives: Vec<f32>,
        /// One a step, or none at all.
        pub(crate) texts: Vec<String>,
        pub(crate) source: Option<String>,
        /// The position of each step in the episode as first observed: a gap is where `veto` cut.
        pub(crate) positions: Vec<u32>,
    }
}

impl Episode {
    pub(crate) fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether step `t + 1` really followed step `t`.
    pub(crate) fn continues(&self, t: usize) -> bool {
        t + 1 < self.len() && self.positions[t + 1] == self.positions[t] + 1
    }

    /// The same episode without the steps at the given positions.
    pub(crate) fn without(&self, dropped: &[u32], dim: usize, scalars: usize) -> Self {
        let mut kept = Self {
            id: self.id,
            source: self.source.clone(),
            ..Self::default()
        };
        for (t, position) in self.positions.iter().enumerate() {
            if dropped.contains(position) {
                continue;
            }
            kept.positions.push(*position);
            kept.steps
                .extend_from_slice(&self.steps[t * dim..(t + 1) * dim]);
            kept.drives
                .extend_from_slice(&self.drives[t * scalars..(t + 1) * scalars]);
            if let Some(text) = self.texts.get(t) {
                kept.texts.push(text.clone());
            }
        }
        kept
    }
}
