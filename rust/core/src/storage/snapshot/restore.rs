//! A store from the sections of a snapshot, each checked before it is used.

use std::borrow::Cow;
use std::ops::Range;

use safetensors::tensor::Dtype;

use crate::base::{Slot, cancel};
use crate::error::{Error, Result, damaged_if};
use crate::graph::{Edge, EdgeStatistics, Graph};
use crate::memory::{Channel, Kind, NewMemory, Provenance};
use crate::storage::snapshot::check::check_episodes;
use crate::storage::snapshot::file::File;
use crate::storage::snapshot::source::Tensor;
use crate::storage::snapshot::state::State;
use crate::store::Store;

/// What no counter reaches by counting, so that none overflows.
const COUNTER: i64 = 1 << 53;

macro_rules! reads {
    ($name:ident, $type:ty, $dtype:ident) => {
        fn $name(&self, name: &str, shape: &[usize]) -> Result<Vec<$type>> {
            const SIZE: usize = size_of::<$type>();
            let range = self.range(name, Dtype::$dtype, shape)?;
            let mut numbers = Vec::with_capacity(range.len() / SIZE);
            self.source.pour(range, SIZE, &mut |piece| {
                cancel::check()?;
                let (chunks, _) = piece.as_chunks::<SIZE>();
                numbers.extend(chunks.iter().map(|x| <$type>::from_le_bytes(*x)));
                Ok(())
            })?;
            Ok(numbers)
        }
    };
}

/// Reads sections by name, checking type and shape.
impl File<'_> {
    reads!(f32s, f32, F32);
    reads!(f64s, f64, F64);
    reads!(u32s, u32, U32);
    reads!(u64s, u64, U64);
    reads!(i64s, i64, I64);
    reads!(u8s, u8, U8);

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors
            .get(name)
            .ok_or_else(|| Error::format(name, "missing"))
    }

    /// Where the bytes of a section of this type and shape lie.
    fn range(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Range<usize>> {
        let tensor = self.tensor(name)?;
        damaged_if!(tensor.dtype != dtype, name, "is {:?}", tensor.dtype);
        let there = &tensor.shape;
        damaged_if!(there != shape, name, "has shape {there:?}, not {shape:?}");
        Ok(tensor.range.clone())
    }

    /// How many rows a section has.
    fn rows(&self, name: &str) -> Result<usize> {
        self.tensor(name)?
            .shape
            .first()
            .copied()
            .ok_or_else(|| Error::format(name, "is a single number"))
    }

    fn flags(&self, name: &str, n: usize) -> Result<Vec<bool>> {
        self.u8s(name, &[n])?
            .into_iter()
            .map(|x| match x {
                0 => Ok(false),
                1 => Ok(true),
                _ => Err(Error::format(name, format!("{x} is neither 0 nor 1"))),
            })
            .collect()
    }

    /// The archive's numbers, to be given to [`State::unpool`].
    pub(crate) fn archive(&self) -> Result<Vec<f32>> {
        self.f32s("archive", &[self.rows("archive")?])
    }

    /// The store, its arrays checked.
    pub(crate) fn store(&self, state: State<'_>) -> Result<Store> {
        for config in [&state.config, &state.given] {
            config
                .validate()
                .map_err(|error| Error::format("config", error.to_string()))?;
        }
        let counters = [state.next_memory, state.inserts as i64, state.clock as i64];
        let inside = counters.iter().all(|n| (0..=COUNTER).contains(n)) && state.next_episode >= 0;
        damaged_if!(!inside, "state", "a counter is out of range");
        let same = state.config.dim == state.given.dim;
        damaged_if!(!same, "config", "it is of two dimensions");
        let mut entries = state.history.as_deref().into_iter().flatten();
        let inside = entries.all(|entry| (0..=state.next_memory).contains(&entry.next_memory));
        damaged_if!(!inside, "state", "an id in the history is out of range");
        let d = state.config.dim;
        let n = self.rows("ids")?;
        let mut store = Store::new(state.given.into_owned())?;
        store.config = state.config.into_owned();
        store.embedder = state.embedder.map(Cow::into_owned);
        store.clock = state.clock;
        store.inserts = state.inserts;
        store.next_memory = state.next_memory;
        store.next_episode = state.next_episode;
        store.history = state.history.map(Cow::into_owned);
        store.sample = finite("sample", self.f32s("sample", &[self.rows("sample")?, d])?)?;
        self.restore_episode_ids(&mut store)?;
        self.restore_memories(&mut store, n, &state.channels)?;
        check_episodes(&store, &state.proposals)?;
        store.proposals = state.proposals.into_owned();
        store.edge_statistics = EdgeStatistics {
            followed: self.u64s("edges_followed", &[self.rows("edges_followed")?])?,
            unrelated: self.u64s("edges_unrelated", &[self.rows("edges_unrelated")?])?,
        };
        let counted = |histogram: &[u64]| {
            let sum = histogram
                .iter()
                .try_fold(0u64, |sum, &n| sum.checked_add(n));
            sum.is_some_and(|sum| sum <= COUNTER as u64)
        };
        let statistics = &store.edge_statistics;
        let inside = counted(&statistics.followed) && counted(&statistics.unrelated);
        damaged_if!(!inside, "edges_followed", "a count is out of range");
        let sound = statistics.is_sound();
        damaged_if!(!sound, "edges_followed", "has a wrong number of bins");
        Ok(store)
    }

    fn restore_episode_ids(&self, store: &mut Store) -> Result<()> {
        let ids = self.i64s("episode_ids", &[self.rows("episode_ids")?])?;
        let fit = ids.len() as u64 == store.clock;
        damaged_if!(!fit, "episode_ids", "do not fit the clock");
        store.ordinals = ids.iter().copied().zip(0u64..).collect();
        let twice = store.ordinals.len() != ids.len();
        damaged_if!(twice, "episode_ids", "an id comes twice");
        store.episode_ids = ids;
        Ok(())
    }

    fn restore_memories(&self, store: &mut Store, n: usize, channels: &[Channel]) -> Result<()> {
        let d = store.config.dim;
        let q = channels.len();
        let scalars = channels.iter().filter(|c| c.is_scalar()).count();
        let ids = self.i64s("ids", &[n])?;
        let ends = [ids.first(), ids.last()];
        let given = |id: &&i64| (0..store.next_memory).contains(*id);
        let rising =
            ids.windows(2).all(|pair| pair[0] < pair[1]) && ends.iter().flatten().all(given);
        damaged_if!(!rising, "ids", "are not rising");
        let keys = self.range("keys", Dtype::F32, &[n, d])?;
        let values = finite("values", self.f32s("values", &[n, q])?)?;
        let merged = self.u64s("merged", &[n])?;
        let inside = merged.iter().all(|&m| m <= COUNTER as u64);
        damaged_if!(!inside, "merged", "a count is out of range");
        let written = self.u64s("written", &[n])?;
        let inside = written.iter().all(|&at| at <= store.clock);
        damaged_if!(!inside, "written", "lies after the clock");
        let terminal = self.flags("terminal", n)?;
        let dirty = self.flags("dirty", n)?;
        let texts = self.texts(n)?;
        let mut provenance = self.provenance(n, store)?;
        store.memories.encode_later();
        store.memories.reserve(n);
        let (mut rank, mut key) = (0, vec![0.0; d]);
        self.source.pour(keys, size_of::<f32>() * d, &mut |piece| {
            cancel::check()?;
            for row in piece.as_chunks().0.chunks_exact(d) {
                for (x, bytes) in key.iter_mut().zip(row) {
                    *x = f32::from_le_bytes(*bytes);
                }
                let finite = key.iter().all(|x| x.is_finite());
                damaged_if!(!finite, "keys", "not all numbers are finite");
                let new = NewMemory {
                    key: &key,
                    terminal: terminal[rank],
                    merged: merged[rank],
                    clock: written[rank],
                    text: texts[rank].as_deref(),
                    provenance: None,
                };
                let slot = store.memories.add(ids[rank], &new, &store.channels);
                store
                    .memories
                    .set_provenance(slot, std::mem::take(&mut provenance[rank]));
                store.graph.ensure(slot);
                store.values.start(slot, &[]);
                rank += 1;
            }
            Ok(())
        })?;
        store.memories.encode_all()?;
        self.restore_graph(store, n)?;
        restore_channels(store, channels, &terminal)?;
        let sums = self.f64s("drive_sums", &[n, scalars])?;
        let counts = self.u32s("drive_counts", &[n, scalars])?;
        let sound = sums.iter().all(|x| x.is_finite());
        damaged_if!(!sound, "drive_sums", "not all numbers are finite");
        store.memories.set_observed(sums, counts);
        for rank in 0..n {
            let slot = rank as Slot;
            store.memories.refresh_drives(slot, &store.channels);
            store
                .values
                .restore(slot, &values[rank * q..(rank + 1) * q], dirty[rank]);
        }
        store.values.baseline = finite("baseline", self.f32s("baseline", &[q])?)?;
        Ok(())
    }

    fn restore_graph(&self, store: &mut Store, n: usize) -> Result<()> {
        let edges = self.rows("edge_targets")?;
        let lengths = self.u64s("row_lengths", &[n])?;
        let targets = self.u32s("edge_targets", &[edges])?;
        let sums = self.f64s("edge_sums", &[edges])?;
        let mass = self.f64s("mass", &[n])?;
        let bad = |message: &str| Error::format("edge_targets", message);
        let mut at = 0usize;
        let mut rows = Vec::with_capacity(n);
        for (rank, &length) in lengths.iter().enumerate() {
            let end = usize::try_from(length)
                .ok()
                .and_then(|length| at.checked_add(length))
                .filter(|&end| end <= edges)
                .ok_or_else(|| bad("fewer than the rows say"))?;
            let row: Vec<Edge> = targets[at..end]
                .iter()
                .zip(&sums[at..end])
                .map(|(&target, &sum)| Edge { target, sum })
                .collect();
            at = end;
            let rising = row.windows(2).all(|pair| pair[0].target < pair[1].target);
            let inside = row
                .iter()
                .all(|edge| (edge.target as usize) < n && edge.target as usize != rank);
            if !(rising && inside) {
                return Err(bad("a row is out of order or leads nowhere"));
            }
            let total: f64 = row.iter().map(|edge| edge.sum).sum();
            let sound = row
                .iter()
                .all(|edge| edge.sum >= 0.0 && edge.sum.is_finite());
            let sound =
                sound && (0.0..=f64::MAX).contains(&mass[rank]) && total <= mass[rank] * 1.001;
            damaged_if!(!sound, "edge_sums", "a row is not sub-stochastic");
            rows.push((row, mass[rank]));
        }
        store.graph = Graph::restored(&rows, &store.memories)?;
        damaged_if!(at != edges, "edge_targets", "more than the rows say");
        Ok(())
    }

    fn texts(&self, n: usize) -> Result<Vec<Option<String>>> {
        let lengths = self.u64s("text_lengths", &[n])?;
        let bytes = self.u8s("text_bytes", &[self.rows("text_bytes")?])?;
        let mut rest = bytes.as_slice();
        let mut texts = Vec::with_capacity(n);
        for length in lengths {
            let Some(length) = length.checked_sub(1) else {
                texts.push(None);
                continue;
            };
            let (text, tail) = usize::try_from(length)
                .ok()
                .and_then(|length| rest.split_at_checked(length))
                .ok_or_else(|| Error::format("text_bytes", "shorter than its texts"))?;
            let text =
                std::str::from_utf8(text).map_err(|_| Error::format("text_bytes", "not UTF-8"))?;
            texts.push(Some(text.to_owned()));
            rest = tail;
        }
        damaged_if!(!rest.is_empty(), "text_bytes", "longer than its texts");
        Ok(texts)
    }

    fn provenance(&self, n: usize, store: &Store) -> Result<Vec<Vec<Provenance>>> {
        let total = self.rows("provenance_origins")?;
        let lengths = self.u64s("provenance_lengths", &[n])?;
        let origins = self.i64s("provenance_origins", &[total])?;
        let steps = self.u32s("provenance_steps", &[total])?;
        let known = |origin: i64| {
            if origin >= 0 {
                (origin as u64) < store.clock
            } else {
                ((-1 - origin) as u64) < store.inserts
            }
        };
        let sound = origins.iter().all(|&origin| known(origin));
        damaged_if!(!sound, "provenance_origins", "an episode is unknown");
        let mut all = origins
            .into_iter()
            .zip(steps)
            .map(|(origin, step)| Provenance { origin, step });
        let mut rows = Vec::with_capacity(n);
        let mut left = total as u64;
        for length in lengths {
            left = left
                .checked_sub(length)
                .ok_or_else(|| Error::format("provenance_lengths", "more than there are"))?;
            rows.push(all.by_ref().take(length as usize).collect());
        }
        damaged_if!(left != 0, "provenance_lengths", "fewer than there are");
        Ok(rows)
    }
}

/// Adds the channels, each terminal bound to its memory.
fn restore_channels(store: &mut Store, channels: &[Channel], terminal: &[bool]) -> Result<()> {
    let mut terminals = 0;
    for channel in channels {
        store
            .channels
            .check(&channel.name, channel.low, channel.high)
            .map_err(|error| Error::format("channels", error.to_string()))?;
        if let Kind::Terminal { memory } = channel.kind {
            let held = store.memories.slot(memory);
            let held = held.is_some_and(|slot| terminal[slot as usize]);
            damaged_if!(!held, "channels", "a terminal is missing");
            terminals += 1;
        }
        store.channels.push(channel.clone());
        store.memories.add_column(&store.channels);
        store.values.add_column(&store.memories, &store.graph);
    }
    let bound = terminals == terminal.iter().filter(|&&t| t).count();
    damaged_if!(!bound, "terminal", "a terminal has no channel");
    Ok(())
}

fn finite(name: &'static str, numbers: Vec<f32>) -> Result<Vec<f32>> {
    let finite = numbers.iter().all(|x| x.is_finite());
    damaged_if!(!finite, name, "not all numbers are finite");
    Ok(numbers)
}
