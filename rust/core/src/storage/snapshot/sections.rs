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

/// Element types of a section, as safetensors names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    U8,
    U32,
    I64,
    U64,
    F32,
    F64,
}

impl Element {
    pub(crate) fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Self::U8 => Dtype::U8,
            Self::U32 => Dtype::U32,
            Self::I64 => Dtype::I64,
            Self::U64 => Dtype::U64,
            Self::F32 => Dtype::F32,
            Self::F64 => Dtype::F64,
        }
    }
}

/// Takes the bytes of a section, piece by piece.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// One array, little-endian.
pub(crate) struct Section<'a> {
    pub(crate) name: &'static str,
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    pub(crate) pour: Box<dyn Fn(Sink<'_>) -> Result<()> + 'a>,
}

impl Section<'_> {
    /// How many bytes it has.
    pub(crate) fn size(&self) -> usize {
        self.shape.iter().product::<usize>() * self.element.size()
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

pub(crate) fn in_pieces<const N: usize>(
    values: impl Iterator<Item = [u8; N]>,
    sink: Sink<'_>,
) -> Result<()> {
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

/// A section of the given element type; `values` is evaluated anew for every pouring.
macro_rules! section {
    ($name:literal, $element:ident, $shape:expr, $values:expr) => {
        $crate::storage::snapshot::sections::Section {
            name: $name,
            element: $crate::storage::snapshot::sections::Element::$element,
            shape: $shape.to_vec(),
            pour: Box::new(move |sink| {
                $crate::storage::snapshot::sections::in_pieces(
                    $values.into_iter().map(|x| x.to_le_bytes()),
                    sink,
                )
            }),
        }
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
    let ids = section!(
        "ids",
        I64,
        [order.len()],
        order.iter().map(|&s| memories.id(s))
    );
    let episodes = section!(
        "episode_ids",
        I64,
        [episodes.len()],
        episodes.iter().copied()
    );
    all.extend([(Role::Names, ids), (Role::Names, episodes)]);
    all
}

/// The arrays of the proposals and of the archive, one after the other.
pub(crate) fn archive(store: &Store) -> Section<'_> {
    let length: usize = store.archived().map(<[f32]>::len).sum();
    section!(
        "archive",
        F32,
        [length],
        store.archived().flatten().copied()
    )
}

/// What a memory is and what it is worth.
fn columns<'a>(store: &'a Store, state: &mut Vec<Section<'a>>) {
    let memories = &store.memories;
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
    state.extend([
        section!(
            "keys",
            F32,
            [n, d],
            by_rank().flat_map(|s| memories.key(s)).copied()
        ),
        section!(
            "values",
            F32,
            [n, q],
            by_rank().flat_map(|s| store.values.of(s)).copied()
        ),
        section!("baseline", F32, [q], store.values.baseline.iter().copied()),
        section!("merged", U64, [n], by_rank().map(|s| merged[at(s)])),
        section!("mass", F64, [n], by_rank().map(|s| store.graph.mass(s))),
        section!("written", U64, [n], by_rank().map(|s| written[at(s)])),
        section!(
            "terminal",
            U8,
            [n],
            by_rank().map(|s| u8::from(terminal[at(s)]))
        ),
        section!(
            "dirty",
            U8,
            [n],
            by_rank().map(|s| u8::from(store.values.is_dirty(s)))
        ),
        section!(
            "drive_sums",
            F64,
            [n, scalars],
            by_rank().flat_map(|s| drive_sums[at(s) * scalars..][..scalars].to_vec())
        ),
        section!(
            "drive_counts",
            U32,
            [n, scalars],
            by_rank().flat_map(|s| drive_counts[at(s) * scalars..][..scalars].to_vec())
        ),
    ]);
}

/// Which memory leads to which.
fn associations<'a>(store: &'a Store, state: &mut Vec<Section<'a>>) {
    let (order, graph) = (store.memories.in_order(), &store.graph);
    let n = order.len();
    let ranks: HashMap<Slot, u32> = order.iter().copied().zip(0u32..).collect();
    let edges: usize = order.iter().map(|&s| graph.row(s).len()).sum();
    let all = || order.iter().flat_map(|&s| graph.row(s));
    state.extend([
        section!(
            "row_lengths",
            U64,
            [n],
            order.iter().map(|&s| graph.row(s).len() as u64)
        ),
        section!(
            "edge_targets",
            U32,
            [edges],
            all().map(|edge| ranks[&edge.target])
        ),
        section!("edge_sums", F64, [edges], all().map(|edge| edge.sum)),
    ]);
}

/// Which steps and texts a memory came from.
fn origins<'a>(store: &'a Store, state: &mut Vec<Section<'a>>) {
    let memories = &store.memories;
    let order = memories.in_order();
    let n = order.len();
    let of = |slot: Slot| memories.columns().provenance[slot as usize].as_slice();
    let steps: usize = order.iter().map(|&s| of(s).len()).sum();
    let text = |slot: Slot| memories.columns().texts[slot as usize].as_deref();
    let letters: usize = order.iter().filter_map(|&s| text(s)).map(str::len).sum();
    state.extend([
        section!(
            "provenance_lengths",
            U64,
            [n],
            order.iter().map(|&s| of(s).len() as u64)
        ),
        section!(
            "provenance_origins",
            I64,
            [steps],
            order.iter().flat_map(|&s| of(s)).map(|p| p.origin)
        ),
        section!(
            "provenance_steps",
            U32,
            [steps],
            order.iter().flat_map(|&s| of(s)).map(|p| p.step)
        ),
        // A length of 0 is "no text"; a text of n bytes has length n + 1.
        section!(
            "text_lengths",
            U64,
            [n],
            order
                .iter()
                .map(|&s| text(s).map_or(0, |text| text.len() as u64 + 1))
        ),
        section!(
            "text_bytes",
            U8,
            [letters],
            order.iter().filter_map(|&s| text(s)).flat_map(str::bytes)
        ),
    ]);
}

/// What was measured: the calibration sample and how predictions fared.
fn statistics<'a>(store: &'a Store, state: &mut Vec<Section<'a>>) {
    let (sample, d) = (&store.sample, store.config.dim);
    let (followed, unrelated) = (
        &store.edge_statistics.followed,
        &store.edge_statistics.unrelated,
    );
    state.extend([
        section!("sample", F32, [sample.len() / d, d], sample.iter().copied()),
        section!(
            "edges_followed",
            U64,
            [followed.len()],
            followed.iter().copied()
        ),
        section!(
            "edges_unrelated",
            U64,
            [unrelated.len()],
            unrelated.iter().copied()
        ),
    ]);
}
