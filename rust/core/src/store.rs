//! The store: a deterministic state machine over episodes. The verbs live here and in `observe`,
//! `history` and `persist`; what they compute lives in the modules below them.

use std::collections::HashMap;

use crate::activation::{Activation, activate};
use crate::calibrate::{self, Calibration};
use crate::channel::{Channel, Channels, Kind};
use crate::config::{Config, Equation};
use crate::episodes::{Batch, Episode, Episodes, normalised_rows};
use crate::error::{Error, Result};
use crate::graph::{Graph, hebbian};
use crate::history::{Entry, Operation};
use crate::memory::{Birth, Memories, Provenance, Slot};
use crate::observe::ObserveReport;
use crate::parallel;
use crate::predict::{EdgeRange, EdgeStatistics};
use crate::recall::{self, Path};
use crate::replay::backup::{Model, Values};
use crate::replay::sleep::{self, Interrupt};
use crate::replay::{ReplayReport, ReplayRequest};
use crate::score::{self, Explanation, ScoreRequest, Scores};
use crate::search;

/// A value memory.
///
/// See the crate's first page for a tour.
#[derive(Clone)]
pub struct Store {
    /// The configuration in force: as given, with what calibration measured.
    pub(crate) config: Config,
    pub(crate) given: Config,
    pub(crate) embedder: Option<String>,
    pub(crate) channels: Channels,
    pub(crate) memories: Memories,
    pub(crate) graph: Graph,
    pub(crate) values: Values,
    pub(crate) edges: EdgeStatistics,
    /// `(n, d)`: the calibration sample.
    pub(crate) sample: Vec<f32>,
    /// Observed episodes.
    pub(crate) clock: u64,
    /// The ids of the observed episodes, in order, and their places in that order.
    pub(crate) episode_ids: Vec<i64>,
    pub(crate) ordinals: HashMap<i64, u64>,
    pub(crate) inserts: u64,
    pub(crate) next_memory: i64,
    pub(crate) next_episode: i64,
    pub(crate) proposals: Vec<Episode>,
    pub(crate) history: Option<Vec<Entry>>,
}

impl Store {
    /// An empty store.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the first bad number of the configuration.
    pub fn new(config: Config) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            given: config.clone(),
            embedder: None,
            channels: Channels::default(),
            memories: Memories::new(config.dim),
            graph: Graph::default(),
            values: Values::default(),
            edges: EdgeStatistics::default(),
            sample: Vec::new(),
            clock: 0,
            episode_ids: Vec::new(),
            ordinals: HashMap::new(),
            inserts: 0,
            next_memory: 0,
            next_episode: 0,
            proposals: Vec::new(),
            history: config.keep_episodes.then(Vec::new),
            config,
        })
    }

    // ---- what it is ----

    /// The configuration in force, calibration included.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many memories it holds, terminals included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memories.len()
    }

    /// Whether it holds no memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The channels, in the order of every `(…, Q)` array.
    #[must_use]
    pub fn channels(&self) -> &[Channel] {
        self.channels.as_slice()
    }

    /// How many channels are scalar: the width of `drives`.
    #[must_use]
    pub fn scalar_count(&self) -> usize {
        self.channels.scalars()
    }

    /// Observed episodes.
    #[must_use]
    pub fn episodes_observed(&self) -> u64 {
        self.clock
    }

    /// Episodes put aside until a replay consolidates.
    #[must_use]
    pub fn episodes_proposed(&self) -> usize {
        self.proposals.len()
    }

    /// The fingerprint of the embedder that fills it, if one was recorded.
    #[must_use]
    pub fn embedder(&self) -> Option<&str> {
        self.embedder.as_deref()
    }

    /// Records the embedder, or checks that it is the recorded one.
    ///
    /// # Errors
    /// [`Error::Embedder`] if another one was recorded, [`Error::Invalid`] for an empty fingerprint.
    pub fn bind_embedder(&mut self, fingerprint: &str) -> Result<()> {
        if fingerprint.is_empty() {
            return Err(Error::invalid("embedder", "the fingerprint is empty"));
        }
        match &self.embedder {
            Some(recorded) if recorded != fingerprint => Err(Error::Embedder {
                recorded: recorded.clone(),
                offered: fingerprint.to_owned(),
            }),
            _ => {
                self.embedder = Some(fingerprint.to_owned());
                Ok(())
            }
        }
    }

    // ---- setting up ----

    /// Measures τ, the redundancy range and the sample on base episodes (`docs/model.md`, Activation).
    ///
    /// # Errors
    /// [`Error::State`] if the store holds a memory already, [`Error::Invalid`] for bad or no steps.
    pub fn calibrate(&mut self, episodes: &Episodes<'_>) -> Result<Calibration> {
        if !self.is_empty() {
            return Err(Error::State(
                "calibrate works on an empty store only: its numbers shape every memory".into(),
            ));
        }
        let batch = episodes.checked(self.config.dim)?;
        if batch.len() < 2 {
            return Err(Error::invalid(
                "steps",
                "calibration needs two steps or more",
            ));
        }
        self.record(|| Operation::Calibrate {
            steps: episodes.steps.to_vec(),
            offsets: episodes.offsets.to_vec(),
        });
        self.sample = calibrate::sample(&batch, self.config.dim);
        Ok(calibrate::calibrate(&mut self.config, &batch, &self.sample))
    }

    /// Adds an embedding channel and the terminal memory that holds its key. Returns its column.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad key, a taken name or an empty range.
    pub fn add_terminal(
        &mut self,
        name: &str,
        key: &[f32],
        low: Option<f32>,
        high: Option<f32>,
    ) -> Result<usize> {
        if key.len() != self.config.dim {
            return Err(Error::invalid(
                "key",
                format!("{} numbers, not {}", key.len(), self.config.dim),
            ));
        }
        let unit = normalised_rows("key", key, self.config.dim)?;
        let measured = calibrate::terminal_range(&self.sample, &unit);
        let (from, to) = (low.unwrap_or(measured.0), high.unwrap_or(measured.1));
        self.channels.check(name, from, to)?;
        self.record(|| Operation::AddTerminal {
            name: name.to_owned(),
            key: key.to_vec(),
            low,
            high,
        });
        let (id, slot) = self.create(&Birth {
            key: &unit,
            terminal: true,
            merged: 0,
            clock: self.clock,
            text: Some(name),
            provenance: None,
        });
        let drives = self.memories.drives(slot).to_vec();
        self.values.start(slot, &drives);
        Ok(self.add_column(Channel {
            name: name.to_owned(),
            kind: Kind::Terminal { memory: id },
            low: from,
            high: to,
        }))
    }

    /// Adds a scalar channel, fed by the drives of observed episodes. Returns its column.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a taken name or an empty range.
    pub fn add_channel(&mut self, name: &str, low: f32, high: f32) -> Result<usize> {
        self.channels.check(name, low, high)?;
        self.record(|| Operation::AddChannel {
            name: name.to_owned(),
            low,
            high,
        });
        for proposal in &mut self.proposals {
            let (steps, scalars) = (proposal.len(), self.channels.scalars());
            if scalars == 0 {
                proposal.drives = vec![f32::NAN; steps];
            } else {
                crate::memory::widen(&mut proposal.drives, scalars, f32::NAN);
            }
        }
        Ok(self.add_column(Channel {
            name: name.to_owned(),
            kind: Kind::Scalar,
            low,
            high,
        }))
    }

    fn add_column(&mut self, channel: Channel) -> usize {
        let q = self.channels.push(channel);
        self.memories.add_column(&self.channels);
        self.values.add_column(&self.memories, &self.graph);
        q
    }

    /// Removes a channel and, if it has one, its terminal.
    ///
    /// # Errors
    /// [`Error::Unknown`] if there is no such channel.
    pub fn remove_channel(&mut self, name: &str) -> Result<()> {
        let q = self.channels.position(name)?;
        self.record(|| Operation::RemoveChannel {
            name: name.to_owned(),
        });
        let scalar = self.channels.scalar_column(q);
        if let Some(scalar) = scalar {
            let scalars = self.channels.scalars();
            for proposal in &mut self.proposals {
                crate::memory::narrow(&mut proposal.drives, scalars, scalar);
            }
        }
        let channel = self.channels.remove(q);
        self.memories.remove_column(q, scalar);
        self.values.remove_column(q);
        if let Kind::Terminal { memory } = channel.kind {
            let slot = self.memories.held(memory);
            self.forget(slot);
        }
        Ok(())
    }

    // ---- writing (observe is in observe.rs, veto in history.rs) ----

    /// Appends memories as they are: no gate, no merging, no associations. Returns their ids.
    ///
    /// # Errors
    /// [`Error::Invalid`] for bad keys, drives or texts, or if the capacity would be exceeded.
    pub fn insert(
        &mut self,
        keys: &[f32],
        drives: Option<&[f32]>,
        texts: Option<&[String]>,
    ) -> Result<Vec<i64>> {
        let n = keys.len() / self.config.dim;
        let scalars = self.scalar_count();
        let drives = drives.map_or_else(|| vec![f32::NAN; n * scalars], <[f32]>::to_vec);
        if drives.len() != n * scalars {
            return Err(Error::invalid(
                "drives",
                format!(
                    "{} numbers are not {n} rows of {scalars} scalar channels",
                    drives.len()
                ),
            ));
        }
        self.check_drives(&drives)?;
        let texts = texts.map_or_else(Vec::new, <[String]>::to_vec);
        if !texts.is_empty() && texts.len() != n {
            return Err(Error::invalid(
                "texts",
                format!("{} texts for {n} keys", texts.len()),
            ));
        }
        if let Some(capacity) = self.config.capacity
            && self.len() + n > capacity
        {
            return Err(Error::invalid(
                "keys",
                format!("{n} more memories would exceed the capacity of {capacity}"),
            ));
        }
        self.insert_rows(keys.to_vec(), drives, texts, (0..n as u32).collect())
    }

    /// [`Store::insert`] once drives and texts are checked; `rows` are the rows' original places.
    pub(crate) fn insert_rows(
        &mut self,
        keys: Vec<f32>,
        drives: Vec<f32>,
        texts: Vec<String>,
        rows: Vec<u32>,
    ) -> Result<Vec<i64>> {
        let units = normalised_rows("keys", &keys, self.config.dim)?;
        let scalars = self.scalar_count();
        let first = self.next_memory;
        for (at, key) in units.chunks_exact(self.config.dim).enumerate() {
            let (_, slot) = self.create(&Birth {
                key,
                terminal: false,
                merged: 1,
                clock: self.clock,
                text: texts.get(at).map(String::as_str),
                provenance: Some(Provenance {
                    origin: -1 - self.inserts as i64,
                    step: rows[at],
                }),
            });
            for scalar in 0..scalars {
                let drive = drives[at * scalars + scalar];
                if !drive.is_nan() {
                    self.memories.observe_drive(slot, scalar, drive);
                }
            }
            self.memories.refresh_drives(slot, &self.channels);
            let drives = self.memories.drives(slot).to_vec();
            self.values.start(slot, &drives);
        }
        let ids = (first..self.next_memory).collect();
        self.inserts += 1;
        if let Some(history) = &mut self.history {
            history.push(Entry {
                next_memory: first,
                operation: Operation::Insert {
                    keys,
                    drives,
                    texts,
                    rows,
                },
            });
        }
        Ok(ids)
    }

    /// Sleeps: replays over the whole graph, after writing the proposed episodes if asked to.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad request, [`Error::Unknown`] for an unknown start memory.
    pub fn replay(
        &mut self,
        request: &ReplayRequest,
        interrupt: Interrupt<'_>,
    ) -> Result<ReplayReport> {
        request.validate()?;
        request.need.of_slots(self.model())?;
        let at = self.history.as_ref().map(Vec::len);
        self.record(|| Operation::replay(request, None));
        let mut report = self.consolidate(request, interrupt)?;
        // The operations of the consolidation are part of the one recorded above.
        if let (Some(history), Some(at)) = (&mut self.history, at) {
            history.truncate(at + 1);
            if report.interrupted {
                history[at].operation = Operation::replay(request, Some(report.backups));
            }
        }
        report.drift = report.drift.filter(|_| request.consolidate);
        Ok(report)
    }

    fn consolidate(
        &mut self,
        request: &ReplayRequest,
        interrupt: Interrupt<'_>,
    ) -> Result<ReplayReport> {
        if !request.consolidate || self.proposals.is_empty() {
            return self.sleep(request, interrupt);
        }
        let probe = self.drift_probe();
        let before = self.mean_values(&probe)?;
        let mut after = self.clone();
        let mut observed = 0;
        for episode in std::mem::take(&mut after.proposals) {
            after.observe_episode(&episode, &mut ObserveReport::default())?;
            observed += 1;
        }
        let mut report = after.sleep(request, interrupt)?;
        let moved = after.mean_values(&probe)?;
        let n = before.len().max(1) as f64;
        let drift = before
            .iter()
            .zip(&moved)
            .fold(0.0, |sum, (a, b)| sum + (a - b).abs())
            / n;
        if request.max_drift.is_some_and(|most| drift > most) {
            report = self.sleep(request, interrupt)?;
            report.refused = true;
        } else {
            *self = after;
            report.observed = observed;
        }
        report.drift = Some(drift);
        Ok(report)
    }

    fn sleep(&mut self, request: &ReplayRequest, interrupt: Interrupt<'_>) -> Result<ReplayReport> {
        let model = Model {
            config: &self.config,
            memories: &self.memories,
            graph: &self.graph,
        };
        sleep::sleep(&mut self.values, model, request, interrupt)
    }

    /// The steps on which drift is measured: the calibration sample, or the oldest memories.
    fn drift_probe(&self) -> Vec<f32> {
        if !self.sample.is_empty() {
            return self.sample.clone();
        }
        self.memories
            .ordinary()
            .take(1024)
            .flat_map(|slot| self.memories.key(slot).iter().copied())
            .collect()
    }

    fn mean_values(&self, probe: &[f32]) -> Result<Vec<f64>> {
        let activations = self.activate_rows(probe, None)?;
        Ok(activations.iter().flat_map(|a| self.phi(a)).collect())
    }

    pub(crate) fn check_drives(&self, drives: &[f32]) -> Result<()> {
        let scalars = self.scalar_count().max(1);
        let stopping = self.config.equation == Equation::Stopping;
        for (at, &drive) in drives.iter().enumerate() {
            let (row, column) = (at / scalars, at % scalars);
            if drive.is_infinite() {
                return Err(Error::invalid(
                    "drives",
                    format!("row {row}, column {column} is infinite"),
                ));
            }
            if stopping && drive < 0.0 {
                return Err(Error::invalid(
                    "drives",
                    format!(
                        "row {row}, column {column} is {drive}: the stopping equation needs drives ≥ 0"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Gives a memory its id, its slot and its room everywhere.
    pub(crate) fn create(&mut self, birth: &Birth<'_>) -> (i64, Slot) {
        let id = self.next_memory;
        self.next_memory += 1;
        let slot = self.memories.add(id, birth, &self.channels);
        self.graph.ensure(slot);
        (id, slot)
    }

    /// Removes a memory with its row and column; what led to it is dirty then.
    pub(crate) fn forget(&mut self, slot: Slot) {
        for predecessor in hebbian::forget(&mut self.graph, slot) {
            self.values.mark(predecessor);
        }
        self.memories.remove(slot);
    }

    // ---- reading ----

    pub(crate) fn memories(&self) -> &Memories {
        &self.memories
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(crate) fn values_of(&self) -> &Values {
        &self.values
    }

    pub(crate) fn model(&self) -> Model<'_> {
        Model {
            config: &self.config,
            memories: &self.memories,
            graph: &self.graph,
        }
    }

    pub(crate) fn edge_range(&self) -> EdgeRange {
        self.edges.range(&self.config)
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
        let dim = self.config.dim;
        parallel::map(rows.len() / dim, threads, |t| {
            let x = &rows[t * dim..(t + 1) * dim];
            activate(
                &search::nearest(&self.memories, x, self.config.k),
                &self.config,
            )
        })
    }

    pub(crate) fn activate_batch(
        &self,
        batch: &Batch,
        threads: Option<usize>,
    ) -> Result<Vec<Activation>> {
        self.activate_rows(batch.rows(), threads)
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
    /// [`Error::Invalid`] for bad queries, `k` or `threads`.
    pub fn search(
        &self,
        queries: &[f32],
        k: usize,
        threads: Option<usize>,
    ) -> Result<(Vec<i64>, Vec<f32>)> {
        if !(1..=1 << 20).contains(&k) {
            return Err(Error::invalid(
                "k",
                format!("{k} is not in [1, {}]", 1 << 20),
            ));
        }
        let dim = self.config.dim;
        let queries = normalised_rows("queries", queries, dim)?;
        let found = parallel::map(queries.len() / dim, threads, |row| {
            search::nearest(&self.memories, &queries[row * dim..(row + 1) * dim], k)
        })?;
        let mut ids = Vec::with_capacity(found.len() * k);
        let mut similarities = Vec::with_capacity(found.len() * k);
        for hits in found {
            let padding = k - hits.len();
            ids.extend(hits.iter().map(|hit| hit.id));
            ids.extend(std::iter::repeat_n(-1, padding));
            similarities.extend(hits.iter().map(|hit| hit.similarity));
            similarities.extend(std::iter::repeat_n(f32::NEG_INFINITY, padding));
        }
        Ok((ids, similarities))
    }

    /// `Φ` `(B, Q)` and `σ` `(B,)` of each query.
    ///
    /// # Errors
    /// [`Error::Invalid`] for bad queries or `threads`.
    pub fn value(&self, queries: &[f32], threads: Option<usize>) -> Result<(Vec<f32>, Vec<f32>)> {
        let queries = normalised_rows("queries", queries, self.config.dim)?;
        let activations = self.activate_rows(&queries, threads)?;
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
    /// [`Error::Invalid`] naming the argument.
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

    /// Iterative retrieval: up to `beams` paths of up to `depth` memories from what answers to `query`
    /// along associations toward value.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the argument.
    pub fn recall(
        &self,
        query: &[f32],
        depth: usize,
        beams: usize,
        weights: Option<&[f64]>,
    ) -> Result<Vec<Path>> {
        if query.len() != self.config.dim {
            return Err(Error::invalid(
                "query",
                format!("{} numbers, not {}", query.len(), self.config.dim),
            ));
        }
        let query = normalised_rows("query", query, self.config.dim)?;
        recall::recall(self, &query, depth, beams, weights)
    }

    // ---- columns, by rising id ----

    fn column<T>(&self, of: impl Fn(Slot) -> T) -> Vec<T> {
        self.memories
            .in_order()
            .iter()
            .map(|&slot| of(slot))
            .collect()
    }

    /// `(N,)`.
    #[must_use]
    pub fn ids(&self) -> Vec<i64> {
        self.column(|slot| self.memories.id(slot))
    }

    /// `(N, d)`.
    #[must_use]
    pub fn keys(&self) -> Vec<f32> {
        self.memories
            .in_order()
            .iter()
            .flat_map(|&slot| self.memories.key(slot))
            .copied()
            .collect()
    }

    /// `v`, `(N, Q)`.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        self.memories
            .in_order()
            .iter()
            .flat_map(|&slot| self.values.of(slot))
            .copied()
            .collect()
    }

    /// `r`, `(N, Q)`.
    #[must_use]
    pub fn drives(&self) -> Vec<f32> {
        self.memories
            .in_order()
            .iter()
            .flat_map(|&slot| self.memories.drives(slot))
            .copied()
            .collect()
    }

    /// `m_i`, `(N,)`.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        self.column(|slot| self.memories.merged[slot as usize])
    }

    /// `n_i`, `(N,)`.
    #[must_use]
    pub fn mass(&self) -> Vec<f64> {
        self.column(|slot| self.graph.mass(slot))
    }

    /// `(N,)`.
    #[must_use]
    pub fn is_terminal(&self) -> Vec<bool> {
        self.column(|slot| self.memories.terminal[slot as usize])
    }

    /// `(N,)`: the text of the step that made each memory, where there was one.
    #[must_use]
    pub fn texts(&self) -> Vec<Option<String>> {
        self.column(|slot| {
            self.memories.texts[slot as usize]
                .as_deref()
                .map(str::to_owned)
        })
    }

    /// `b`, `(Q,)`: what the ordinary memory is worth.
    #[must_use]
    pub fn baseline(&self) -> Vec<f32> {
        self.values.baseline.clone()
    }

    /// The associations as `(source id, target id, P)`, by rising source, then target.
    #[must_use]
    pub fn edges(&self) -> (Vec<i64>, Vec<i64>, Vec<f64>) {
        let mut sources = Vec::new();
        let mut targets = Vec::new();
        let mut weights = Vec::new();
        for &slot in self.memories.in_order() {
            for (successor, p) in self.graph.successors(slot) {
                sources.push(self.memories.id(slot));
                targets.push(self.memories.id(successor));
                weights.push(p);
            }
        }
        (sources, targets, weights)
    }

    /// The text of a memory.
    #[must_use]
    pub fn text(&self, id: i64) -> Option<&str> {
        let slot = self.memories.slot(id)?;
        self.memories.texts[slot as usize].as_deref()
    }

    // ---- views ----

    /// A read-only copy of this moment, without the archive.
    #[must_use]
    pub fn frozen(&self) -> Frozen {
        Frozen(self.clone_without_history())
    }

    fn clone_without_history(&self) -> Self {
        Self {
            config: self.config.clone(),
            given: self.given.clone(),
            embedder: self.embedder.clone(),
            channels: self.channels.clone(),
            memories: self.memories.clone(),
            graph: self.graph.clone(),
            values: self.values.clone(),
            edges: self.edges.clone(),
            sample: self.sample.clone(),
            clock: self.clock,
            episode_ids: self.episode_ids.clone(),
            ordinals: self.ordinals.clone(),
            inserts: self.inserts,
            next_memory: self.next_memory,
            next_episode: self.next_episode,
            proposals: Vec::new(),
            history: None,
        }
    }
}

/// A store at one moment, which nothing can change any more.
#[derive(Clone)]
pub struct Frozen(Store);

impl std::ops::Deref for Frozen {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.0
    }
}

impl Frozen {
    /// The same view with some of its parts replaced: `values` `(N, Q)` by rising id, `baseline`
    /// `(Q,)`, or every row of P by one and the same. For ablations.
    ///
    /// # Errors
    /// [`Error::Invalid`] if an array does not fit or is not finite.
    pub fn ablated(
        &self,
        values: Option<&[f32]>,
        baseline: Option<&[f32]>,
        constant_transitions: bool,
    ) -> Result<Self> {
        let mut ablated = self.clone();
        let store = &mut ablated.0;
        let channels = store.channels.len();
        for (name, given, expected) in [
            ("values", values, store.len() * channels),
            ("baseline", baseline, channels),
        ] {
            let Some(given) = given else { continue };
            if given.len() != expected {
                return Err(Error::invalid(
                    name,
                    format!("{} numbers, not {expected}", given.len()),
                ));
            }
            if given.iter().any(|x| !x.is_finite()) {
                return Err(Error::invalid(name, "not all numbers are finite"));
            }
        }
        if let Some(values) = values {
            store.values.replace(&store.memories, values);
        }
        if let Some(baseline) = baseline {
            store.values.baseline = baseline.to_vec();
        }
        if constant_transitions {
            store.graph = store
                .graph
                .with_constant_rows(&store.memories, store.config.max_out);
        }
        Ok(ablated)
    }
}
