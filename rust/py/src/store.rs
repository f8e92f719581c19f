//! A live store: many readers, one writer at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use numpy::{PyArray1, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use sharpwave_core as core;
use sharpwave_core::{
    Drives, Durability, Episodes, Journal, Lookahead, Need, Observation, ObserveReport, Order,
    Outcome, ReplayRequest, Stopped,
};

use crate::convert::{borrowed, borrowed_if, config, config_json, vector, vetoed};
use crate::detach::{Detach, to_be_worded};
use crate::errors::{Failure, to_python, with_path};
use crate::handle::{Handle, Writer};
use crate::view::View;

/// A live store: many readers, one writer at a time.
#[pyclass(extends = View, frozen, module = "sharpwave._core")]
pub struct Store;

impl Store {
    fn around(store: core::Store) -> PyClassInitializer<Self> {
        PyClassInitializer::from(View::new(Arc::new(store))).add_subclass(Self)
    }
}

/// Becomes the writer, without the GIL.
fn writing<T: Send>(
    store: &Bound<'_, Store>,
    work: impl FnOnce(&mut Writer<'_>) -> Result<T, Failure> + Send,
) -> PyResult<T> {
    let handle = store.as_super().get().handle();
    store.py().without_gil(|| {
        handle.writing(|writer| {
            let done = work(writer)?;
            match writer.compact(true) {
                // What was done is in the journal: the snapshot can wait.
                Err(Failure::Core(core::Error::Io(_))) => Ok(done),
                compacted => compacted.map(|()| done),
            }
        })
    })
}

/// Changes the store in one go, without the GIL.
fn write<T: Send>(
    store: &Bound<'_, Store>,
    work: impl FnOnce(&mut core::Store) -> core::Result<T> + Send,
) -> PyResult<T> {
    writing(store, |writer| writer.write(|store| Ok(work(store)?)))
}

#[pymethods]
impl Store {
    #[new]
    #[pyo3(signature = (config))]
    fn new(config: &str) -> PyResult<PyClassInitializer<Self>> {
        let config = self::config(config)?;
        Ok(Self::around(core::Store::new(config).map_err(to_python)?))
    }

    /// From a snapshot file.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, Self>> {
        let outcome = py.without_gil(|| to_be_worded(core::Store::load(&path)))?;
        let store = outcome.map_err(|error| with_path(error, &path))?;
        Bound::new(py, Self::around(store))
    }

    /// From a directory; what was found there: operations done again, bytes cut off, and where.
    #[staticmethod]
    fn open<'py>(
        py: Python<'py>,
        directory: PathBuf,
        config: Option<&str>,
        durability: &str,
        readonly: bool,
    ) -> PyResult<(Bound<'py, Self>, (u64, u64, Option<u64>))> {
        let config = config.map(self::config).transpose()?;
        let durability = match durability {
            "process" => Durability::Process,
            "power" => Durability::Power,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "durability: {durability:?} is not one of process, power"
                )));
            }
        };
        let opened = py.without_gil(|| {
            to_be_worded(if readonly {
                Journal::read(&directory).map(|(store, found)| (store, None, found))
            } else {
                Journal::open(&directory, config.as_ref(), durability)
                    .map(|(store, journal, found)| (store, Some(journal), found))
            })
        })?;
        let (store, journal, found) = opened.map_err(|error| with_path(error, &directory))?;
        let handle = Handle::opened(store, journal);
        let store = PyClassInitializer::from(View::on(handle)).add_subclass(Self);
        Ok((
            Bound::new(py, store)?,
            (found.operations, found.cut, found.cut_at),
        ))
    }

    /// From the bytes of a snapshot.
    #[staticmethod]
    fn from_bytes<'py>(snapshot: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, Self>> {
        let (py, bytes) = (snapshot.py(), snapshot.as_bytes());
        let store = py.without_gil(|| Ok(core::Store::from_bytes(bytes)?))?;
        Bound::new(py, Self::around(store))
    }

    /// The numbers that the store was made with, in JSON.
    fn original_config(slf: &Bound<'_, Self>) -> PyResult<String> {
        let handle = slf.as_super().get().handle();
        let config = slf
            .py()
            .without_gil(|| handle.read(|store| Ok(store.given_config().clone())))?;
        config_json(&config)
    }

    /// What it set.
    fn calibrate<'py>(
        slf: &Bound<'py, Self>,
        steps: PyReadonlyArray2<'py, f32>,
        offsets: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let episodes = Episodes {
            steps: borrowed("steps", &steps)?,
            offsets: borrowed("offsets", &offsets)?,
        };
        let set = writing(slf, |writer| {
            writer.write(|store| Ok(store.calibrate(&episodes)?))
        })?;
        let report = PyDict::new(slf.py());
        report.set_item("tau", set.tau)?;
        report.set_item("d_lo", set.d_lo)?;
        report.set_item("d_hi", set.d_hi)?;
        report.set_item("sample", set.sample)?;
        Ok(report)
    }

    /// The column.
    fn add_terminal(
        slf: &Bound<'_, Self>,
        name: &str,
        key: PyReadonlyArray1<'_, f32>,
        low: Option<f32>,
        high: Option<f32>,
    ) -> PyResult<usize> {
        let key = borrowed("key", &key)?;
        write(slf, |store| store.add_terminal(name, key, low, high))
    }

    /// The column.
    fn add_channel(slf: &Bound<'_, Self>, name: &str, low: f32, high: f32) -> PyResult<usize> {
        write(slf, |store| store.add_channel(name, low, high))
    }

    /// Its column and its terminal.
    fn remove_channel(slf: &Bound<'_, Self>, name: &str) -> PyResult<()> {
        write(slf, |store| store.remove_channel(name))
    }

    /// Memory ids, outcomes (0 new, 1 merged, 2 dropped, 3 proposed), episode ids and backups.
    fn observe<'py>(
        slf: &Bound<'py, Self>,
        steps: PyReadonlyArray2<'py, f32>,
        offsets: PyReadonlyArray1<'py, i64>,
        drives: Option<PyReadonlyArray2<'py, f32>>,
        texts: Option<Vec<Option<String>>>,
        episode_ids: Option<PyReadonlyArray1<'py, i64>>,
        source: Option<&str>,
        propose: bool,
    ) -> PyResult<(
        Bound<'py, PyArray1<i64>>,
        Bound<'py, PyArray1<u8>>,
        Bound<'py, PyArray1<i64>>,
        u64,
    )> {
        let py = slf.py();
        let texts = texts.map(plain);
        let observation = Observation {
            episodes: Episodes {
                steps: borrowed("steps", &steps)?,
                offsets: borrowed("offsets", &offsets)?,
            },
            drives: borrowed_if("drives", drives.as_ref())?.map(Drives::Steps),
            texts: texts.as_deref(),
            ids: borrowed_if("episode_ids", episode_ids.as_ref())?,
            source,
            propose,
        };
        let report = writing(slf, |writer| core::observe(writer, &observation))?;
        let ObserveReport {
            memory_ids,
            outcomes,
            episode_ids,
            backups,
            ..
        } = report;
        Ok((
            vector(py, memory_ids),
            vector(py, outcomes.into_iter().map(code).collect()),
            vector(py, episode_ids),
            backups,
        ))
    }

    /// The ids.
    fn insert<'py>(
        slf: &Bound<'py, Self>,
        keys: PyReadonlyArray2<'py, f32>,
        drives: Option<PyReadonlyArray2<'py, f32>>,
        texts: Option<Vec<Option<String>>>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let texts = texts.map(plain);
        let keys = borrowed("keys", &keys)?;
        let drives = borrowed_if("drives", drives.as_ref())?;
        let ids = writing(slf, |writer| {
            writer.write(|store| Ok(store.insert(keys, drives, texts.as_deref())?))
        })?;
        Ok(vector(slf.py(), ids))
    }

    /// Divides the memories into blocks, while others read.
    fn partition(
        slf: &Bound<'_, Self>,
        blocks: Option<usize>,
        seed: u64,
        num_threads: Option<usize>,
    ) -> PyResult<()> {
        let handle = slf.as_super().get().handle();
        slf.py().without_gil(|| {
            handle.deriving(|writer| {
                let divided =
                    writer.read(|store| Ok(store.divided(blocks, seed, num_threads)?))?;
                writer.write(|store| Ok(store.adopt(divided)?))
            })
        })
    }

    /// The fields of `sharpwave.ReplayReport` by name.
    fn replay<'py>(
        slf: &Bound<'py, Self>,
        budget: Option<u64>,
        seconds: Option<f64>,
        tol: f64,
        order: &str,
        need: Bound<'py, PyAny>,
        floor: f64,
        extend: bool,
        consolidate: bool,
        max_drift: Option<f64>,
        num_threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let request = ReplayRequest {
            budget,
            seconds,
            tol,
            order: self::order(order)?,
            need: self::need(&need)?,
            lookahead: Lookahead { floor, extend },
            consolidate,
            max_drift,
            threads: num_threads,
        };
        let begin = Instant::now();
        let did = writing(slf, |writer| {
            let mut plan = writer.read(|store| Ok(store.plan_replay(&request)?))?;
            writer.write(|store| Ok(store.commit_replay(&mut plan)?))
        })?;
        let report = PyDict::new(slf.py());
        report.set_item("backups", did.backups)?;
        report.set_item("swept", did.swept)?;
        report.set_item("stopped", stopped(did.stopped))?;
        report.set_item("residual", did.residual)?;
        report.set_item("converged", did.converged)?;
        report.set_item("seconds", begin.elapsed().as_secs_f64())?;
        report.set_item("observed", did.observed)?;
        report.set_item("refused", did.refused)?;
        report.set_item("drift", did.drift)?;
        report.set_item("trail", PyTuple::new(slf.py(), did.trail)?)?;
        Ok(report)
    }

    /// As if never seen.
    fn veto(
        slf: &Bound<'_, Self>,
        memory: Option<i64>,
        episodes: Option<PyReadonlyArray1<'_, i64>>,
    ) -> PyResult<()> {
        let what = vetoed(memory, episodes.as_ref())?;
        writing(slf, |writer| {
            writer.rewrite(
                |store| Ok(store.without(&what)?),
                |rest| Ok(rest.record_veto(&what)?),
            )
        })
    }

    /// Keep this moment, so that a later veto begins here.
    fn checkpoint(slf: &Bound<'_, Self>, keep: usize) -> PyResult<()> {
        write(slf, |store| store.checkpoint(keep))
    }

    /// Record it, or refuse another.
    fn bind_embedder(slf: &Bound<'_, Self>, fingerprint: &str) -> PyResult<()> {
        write(slf, |store| store.bind_embedder(fingerprint))
    }

    /// Take over the content of another, in the directory too.
    #[pyo3(name = "become")]
    fn become_other(slf: &Bound<'_, Self>, other: &Bound<'_, Self>) -> PyResult<()> {
        let other = other.as_super().get().handle();
        let store = slf.py().without_gil(|| other.freeze())?;
        writing(slf, |writer| writer.become_other(store))
    }

    /// A new snapshot in its directory, if there is anything new.
    fn flush(slf: &Bound<'_, Self>) -> PyResult<()> {
        let handle = slf.as_super().get().handle();
        slf.py()
            .without_gil(|| handle.writing(|writer| writer.compact(false)))
    }

    /// Let go of the data, after a snapshot in its directory if there is anything new: the journal is enough if that is
    /// interrupted.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let handle = slf.as_super().get().handle();
        slf.py().without_gil(|| handle.close())
    }

    /// How often it was written to since it was made.
    fn writes(slf: &Bound<'_, Self>) -> u64 {
        slf.as_super().get().handle().writes()
    }

    /// Panic in the middle of a write, as a bug would: for tests.
    fn _panic(slf: &Bound<'_, Self>) -> PyResult<()> {
        write(slf, |store| {
            store.add_channel("half a write", 0.0, 1.0)?;
            panic!("asked to")
        })
    }

    /// Whether it can only be read.
    fn readonly(slf: &Bound<'_, Self>) -> bool {
        slf.as_super().get().handle().is_readonly()
    }

    /// Whether it was let go of.
    fn closed(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let handle = slf.as_super().get().handle();
        slf.py().without_gil(|| handle.is_closed())
    }
}

/// The core keeps a text for every step or for none.
fn plain(texts: Vec<Option<String>>) -> Vec<String> {
    texts.into_iter().map(Option::unwrap_or_default).collect()
}

fn code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::New => 0,
        Outcome::Merged => 1,
        Outcome::Dropped => 2,
        Outcome::Proposed => 3,
    }
}

fn stopped(stopped: Stopped) -> &'static str {
    match stopped {
        Stopped::Converged => "converged",
        Stopped::Budget => "budget",
        Stopped::Seconds => "seconds",
        Stopped::Interrupt => "interrupt",
        Stopped::Drift => "drift",
    }
}

fn order(name: &str) -> PyResult<Order> {
    match name {
        "prioritized" => Ok(Order::Prioritized),
        "reverse" => Ok(Order::Reverse),
        "full" => Ok(Order::Full),
        _ => Err(PyValueError::new_err(format!(
            "order: {name:?} is not one of prioritized, reverse, full"
        ))),
    }
}

fn need(need: &Bound<'_, PyAny>) -> PyResult<Need> {
    if let Ok(name) = need.extract::<&str>() {
        return match name {
            "frequency" => Ok(Need::Frequency),
            "uniform" => Ok(Need::Uniform),
            _ => Err(PyValueError::new_err(format!(
                "need: {name:?} is not one of frequency, uniform; or pass the ids of the starts"
            ))),
        };
    }
    let ids: PyReadonlyArray1<'_, i64> = need.extract()?;
    Ok(Need::From(borrowed("need", &ids)?.to_vec()))
}
