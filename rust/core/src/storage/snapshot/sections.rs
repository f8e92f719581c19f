//! The logical state as named arrays, memories by rank (rising id), never by slot.
//!
//! A section is poured out in pieces, so that neither digest nor snapshot needs a second copy of the store.

use std::collections::HashMap;

use safetensors::tensor::Dtype;

use crate::base::{Slot, cancel};
use crate::error::Result;
use crate::memory::Stored;
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
    let (memories, graph, v) = (&store.memories, &store.graph, &store.values);
    let order = memories.in_order();
    let by_rank = || order.iter().copied();
    let at = |slot: Slot| slot as usize;
    let (n, d) = (order.len(), store.config.dim);
    let (q, scalars) = (store.channels.len(), store.channels.scalars());
    // All of them by name: one that is added is written.
    let Stored {
        ids: _,
        keys: _, // both by their accessors
        merged,
        written,
        terminal,
        texts,
        provenance,
        drive_sums,
        drive_counts,
    } = memories.columns().stored();
    let ranks: HashMap<Slot, u32> = by_rank().zip(0u32..).collect();
    let edges = move || by_rank().flat_map(|s| graph.row(s).edges());
    let associations = edges().count();
    let origins = move || by_rank().flat_map(move |s| &provenance[at(s)]);
    let steps = origins().count();
    let text = move |slot: Slot| texts[at(slot)].as_deref();
    let letters: usize = by_rank().filter_map(text).map(str::len).sum();
    let (sample, statistics) = (&store.sample, &store.edge_statistics);
    let (followed, unrelated) = (&statistics.followed, &statistics.unrelated);
    let episodes = &store.episode_ids;
    let state = sections! {
        // What a memory is and what it is worth.
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
        // Which memory leads to which.
        row_lengths: U64 [n] => by_rank().map(|s| graph.row(s).len() as u64);
        edge_targets: U32 [associations] => edges().map(|edge| ranks[&edge.target]);
        edge_sums: F64 [associations] => edges().map(|edge| edge.sum);
        // Which steps and texts a memory came from.
        provenance_lengths: U64 [n] => by_rank().map(|s| provenance[at(s)].len() as u64);
        provenance_origins: I64 [steps] => origins().map(|p| p.origin);
        provenance_steps: U32 [steps] => origins().map(|p| p.step);
        // A length of 0 is "no text"; a text of n bytes has length n + 1.
        text_lengths: U64 [n] => by_rank().map(|s| text(s).map_or(0, |t| t.len() as u64 + 1));
        text_bytes: U8 [letters] => by_rank().filter_map(text).flat_map(str::bytes);
        // What was measured: the calibration sample and how predictions fared.
        sample: F32 [sample.len() / d, d] => sample.iter().copied();
        edges_followed: U64 [followed.len()] => followed.iter().copied();
        edges_unrelated: U64 [unrelated.len()] => unrelated.iter().copied();
    };
    let names = sections! {
        ids: I64 [n] => by_rank().map(|s| memories.id(s));
        episode_ids: I64 [episodes.len()] => episodes.iter().copied();
    };
    let state = state.map(|part| (Role::State, part)).into_iter();
    state.chain(names.map(|part| (Role::Names, part))).collect()
}

/// The arrays of the proposals and of the archive, one after the other.
pub(crate) fn archive(store: &Store) -> Section<'_> {
    let length: usize = store.archived().map(<[f32]>::len).sum();
    let [archive] = sections! {
        archive: F32 [length] => store.archived().flatten().copied();
    };
    archive
}
