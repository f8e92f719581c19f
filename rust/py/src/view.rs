//! A store to read: a live one, or one moment of it.

use std::path::PathBuf;
use std::sync::Arc;

use numpy::{PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use sharpwave_core::{
    AssociateRequest, Channel, EpisodeRecord, Episodes, Habituation, Kernel, Kind, Path,
    RecallRequest, Result, ScoreRequest, Store,
};

use crate::convert::{
    borrowed, borrowed_if, bytes, config_json, counts, list, matrix, vector, vetoed,
};
use crate::detach::{Detach, to_be_worded};
use crate::errors::{to_python, with_path};
use crate::handle::Handle;
use crate::parts::{ExplanationParts, PathParts, explained, given, recalled, texts};

/// A store to read: a live one, or one moment of it.
#[pyclass(subclass, frozen, module = "sharpwave._core")]
pub struct View {
    handle: Arc<Handle>,
}

/// k, power and τ of one call, where they are not the configuration's.
type KernelNumbers = (Option<usize>, Option<u32>, Option<f32>);

fn kernel((k, power, tau): KernelNumbers) -> Kernel {
    Kernel { k, power, tau }
}

/// `(ids, uses, eta)`.
type HabituationTable<'py> = (PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, f64>, f64);

/// Memories, episodes or inserts, whether they are inserts, and steps or rows: one row a step.
type OriginColumns<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<bool>>,
    Bound<'py, PyArray1<u32>>,
);

impl View {
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            handle: Arc::new(Handle::new(store)),
        }
    }

    pub fn on(handle: Handle) -> Self {
        Self {
            handle: Arc::new(handle),
        }
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Reads a column without the GIL.
    fn read<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&Store) -> T + Send) -> PyResult<T> {
        py.without_gil(|| self.handle.read(|store| Ok(work(store))))
    }

    /// Asks the store something that takes its time, without the GIL.
    fn ask<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Store) -> Result<T> + Send,
    ) -> PyResult<T> {
        py.without_gil(|| self.handle.read(|store| Ok(work(store)?)))
    }
}

#[pymethods]
impl View {
    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.read(py, Store::len)
    }

    /// Bytes of memory held.
    fn nbytes(&self, py: Python<'_>) -> PyResult<usize> {
        self.read(py, Store::nbytes)
    }

    /// The length d of a step's embedding.
    fn dim(&self, py: Python<'_>) -> PyResult<usize> {
        self.read(py, |store| store.config().dim)
    }

    /// The numbers in force, in JSON.
    fn config(&self, py: Python<'_>) -> PyResult<String> {
        config_json(&self.read(py, |store| store.config().clone())?)
    }

    /// Name, whether it is scalar, low and high of each channel.
    fn channels(&self, py: Python<'_>) -> PyResult<Vec<(String, bool, f32, f32)>> {
        self.read(py, |store| {
            let scalar = |channel: &Channel| matches!(channel.kind, Kind::Scalar);
            store
                .channels()
                .iter()
                .map(|c| (c.name.clone(), scalar(c), c.low, c.high))
                .collect()
        })
    }

    /// The fingerprint of the embedder that filled the store.
    fn embedder(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.read(py, |store| store.embedder().map(str::to_owned))
    }

    /// How many episodes were observed, and how many wait for a replay to consolidate them.
    fn episodes(&self, py: Python<'_>) -> PyResult<(u64, usize)> {
        self.read(py, |store| {
            (store.episodes_observed(), store.episodes_proposed())
        })
    }

    /// (N,) ascending.
    fn ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        Ok(vector(py, self.read(py, Store::ids)?))
    }

    /// (N, d).
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (keys, rows, dim) = self.ask(py, |store| {
            Ok((store.keys(), store.len(), store.config().dim))
        })?;
        matrix(py, keys, rows, dim)
    }

    /// The keys of some memories, (len, d).
    fn keys_of<'py>(
        &self,
        py: Python<'py>,
        ids: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let ids = borrowed("ids", &ids)?;
        let (keys, dim) = self.ask(py, |store| Ok((store.keys_of(ids)?, store.config().dim)))?;
        matrix(py, keys, ids.len(), dim)
    }

    /// (N,) another number whenever a key is another.
    fn key_stamps<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<u64>>> {
        Ok(vector(py, self.read(py, Store::key_stamps)?))
    }

    /// (Q,) the memory that holds each channel's key, -1 for a scalar channel.
    fn terminals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let memory = |channel: &Channel| match channel.kind {
            Kind::Terminal { memory } => memory,
            Kind::Scalar => -1,
        };
        let terminals = self.read(py, |store| store.channels().iter().map(memory).collect())?;
        Ok(vector(py, terminals))
    }

    /// `e_lo` and `e_hi` in force.
    fn edge_cosines(&self, py: Python<'_>) -> PyResult<(f64, f64)> {
        self.read(py, Store::edge_cosines)
    }

    /// (N, Q).
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        self.table(py, Store::values, |store| store.channels().len())
    }

    /// (N, Q).
    fn drives<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        self.table(py, Store::drives, |store| store.channels().len())
    }

    /// (Q,).
    fn baseline<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        Ok(vector(py, self.read(py, Store::baseline)?))
    }

    /// (N,) steps merged.
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let counts = self.read(py, Store::counts)?;
        Ok(vector(py, counts.into_iter().map(|m| m as i64).collect()))
    }

    /// (N,) association mass.
    fn mass<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f64>>> {
        Ok(vector(py, self.read(py, Store::mass)?))
    }

    /// (N,).
    fn is_terminal<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<bool>>> {
        Ok(vector(py, self.read(py, Store::is_terminal)?))
    }

    /// One a memory.
    fn texts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let texts = self.read(py, Store::texts)?;
        list(py, texts.into_iter().map(given))
    }

    /// Source ids, target ids and weights P.
    fn edges<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(
        Bound<'py, PyArray1<i64>>,
        Bound<'py, PyArray1<i64>>,
        Bound<'py, PyArray1<f64>>,
    )> {
        let (sources, targets, weights) = self.read(py, Store::edges)?;
        Ok((
            vector(py, sources),
            vector(py, targets),
            vector(py, weights),
        ))
    }

    /// Of the whole state.
    fn digest(&self, py: Python<'_>) -> PyResult<String> {
        self.ask(py, Store::checked_digest)
    }

    /// A snapshot.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        bytes(py, &self.ask(py, Store::to_bytes)?)
    }

    /// A snapshot, written beside and renamed.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let outcome =
            py.without_gil(|| self.handle.read(|store| to_be_worded(store.save(&path))))?;
        outcome.map_err(|error| with_path(error, &path))
    }

    /// Id, place among the observed, source and steps of every episode.
    fn episode_records<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let records = self.read(py, Store::episodes)?.into_iter();
        list(
            py,
            records.map(|r: EpisodeRecord| (r.id, r.order, r.source, r.steps)),
        )
    }

    /// Of every step that went into a memory, or into all: the memory, the episode or insert, whether it is an insert, and
    /// the step or row.
    fn origins<'py>(&self, py: Python<'py>, memory: Option<i64>) -> PyResult<OriginColumns<'py>> {
        let origins = self.ask(py, |store| match memory {
            Some(id) => store.origins_of(id),
            None => Ok(store.origins()),
        })?;
        Ok((
            vector(py, origins.iter().map(|o| o.memory).collect()),
            vector(py, origins.iter().map(|o| o.number).collect()),
            vector(py, origins.iter().map(|o| o.inserted).collect()),
            vector(py, origins.iter().map(|o| o.step).collect()),
        ))
    }

    /// What a veto would leave.
    fn without(
        &self,
        py: Python<'_>,
        memory: Option<i64>,
        episodes: Option<PyReadonlyArray1<'_, i64>>,
    ) -> PyResult<Self> {
        let what = vetoed(memory, episodes.as_ref())?;
        let rest = self.ask(py, |store| store.without(&what))?;
        Ok(Self::new(Arc::new(rest)))
    }

    /// This moment.
    fn frozen(&self, py: Python<'_>) -> PyResult<Self> {
        Ok(Self::new(py.without_gil(|| self.handle.freeze())?))
    }

    /// This moment with something knocked out.
    fn ablated(
        &self,
        py: Python<'_>,
        values: Option<PyReadonlyArray2<'_, f32>>,
        baseline: Option<PyReadonlyArray1<'_, f32>>,
        constant_transitions: bool,
        fade: Option<f64>,
    ) -> PyResult<Self> {
        let values = borrowed_if("values", values.as_ref())?;
        let baseline = borrowed_if("baseline", baseline.as_ref())?;
        let ablated = self.ask(py, |store| {
            let ablated = store.ablated(values, baseline, constant_transitions, fade)?;
            Ok(ablated.into_store())
        })?;
        Ok(Self::new(Arc::new(ablated)))
    }

    /// Ids and cosines, (B, k).
    fn search<'py>(
        &self,
        py: Python<'py>,
        queries: PyReadonlyArray2<'py, f32>,
        k: usize,
        nprobe: Option<usize>,
        num_threads: Option<usize>,
    ) -> PyResult<(Bound<'py, PyArray2<i64>>, Bound<'py, PyArray2<f32>>)> {
        let rows = queries.shape()[0];
        let queries = borrowed("queries", &queries)?;
        let (ids, cosines, _) = self.ask(py, |store| {
            store.search_reported(queries, k, nprobe, num_threads)
        })?;
        Ok((matrix(py, ids, rows, k)?, matrix(py, cosines, rows, k)?))
    }

    /// How many blocks the memories are divided into.
    fn blocks(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        self.ask(py, |store| Ok(store.blocks()))
    }

    /// The numbers of `sharpwave.SearchReport` by name.
    fn search_report<'py>(
        &self,
        py: Python<'py>,
        queries: PyReadonlyArray2<'py, f32>,
        k: usize,
        nprobe: Option<usize>,
        num_threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let queries = borrowed("queries", &queries)?;
        let ((_, _, report), recall) = self.ask(py, |store| {
            let found = store.search_reported(queries, k, nprobe, num_threads)?;
            let recall = match nprobe {
                Some(nprobe) => store.recall_at(queries, k, nprobe, num_threads)?,
                None => 1.0,
            };
            Ok((found, recall))
        })?;
        let numbers = PyDict::new(py);
        numbers.set_item("kernel", report.kernel)?;
        numbers.set_item("blocks", report.blocks)?;
        numbers.set_item("int8", report.int8)?;
        numbers.set_item("bf16", report.bf16)?;
        numbers.set_item("f32", report.f32)?;
        numbers.set_item("plain", report.plain)?;
        numbers.set_item("probed", report.probed)?;
        numbers.set_item("compared", report.compared)?;
        numbers.set_item("recall", recall)?;
        Ok(numbers)
    }

    /// Φ (B, Q) and σ (B,).
    fn value<'py>(
        &self,
        py: Python<'py>,
        queries: PyReadonlyArray2<'py, f32>,
        kernel: KernelNumbers,
        num_threads: Option<usize>,
    ) -> PyResult<(Bound<'py, PyArray2<f32>>, Bound<'py, PyArray1<f32>>)> {
        let rows = queries.shape()[0];
        let queries = borrowed("queries", &queries)?;
        let kernel = self::kernel(kernel);
        let ((values, support), channels) = self.ask(py, |store| {
            let found = store.value(queries, &kernel, num_threads)?;
            Ok((found, store.channels().len()))
        })?;
        Ok((matrix(py, values, rows, channels)?, vector(py, support)))
    }

    /// The arrays of `sharpwave.Scores` by name.
    fn score<'py>(
        &self,
        py: Python<'py>,
        steps: PyReadonlyArray2<'py, f32>,
        offsets: PyReadonlyArray1<'py, i64>,
        weights: Option<PyReadonlyArray1<'py, f64>>,
        functional: &str,
        discount: f64,
        context: PyReadonlyArray1<'py, i64>,
        habituation: Option<HabituationTable<'py>>,
        details: bool,
        num_threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let rows = steps.shape()[0];
        let habituation = table(habituation.as_ref())?;
        let context = counts(&context)?;
        let episodes = Episodes {
            steps: borrowed("steps", &steps)?,
            offsets: borrowed("offsets", &offsets)?,
        };
        let request = ScoreRequest {
            weights: borrowed_if("weights", weights.as_ref())?,
            functional,
            context: &context,
            habituation: habituation.as_ref(),
            discount,
            details,
            threads: num_threads,
        };
        let (scores, k) = self.ask(py, |store| {
            Ok((store.score(&episodes, &request)?, store.config().k))
        })?;
        let arrays = PyDict::new(py);
        arrays.set_item("total", vector(py, scores.total))?;
        arrays.set_item("step", vector(py, scores.step))?;
        arrays.set_item("support", vector(py, scores.support))?;
        arrays.set_item("edge", vector(py, scores.edge))?;
        arrays.set_item("redundancy", vector(py, scores.redundancy))?;
        if details {
            arrays.set_item("ids", matrix(py, scores.ids, rows, k)?)?;
            arrays.set_item("phi", matrix(py, scores.phi, rows, k)?)?;
            arrays.set_item("similarity", matrix(py, scores.similarity, rows, k)?)?;
        }
        Ok(arrays)
    }

    /// Pay, support, edge, redundancy, memories, pay by channel and associations of every step.
    fn explain<'py>(
        &self,
        py: Python<'py>,
        steps: PyReadonlyArray2<'py, f32>,
        offsets: PyReadonlyArray1<'py, i64>,
        weights: Option<PyReadonlyArray1<'py, f64>>,
        functional: &str,
        discount: f64,
        context: PyReadonlyArray1<'py, i64>,
        habituation: Option<HabituationTable<'py>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let habituation = table(habituation.as_ref())?;
        let context = counts(&context)?;
        let episodes = Episodes {
            steps: borrowed("steps", &steps)?,
            offsets: borrowed("offsets", &offsets)?,
        };
        let request = ScoreRequest {
            weights: borrowed_if("weights", weights.as_ref())?,
            functional,
            context: &context,
            habituation: habituation.as_ref(),
            discount,
            details: false,
            threads: None,
        };
        let explanations: Vec<ExplanationParts> = self.ask(py, |store| {
            let explanations = store.explain(&episodes, &request)?;
            Ok(explanations
                .into_iter()
                .map(|e| explained(e, store))
                .collect())
        })?;
        list(py, explanations.into_iter())
    }

    /// Ids, score, values and texts of every path of every query.
    fn recall<'py>(
        &self,
        py: Python<'py>,
        queries: PyReadonlyArray2<'py, f32>,
        depth: usize,
        beams: usize,
        weights: Option<PyReadonlyArray1<'py, f64>>,
        cleanup: usize,
        distinct: bool,
        kernel: KernelNumbers,
        num_threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        let queries = borrowed("queries", &queries)?;
        let request = RecallRequest {
            depth,
            beams,
            weights: borrowed_if("weights", weights.as_ref())?,
            cleanup,
            distinct,
            kernel: self::kernel(kernel),
            threads: num_threads,
        };
        let found = self.ask(py, |store| {
            let said = |path: Path| (texts(&path, store), path);
            let found = store.recall(queries, &request)?.into_iter();
            Ok(found
                .map(|paths| paths.into_iter().map(said).collect::<Vec<_>>())
                .collect::<Vec<_>>())
        })?;
        let parts = |(texts, path)| recalled(py, path, texts);
        let paths = |paths: Vec<_>| paths.into_iter().map(parts).collect::<Vec<PathParts<'_>>>();
        list(py, found.into_iter().map(paths))
    }

    /// Ids and activations, (B, k).
    fn associate<'py>(
        &self,
        py: Python<'py>,
        queries: PyReadonlyArray2<'py, f32>,
        steps: usize,
        damping: f64,
        k: usize,
        kernel: KernelNumbers,
        among: Option<PyReadonlyArray1<'py, i64>>,
        num_threads: Option<usize>,
    ) -> PyResult<(Bound<'py, PyArray2<i64>>, Bound<'py, PyArray2<f64>>)> {
        let rows = queries.shape()[0];
        let queries = borrowed("queries", &queries)?;
        let request = AssociateRequest {
            steps,
            damping,
            k,
            kernel: self::kernel(kernel),
            among: borrowed_if("among", among.as_ref())?,
            threads: num_threads,
        };
        let (ids, activations) = self.ask(py, |store| store.associate(queries, &request))?;
        Ok((matrix(py, ids, rows, k)?, matrix(py, activations, rows, k)?))
    }
}

impl View {
    fn table<'py>(
        &self,
        py: Python<'py>,
        numbers: impl FnOnce(&Store) -> Vec<f32> + Send,
        columns: impl FnOnce(&Store) -> usize + Send,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (numbers, rows, columns) =
            self.read(py, |store| (numbers(store), store.len(), columns(store)))?;
        matrix(py, numbers, rows, columns)
    }
}

fn table(habituation: Option<&HabituationTable<'_>>) -> PyResult<Option<Habituation>> {
    let Some((ids, uses, eta)) = habituation else {
        return Ok(None);
    };
    let (ids, uses) = (borrowed("ids", ids)?, borrowed("uses", uses)?);
    let uses = ids.iter().copied().zip(uses.iter().copied()).collect();
    Habituation::new(uses, *eta).map(Some).map_err(to_python)
}
