//! Reading: search, value, score, explain, recall, associate. Nothing here changes state.

use crate::base::{Slot, afford};
use crate::error::{Result, in_range};
use crate::graph::EdgeRange;
use crate::index;
use crate::index::{Activation, Kernel, SearchReport, activate, pad};
use crate::memory::{Episodes, normalised_rows};
use crate::query::recall::{Path, RecallRequest};
use crate::query::score::{Explanation, ScoreRequest, Scores};
use crate::query::spread::AssociateRequest;
use crate::query::{recall, score, spread};
use crate::store::Store;

impl Store {
    pub(crate) fn edge_range(&self) -> EdgeRange {
        self.edge_statistics.range(&self.config)
    }

    /// `(e_lo, e_hi)` in force.
    #[must_use]
    pub fn edge_cosines(&self) -> (f64, f64) {
        let range = self.edge_range();
        (range.lo, range.hi)
    }

    pub(crate) fn activate_rows(
        &self,
        rows: &[f32],
        threads: Option<usize>,
    ) -> Result<Vec<Activation>> {
        let found = index::nearest(&self.memories, rows, self.config.k, threads)?;
        Ok(found
            .iter()
            .map(|hits| activate(hits, &self.config))
            .collect())
    }

    /// As [`Store::activate_rows`], with the numbers of one call, and only memories that are `among` answering.
    pub(crate) fn activate_among(
        &self,
        rows: &[f32],
        kernel: &Kernel,
        among: impl Fn(Slot) -> bool,
        threads: Option<usize>,
    ) -> Result<Vec<Activation>> {
        let config = kernel.on(&self.config)?;
        let mut wanted = config.k;
        loop {
            let mut found = index::nearest(&self.memories, rows, wanted, threads)?;
            for hits in &mut found {
                hits.retain(|hit| among(hit.slot));
            }
            if wanted >= self.len() || found.iter().all(|hits| hits.len() >= config.k) {
                let best = found.iter().map(|hits| &hits[..config.k.min(hits.len())]);
                return Ok(best.map(|hits| activate(hits, &config)).collect());
            }
            wanted = wanted.saturating_mul(4).min(self.len());
        }
    }

    /// `Φ_q = Σ_i φ_i v_iq`.
    pub(crate) fn phi(&self, activation: &Activation) -> Vec<f64> {
        let mut phi = vec![0.0; self.channels.len()];
        for answer in &activation.answers {
            for (phi, &v) in phi.iter_mut().zip(self.values.of(answer.slot)) {
                *phi += answer.phi * f64::from(v);
            }
        }
        phi
    }

    /// The `k` memories of largest inner product with each query: `(B, k)` ids and similarities, ties
    /// by lower id, padded with −1 and −∞.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for bad queries, `k` or `threads`.
    pub fn search(
        &self,
        queries: &[f32],
        k: usize,
        threads: Option<usize>,
    ) -> Result<(Vec<i64>, Vec<f32>)> {
        let (ids, similarities, _) = self.search_reported(queries, k, None, threads)?;
        Ok((ids, similarities))
    }

    /// The same, and which way the search went. With `nprobe` only the blocks of the partition nearest to a query
    /// are searched, so many of them: what is found is exact, but not all of it may be.
    ///
    /// # Errors
    /// As [`Store::search`], and for an `nprobe` of 0 or without a partition.
    pub fn search_reported(
        &self,
        queries: &[f32],
        k: usize,
        nprobe: Option<usize>,
        threads: Option<usize>,
    ) -> Result<(Vec<i64>, Vec<f32>, SearchReport)> {
        in_range("k", k, 1, 1 << 20)?;
        // An id, a cosine, and room to sort them.
        afford("k", (queries.len() / self.config.dim).saturating_mul(k), 24)?;
        let queries = normalised_rows("queries", queries, self.config.dim)?;
        let (found, report) = match self.probing(nprobe)? {
            Some((partition, n)) => {
                index::approximate(&self.memories, partition, &queries, k, n, threads)?
            }
            None => index::search(&self.memories, &queries, k, threads)?,
        };
        let mut ids = Vec::with_capacity(found.len() * k);
        let mut similarities = Vec::with_capacity(found.len() * k);
        for hits in found {
            pad(&mut ids, k, -1, hits.iter().map(|hit| hit.id));
            let cosines = hits.iter().map(|hit| hit.similarity);
            pad(&mut similarities, k, f32::NEG_INFINITY, cosines);
        }
        Ok((ids, similarities, report))
    }

    /// `Φ` `(B, Q)` and `σ` `(B,)` of each query.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for bad queries, `kernel` or `threads`.
    pub fn value(
        &self,
        queries: &[f32],
        kernel: &Kernel,
        threads: Option<usize>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let queries = normalised_rows("queries", queries, self.config.dim)?;
        let activations = self.activate_among(&queries, kernel, |_| true, threads)?;
        let values = activations
            .iter()
            .flat_map(|a| self.phi(a))
            .map(|phi| phi as f32)
            .collect();
        let support = activations.iter().map(|a| a.support as f32).collect();
        Ok((values, support))
    }

    /// Scores a batch of episodes. Changes nothing.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] naming the argument.
    pub fn score(&self, episodes: &Episodes<'_>, request: &ScoreRequest<'_>) -> Result<Scores> {
        score::score(self, &episodes.checked(self.config.dim)?, request)
    }

    /// Which memories, associations and channels paid for each step.
    ///
    /// # Errors
    /// As [`Store::score`].
    pub fn explain(
        &self,
        episodes: &Episodes<'_>,
        request: &ScoreRequest<'_>,
    ) -> Result<Vec<Explanation>> {
        score::explain::explain(self, &episodes.checked(self.config.dim)?, request)
    }

    /// Iterative retrieval: paths from what answers to each query along associations toward value.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] naming the argument.
    pub fn recall(&self, queries: &[f32], request: &RecallRequest<'_>) -> Result<Vec<Vec<Path>>> {
        let queries = normalised_rows("query", queries, self.config.dim)?;
        recall::recall(self, queries, request)
    }

    /// Spreading activation: the `k` memories that each query brings to mind, `(B, k)` ids and
    /// activations, padded with −1 and 0. It starts at what answers to the query, and flows `steps` times:
    /// `damping` of it along the associations, the rest back to the start.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] naming the argument, [`crate::Error::Unknown`] for an unknown memory.
    pub fn associate(
        &self,
        queries: &[f32],
        request: &AssociateRequest<'_>,
    ) -> Result<(Vec<i64>, Vec<f64>)> {
        let queries = normalised_rows("queries", queries, self.config.dim)?;
        let (found, k) = (spread::associate(self, &queries, request)?, request.k);
        let padded = found.iter().flat_map(|found| {
            let padding = std::iter::repeat_n((-1, 0.0), k - found.len());
            found.iter().copied().chain(padding)
        });
        Ok(padded.unzip())
    }
}
