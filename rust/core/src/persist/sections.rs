//! The logical state as named arrays, memories by rank (rising id), never by slot.

use std::collections::HashMap;

use crate::memory::Slot;
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

/// One array, little-endian.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// What a section is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Part of the logical state, hence of the digest.
    State,
    /// Which ids the ranks stand for: in the snapshot, not in the digest.
    Names,
}

macro_rules! section {
    ($name:literal, $element:ident, $shape:expr, $values:expr) => {
        Section {
            name: $name,
            element: Element::$element,
            shape: $shape.to_vec(),
            bytes: $values.into_iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    };
}

/// Calls `visit` with every section of the state, one after the other.
pub(crate) fn visit(store: &Store, mut visit: impl FnMut(Role, Section)) {
    let mut state = |section| visit(Role::State, section);
    columns(store, &mut state);
    associations(store, &mut state);
    origins(store, &mut state);
    statistics(store, &mut state);
    let (ids, episodes) = (store.ids(), &store.episode_ids);
    visit(Role::Names, section!("ids", I64, [ids.len()], ids));
    let episodes = section!(
        "episode_ids",
        I64,
        [episodes.len()],
        episodes.iter().copied()
    );
    visit(Role::Names, episodes);
}

/// What a memory is and what it is worth.
fn columns(store: &Store, state: &mut impl FnMut(Section)) {
    let memories = &store.memories;
    let order = memories.in_order();
    let at = |slot: Slot| slot as usize;
    let (n, d) = (order.len(), store.config.dim);
    let (q, scalars) = (store.channels.len(), store.channels.scalars());
    state(section!("keys", F32, [n, d], store.keys()));
    state(section!("values", F32, [n, q], store.values()));
    state(section!("baseline", F32, [q], store.baseline()));
    state(section!("merged", U64, [n], store.counts()));
    state(section!("mass", F64, [n], store.mass()));
    state(section!(
        "written",
        U64,
        [n],
        order.iter().map(|&s| memories.written[at(s)])
    ));
    state(section!(
        "terminal",
        U8,
        [n],
        order.iter().map(|&s| u8::from(memories.terminal[at(s)]))
    ));
    state(section!(
        "dirty",
        U8,
        [n],
        order.iter().map(|&s| u8::from(store.values.is_dirty(s)))
    ));
    state(section!(
        "drive_sums",
        F64,
        [n, scalars],
        order
            .iter()
            .flat_map(|&s| memories.drive_sums[at(s) * scalars..][..scalars].to_vec())
    ));
    state(section!(
        "drive_counts",
        U32,
        [n, scalars],
        order
            .iter()
            .flat_map(|&s| memories.drive_counts[at(s) * scalars..][..scalars].to_vec())
    ));
}

/// Which memory leads to which.
fn associations(store: &Store, state: &mut impl FnMut(Section)) {
    let order = store.memories.in_order();
    let n = order.len();
    let ranks: HashMap<Slot, u32> = order.iter().copied().zip(0u32..).collect();
    let edges: usize = order.iter().map(|&s| store.graph.row(s).len()).sum();
    state(section!(
        "row_lengths",
        U64,
        [n],
        order.iter().map(|&s| store.graph.row(s).len() as u64)
    ));
    state(section!(
        "edge_targets",
        U32,
        [edges],
        order
            .iter()
            .flat_map(|&s| store.graph.row(s))
            .map(|edge| ranks[&edge.target])
    ));
    state(section!(
        "edge_sums",
        F64,
        [edges],
        order
            .iter()
            .flat_map(|&s| store.graph.row(s))
            .map(|edge| edge.sum)
    ));
}

/// Which steps and texts a memory came from.
fn origins(store: &Store, state: &mut impl FnMut(Section)) {
    let memories = &store.memories;
    let order = memories.in_order();
    let at = |slot: Slot| slot as usize;
    let n = order.len();
    let steps: usize = order
        .iter()
        .map(|&s| memories.provenance[at(s)].len())
        .sum();
    let provenance = || order.iter().flat_map(|&s| &memories.provenance[at(s)]);
    state(section!(
        "provenance_lengths",
        U64,
        [n],
        order
            .iter()
            .map(|&s| memories.provenance[at(s)].len() as u64)
    ));
    state(section!(
        "provenance_origins",
        I64,
        [steps],
        provenance().map(|p| p.origin)
    ));
    state(section!(
        "provenance_steps",
        U32,
        [steps],
        provenance().map(|p| p.step)
    ));

    // A length of 0 is "no text"; a text of n bytes has length n + 1.
    let texts = || order.iter().map(|&s| memories.texts[at(s)].as_deref());
    let letters: Vec<u8> = texts().flatten().flat_map(str::bytes).collect();
    state(section!(
        "text_lengths",
        U64,
        [n],
        texts().map(|text| text.map_or(0, |text| text.len() as u64 + 1))
    ));
    state(section!("text_bytes", U8, [letters.len()], letters));
}

/// What was measured: the calibration sample and how predictions fared.
fn statistics(store: &Store, state: &mut impl FnMut(Section)) {
    let (sample, d) = (&store.sample, store.config.dim);
    state(section!(
        "sample",
        F32,
        [sample.len() / d, d],
        sample.iter().copied()
    ));
    let (followed, unrelated) = (&store.edges.followed, &store.edges.unrelated);
    state(section!(
        "edges_followed",
        U64,
        [followed.len()],
        followed.iter().copied()
    ));
    state(section!(
        "edges_unrelated",
        U64,
        [unrelated.len()],
        unrelated.iter().copied()
    ));
}
