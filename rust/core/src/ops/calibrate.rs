//! Calibration: what counts as near, as redundant and as an end, measured on base text.

use crate::base::cancel;
use crate::config::Config;
use crate::error::Result;
use crate::linalg;
use crate::memory::episodes::Batch;

/// Most steps the sample keeps.
const SAMPLE: usize = 1024;

/// What [`crate::Store::calibrate`] set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// τ: the 0.90 quantile of the cosine between pairs of the sample.
    pub tau: f32,
    /// Where redundancy begins: the 0.90 quantile of each step's highest cosine to an earlier one.
    pub d_lo: f64,
    /// Where redundancy is full: the maximum of the same.
    pub d_hi: f64,
    /// Steps kept as the sample.
    pub sample: usize,
}

/// Up to [`SAMPLE`] steps of a batch, evenly strided.
pub(crate) fn sample(batch: &Batch, dim: usize) -> Vec<f32> {
    let n = batch.len();
    if n <= SAMPLE {
        return batch.rows().to_vec();
    }
    let mut kept = Vec::with_capacity(SAMPLE * dim);
    for i in 0..SAMPLE {
        kept.extend_from_slice(batch.step(i * n / SAMPLE));
    }
    kept
}

/// Sets τ and, where episodes of several steps were given, the redundancy range.
pub(crate) fn calibrate(config: &mut Config, batch: &Batch, sample: &[f32]) -> Result<Calibration> {
    let rows: Vec<&[f32]> = sample.chunks_exact(config.dim).collect();
    let mut pairs = Vec::with_capacity(rows.len() * rows.len().saturating_sub(1) / 2);
    for (i, a) in rows.iter().enumerate() {
        cancel::check()?;
        pairs.extend(rows[i + 1..].iter().map(|b| linalg::dot(a, b)));
    }
    if !pairs.is_empty() {
        // τ stays below 1, or nothing could ever answer.
        config.tau = (quantile(&mut pairs, 0.90) as f32).clamp(-1.0, 0.99);
    }
    let mut nearest = Vec::new();
    for e in 0..batch.episodes() {
        let range = batch.range(e);
        for t in range.clone().skip(1) {
            cancel::check()?;
            let highest = (range.start..t)
                .map(|u| linalg::dot(batch.step(u), batch.step(t)))
                .fold(f32::NEG_INFINITY, f32::max);
            nearest.push(highest);
        }
    }
    if !nearest.is_empty() {
        let (lo, hi) = (quantile(&mut nearest, 0.90), quantile(&mut nearest, 1.0));
        if hi > lo + 1e-3 {
            config.d_lo = lo;
            config.d_hi = hi;
        }
    }
    Ok(Calibration {
        tau: config.tau,
        d_lo: config.d_lo,
        d_hi: config.d_hi,
        sample: rows.len(),
    })
}

/// The range of a terminal: median and maximum of its cosine to the sample, or 0 and 1.
pub(crate) fn terminal_range(sample: &[f32], key: &[f32]) -> (f32, f32) {
    let mut cosines: Vec<f32> = sample
        .chunks_exact(key.len())
        .map(|step| linalg::dot(step, key))
        .collect();
    if cosines.is_empty() {
        return (0.0, 1.0);
    }
    let low = quantile(&mut cosines, 0.5) as f32;
    let high = quantile(&mut cosines, 1.0) as f32;
    if low < high { (low, high) } else { (0.0, 1.0) }
}

/// The quantile by linear interpolation between order statistics (Hyndman & Fan 1996, type 7).
fn quantile(values: &mut [f32], q: f64) -> f64 {
    values.sort_unstable_by(f32::total_cmp);
    let at = q * (values.len() - 1) as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(values.len() - 1);
    let (a, b) = (f64::from(values[below]), f64::from(values[above]));
    a + (b - a) * (at - below as f64)
}
