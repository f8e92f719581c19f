//! The logical state as named arrays, memories by rank (rising id), never by slot.
//!
//! A section is poured out in pieces, so that neither digest nor snapshot needs a second copy of the store.

use std::collections::HashMap;

use safetensors::tensor::Dtype;

use crate::base::cancel;
use crate::base::slot::Slot;
use crate::error::Result;
use crate::memory::columns::Columns;
use crate::store::Store;

/// Bytes of an element.
pub(crate) fn size(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

/// Takes the bytes of a section, piece by piece.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// One array, little-endian.
pub(crate) struct Section<'a> {
    pub(crate) name: &'static str,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pour: Box<dyn Fn(Sink<'_>) -> Result<()> + 'a>,
}

impl Section<'_> {
    /// How many bytes it has.
    pub(crate) fn size(&self) -> usize {
        self.shape.iter().product::<usize>() * size(self.dtype)
    }

    /// Gives its bytes to `sink`.
    ///
    /// # Errors
    /// What `sink` returns, [`crate::Error::Interrupted`] if the caller had enough.
    pub(crate) fn pour(&self, sink: Sink<'_>) -> Result<()> {
        (self.pour)(sink)
    }
}

/// What a section is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Part of the logical state, hence of the digest.
    State,
    /// Which ids the ranks stand for: in the snapshot, not in the digest.
    Names,
}

/// Bytes between two looks at the token.
const BYTES_PER_CHECK: usize = 1 << 16;

fn in_pieces<const N: usize>(values: impl Iterator<Item = [u8; N]>, sink: Sink<'_>) -> Result<()> {
    let mut piece = Vec::with_capacity(BYTES_PER_CHECK + N);
    for value in values {
        piece.extend_from_slice(&value);
        if piece.len() >= BYTES_PER_CHECK {
            cancel::check()?;
            sink(&piece)?;
            piece.clear();
        }
    }
    sink(&piece)
}

/// Sections by name, with element type, shape and values, which are evaluated anew for every pouring.
macro_rules! sections {
    ($($name:ident: $dtype:ident $shape:expr => $values:expr;)*) => {
        [$(Section {
            name: stringify!($name),
            dtype: Dtype::$dtype,
            shape: $shape.to_vec(),
            pour: Box::new(move |sink| {
                in_pieces($values.into_iter().map(|x| x.to_le_bytes()), sink)
            }),
        },)*]
    };
}

/// Every section of the state, in the order of the digest.
pub(crate) fn sections(store: &Store) -> Vec<(Role, Section<'_>)> {
    let mut all = Vec::new();
    columns(store, &mut all);
    associations(store, &mut all);
    origins(store, &mut all);
    statistics(store, &mut all);
    let mut all: Vec<_> = all.into_iter().map(|part| (Role::State, part)).collect();
    let (memories, episodes) = (&store.memories, &store.episode_ids);
    let order = memories.in_order();
    let names = sections! {
        ids: I64 [order.len()] => order.iter().map(|&s| memories.id(s));
        episode_ids: I64 [episodes.len()] => episodes.iter().copied();
    };
    all.extend(names.map(|part| (Role::Names, part)));
    all
}

/// The arrays of the proposals and of the archive, one after the other.
pub(crate) fn archive(store: &Store) -> Section<'_> {
    let length: usize = store.archived().map(<[f32]>::len).sum();
    let [archive] = sections! {
        archive: F32 [length] => store.archived().flatten().copied();
    };
    archive
}

/// What a memory is and what it is worth.
fn columns<'a>(store: &'a Store, state: &mut Vec<Section<'a>>) {
    let (memories, graph, v) = (&store.memories, &store.graph, &store.values);
    let order = memories.in_order();
    let at = |slot: Slot| slot as usize;
    // All of them by name: one that is added is written, or left out on purpose.
    let Columns {
        keys: _, // by `key`
        merged,
        written,
        terminal,
        drive_sums,
        drive_counts,
        ids: _, // names, which are no part of the state
        texts: _,
        provenance: _, // both in `origins`
        stamps: _,
        drives: _, // caches
    } = memories.columns();
    let (n, d) = (order.len(), store.config.dim);
    let (q, scalars) = (store.channels.len(), store.channels.scalars());
    let by_rank = || order.iter().copied();
    state.extend(sections! {
        keys: F32 [n, d] => by_rank().flat_map(|s| memories.key(s)).copied();
        values: F32 [n, q] => by_rank().flat_map(|s| v.of(s)).copied();
        baseline: F32 [q] => v.baseline.iter().copied();
        merged: U64 [n] => by_rank().map(|s| merged[at(s)]);
        mass: F64 [n] => by_rank().map(|s| graph.mass(s));
        written: U64 [n] => by_rank().map(|s| written[at(s)]);
        terminal: U8 [n] => by_rank().map(|s| u8::from(terminal[at(s)]));
        dirty: U8 [n] => by_rank().map(|s| u8::from(v.is_dirty(s)));
        drive_sums: F64 [n, scalars] =>
            by_rank().flat_map(|s| drive_sums[at(s) * scalars..][..scalars].to_vec());
        drive_counts: U32 [n, scalars] =>
            by_rank().flat_map(|s| drive_counts[at(s) * scalars..][..scalars].to_vec());
    });
}

/// Which memory leads to which.
fn associations<'a>(store: &'a Store, state: &mut Vec<Section<'a>>) {
    let (order, graph) = (store.memories.in_order(), &store.graph);
    let n = order.len();
    let ranks: HashMap<Slot, u32> = order.iter().copied().zip(0u32..).collect();
    let edges: usize = order.iter().map(|&s| graph.row(s).len()).sum();
    let all = || order.iter().flat_map(|&s| graph.row(s).edges());
    state.extend(sections! {
        row_lengths: U64 [n] => order.iter().map(|&s| graph.row(s).len() as u64);
        edge_targets: U32 [edges] => all().map(|edge| ranks[&edge.target]);
        edge_sums: F64 [edges] => all().map(|edge| edge.sum);
    });
}

/// Which steps and texts a memory came from.
fn origins<'a>(store: &'a Store, state: &mut Vec<Section<'a>>) {
    let memories = &store.memories;
    let order = memories.in_order();
    let n = order.len();
    let of = |slot: Slot| memories.columns().provenance[slot as usize].as_slice();
    let all = move || order.iter().flat_map(move |&s| of(s));
    let steps: usize = order.iter().map(|&s| of(s).len()).sum();
    let text = |slot: Slot| memories.columns().texts[slot as usize].as_deref();
    let letters: usize = order.iter().filter_map(|&s| text(s)).map(str::len).sum();
    state.extend(sections! {
        provenance_lengths: U64 [n] => order.iter().map(|&s| of(s).len() as u64);
        provenance_origins: I64 [steps] => all().map(|p| p.origin);
        provenance_steps: U32 [steps] => all().map(|p| p.step);
        // A length of 0 is "no text"; a text of n bytes has length n + 1.
        text_lengths: U64 [n] => order.iter().map(|&s| text(s).map_or(0, |t| t.len() as u64 + 1));
        text_bytes: U8 [letters] => order.iter().filter_map(|&s| text(s)).flat_map(str::bytes);
    });
}

/// What was measured: the calibration sample and how predictions fared.
fn statistics<'a>(store: &'a Store, state: &mut Vec<Section<'a>>) {
    let (sample, d, edges) = (&store.sample, store.config.dim, &store.edge_statistics);
    let (followed, unrelated) = (&edges.followed, &edges.unrelated);
    state.extend(sections! {
        sample: F32 [sample.len() / d, d] => sample.iter().copied();
        edges_followed: U64 [followed.len()] => followed.iter().copied();
        edges_unrelated: U64 [unrelated.len()] => unrelated.iter().copied();
    });
}
