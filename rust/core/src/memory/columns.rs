//! The columns of the memories.
//!
//! A memory keeps one *slot* for its life. A freed slot is used again, an id never is: everything that
//! depends on an order (ties, sums, digests) goes by id.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::{Huge, Slot, heap_sized, no_heap};
use crate::linalg;
use crate::memory::{Channels, Column, Kind, SlotMap, normalise};

/// One observed step (or inserted row) that went into a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// Ordinal of the observed episode; `−1 − n` is the n-th insert.
    pub(crate) origin: i64,
    /// Position of the step in the episode, or row of the insert.
    pub(crate) step: u32,
}

no_heap!(Provenance);

/// What a new memory brings along.
pub(crate) struct NewMemory<'a> {
    pub(crate) key: &'a [f32],
    pub(crate) terminal: bool,
    pub(crate) merged: u64,
    pub(crate) clock: u64,
    pub(crate) text: Option<&'a str>,
    pub(crate) provenance: Option<Provenance>,
}

/// The next stamp of a key: unique in the process, so that a copy of the keys can tell which of them changed, whatever
/// was cloned, rebuilt or put back meanwhile. No result depends on it.
static NEXT_STAMP: AtomicU64 = AtomicU64::new(0);

/// Declares the columns: name and type, width, what a free slot holds. All that is done to every column follows. Snapshots,
/// and with them the digest, take [`Stored`] apart by name, so that they cannot forget a stored one.
macro_rules! columns {
    (
        stored { $($(#[$doc:meta])* $name:ident: $column:ty, $width:ident, $free:expr;)* }
        cached { $($(#[$note:meta])* $cache:ident: $derived:ty, $wide:ident, $empty:expr;)* }
    ) => {
        heap_sized! {
            /// Struct of arrays over slots.
            #[derive(Clone, Debug, Default)]
            pub(crate) struct Columns {
                $($(#[$doc])* pub(crate) $name: $column,)*
                $($(#[$note])* pub(crate) $cache: $derived,)*
            }
        }

        /// The columns that snapshots hold.
        #[allow(dead_code)] // Some are named there only to say that they are read in another way.
        pub(crate) struct Stored<'a> {
            $(pub(crate) $name: &'a $column,)*
        }

        impl Columns {
            pub(crate) fn stored(&self) -> Stored<'_> {
                Stored { $($name: &self.$name,)* }
            }

            fn push(&mut self, widths: Widths) {
                $(Column::push(&mut self.$name, widths.$width, $free);)*
                $(Column::push(&mut self.$cache, widths.$wide, $empty);)*
            }

            fn reset(&mut self, slot: Slot, widths: Widths) {
                $(self.$name.reset(slot, widths.$width, $free);)*
                $(self.$cache.reset(slot, widths.$wide, $empty);)*
            }

            fn permuted(&self, order: &[Slot], widths: Widths, spare: usize) -> Self {
                Self {
                    $($name: self.$name.permuted(order, widths.$width, spare),)*
                    $($cache: self.$cache.permuted(order, widths.$wide, spare),)*
                }
            }
        }
    };
}

columns! {
    stored {
        /// −1 where the slot is free.
        ids: Vec<i64>, one, -1;
        /// Unit vectors.
        keys: Huge<f32>, dim, 0.0;
        terminal: Vec<bool>, one, false;
        /// `m_i`: steps merged.
        merged: Vec<u64>, one, 0;
        /// The clock (observed episodes) when last created or merged.
        written: Vec<u64>, one, 0;
        /// The text of the step that made it.
        texts: Vec<Option<Box<str>>>, one, None;
        provenance: Vec<Vec<Provenance>>, one, Vec::new();
        /// Sum and count of the observed scalar drives, `(slot, Qs)`.
        drive_sums: Vec<f64>, scalars, 0.0;
        drive_counts: Vec<u32>, scalars, 0;
    }
    cached {
        /// Another number whenever the key becomes another.
        stamps: Vec<u64>, one, 0;
        /// `r_iq`, `(slot, Q)`: derived from key, sums and counts.
        drives: Vec<f32>, channels, 0.0;
    }
}

/// Elements of a row, by kind of column.
#[derive(Clone, Copy, Debug)]
struct Widths {
    one: usize,
    dim: usize,
    channels: usize,
    scalars: usize,
}

no_heap!(Widths);

heap_sized! {
    /// The columns, and what finds a memory in them.
    #[derive(Clone, Debug)]
    pub(crate) struct Memories {
        widths: Widths,
        columns: Columns,
        order: Vec<Slot>,
        /// The terminals by rising id: few, and asked for often.
        terminals: Vec<Slot>,
        by_id: HashMap<i64, Slot>,
        free: BTreeSet<Slot>,
    }
}

impl Memories {
    pub(crate) fn new(dim: usize) -> Self {
        Self {
            widths: Widths {
                one: 1,
                dim,
                channels: 0,
                scalars: 0,
            },
            columns: Columns::default(),
            order: Vec::new(),
            terminals: Vec::new(),
            by_id: HashMap::new(),
            free: BTreeSet::new(),
        }
    }

    /// The live memories in other slots, no slot free, and room for `spare` more.
    pub(crate) fn permuted(&self, map: &SlotMap<'_>, spare: usize) -> Self {
        let mut moved = Self {
            widths: self.widths,
            columns: self.columns.permuted(map.order, self.widths, spare),
            order: (0..map.order.len() as Slot).collect(),
            terminals: self.terminals.iter().map(|&slot| map.to(slot)).collect(),
            ..Self::new(self.dim())
        };
        moved.by_id = moved.columns.ids.iter().copied().zip(0..).collect();
        moved.by_id.reserve(spare);
        moved.reserve_for(spare);
        moved
    }

    /// Makes room for the keys of `more` memories, if there is too little.
    pub(crate) fn reserve_for(&mut self, more: usize) {
        self.columns.keys.reserve_for(more * self.widths.dim);
    }

    /// Makes room for the keys of `more` memories.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.columns.keys.reserve(more * self.widths.dim);
        self.by_id.reserve(more);
    }

    /// Unit `rows` `(n, dim)` as memories and no more, their slots and ids in order.
    pub(crate) fn of_rows(rows: &[f32], dim: usize) -> Self {
        let mut memories = Self::new(dim);
        memories.reserve(rows.len() / dim);
        for (id, key) in rows.chunks_exact(dim).enumerate() {
            let new = NewMemory {
                key,
                terminal: false,
                merged: 1,
                clock: 0,
                text: None,
                provenance: None,
            };
            memories.add(id as i64, &new, &Channels::default());
        }
        memories
    }

    /// The latest stamp of a live memory's key.
    pub(crate) fn last_stamp(&self) -> Option<u64> {
        let stamps = self
            .order
            .iter()
            .map(|&slot| self.columns.stamps[slot as usize]);
        stamps.max()
    }

    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }

    pub(crate) fn dim(&self) -> usize {
        self.widths.dim
    }

    pub(crate) fn has_free_slots(&self) -> bool {
        !self.free.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Slots in use or free.
    pub(crate) fn slots(&self) -> usize {
        self.columns.ids.len()
    }

    /// The live slots by rising id.
    pub(crate) fn in_order(&self) -> &[Slot] {
        &self.order
    }

    pub(crate) fn slot(&self, id: i64) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    /// The slot of a memory that is known to be there, as terminals are while their channel is.
    pub(crate) fn held(&self, id: i64) -> Slot {
        self.by_id[&id]
    }

    pub(crate) fn id(&self, slot: Slot) -> i64 {
        self.columns.ids[slot as usize]
    }

    pub(crate) fn key(&self, slot: Slot) -> &[f32] {
        &self.columns.keys[linalg::row(slot, self.widths.dim)]
    }

    pub(crate) fn drives(&self, slot: Slot) -> &[f32] {
        &self.columns.drives[linalg::row(slot, self.widths.channels)]
    }

    /// The live memories that are not terminals, by rising id.
    pub(crate) fn ordinary(&self) -> impl Iterator<Item = Slot> + '_ {
        self.order
            .iter()
            .copied()
            .filter(|&slot| !self.columns.terminal[slot as usize])
    }

    /// How many memories are not terminals.
    pub(crate) fn ordinary_count(&self) -> usize {
        self.order.len() - self.terminals.len()
    }

    /// The `rank`-th of the memories that are not terminals, by rising id.
    pub(crate) fn nth_ordinary(&self, mut rank: usize) -> Slot {
        for &terminal in &self.terminals {
            let id = self.id(terminal);
            if self.order.partition_point(|&slot| self.id(slot) < id) <= rank {
                rank += 1;
            }
        }
        self.order[rank]
    }

    /// Adds a memory of the given id, which must exceed every id before it.
    pub(crate) fn add(&mut self, id: i64, new: &NewMemory<'_>, channels: &Channels) -> Slot {
        debug_assert!(self.order.last().is_none_or(|&last| self.id(last) < id));
        let slot = self.free.pop_first().unwrap_or_else(|| {
            self.columns.push(self.widths);
            (self.columns.ids.len() - 1) as Slot
        });
        let at = slot as usize;
        self.columns.ids[at] = id;
        self.columns.keys[linalg::row(slot, self.widths.dim)].copy_from_slice(new.key);
        self.columns.terminal[at] = new.terminal;
        if new.terminal {
            self.terminals.push(slot);
        }
        self.columns.merged[at] = new.merged;
        self.columns.written[at] = new.clock;
        self.columns.texts[at] = new.text.map(Into::into);
        self.columns.provenance[at] = new.provenance.into_iter().collect();
        self.order.push(slot);
        self.by_id.insert(id, slot);
        self.columns.stamps[at] = NEXT_STAMP.fetch_add(1, Ordering::Relaxed);
        self.refresh_drives(slot, channels);
        slot
    }

    /// Frees the slot. The graph and the values must have forgotten it.
    pub(crate) fn remove(&mut self, slot: Slot) {
        let at = slot as usize;
        self.by_id.remove(&self.columns.ids[at]);
        let rank = self
            .order
            .binary_search_by_key(&self.columns.ids[at], |&s| self.columns.ids[s as usize])
            .expect("a live slot is in the order");
        self.order.remove(rank);
        self.columns.reset(slot, self.widths);
        self.terminals.retain(|&terminal| terminal != slot);
        self.free.insert(slot);
    }

    /// Merges a step into a memory: it counts, and the key drifts towards it unless the memory is a terminal.
    /// Returns whether the key is another.
    pub(crate) fn merge(
        &mut self,
        slot: Slot,
        x: &[f32],
        provenance: Provenance,
        clock: u64,
    ) -> bool {
        let at = slot as usize;
        self.columns.merged[at] += 1;
        self.columns.written[at] = clock;
        self.columns.provenance[at].push(provenance);
        let drifts = !self.columns.terminal[at];
        if drifts {
            self.drift(slot, x);
        }
        drifts
    }

    /// Oja's rule: `k ← normalise(k + (x − ⟨x,k⟩k)/m)`, with `m` already counting `x` (Oja 1982).
    fn drift(&mut self, slot: Slot, x: &[f32]) {
        let at = slot as usize;
        let m = self.columns.merged[at] as f32;
        let key = &mut self.columns.keys[linalg::row(slot, self.widths.dim)];
        let s = linalg::dot(x, key);
        let moved: Vec<f32> = key
            .iter()
            .zip(x)
            .map(|(&k, &x)| k + (x - s * k) / m)
            .collect();
        // x and k are unit vectors and m ≥ 2, so the sum is only ever zero by accident: stay then.
        let _ = normalise(&moved, key);
        self.columns.stamps[at] = NEXT_STAMP.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes over where a memory of a snapshot came from.
    pub(crate) fn set_provenance(&mut self, slot: Slot, provenance: Vec<Provenance>) {
        self.columns.provenance[slot as usize] = provenance;
    }

    /// Takes over the observed drives of a snapshot, `(slot, Qs)`; no slot may be free.
    pub(crate) fn set_observed(&mut self, sums: Vec<f64>, counts: Vec<u32>) {
        debug_assert_eq!(sums.len(), self.slots() * self.widths.scalars);
        (self.columns.drive_sums, self.columns.drive_counts) = (sums, counts);
    }

    pub(crate) fn observe_drive(&mut self, slot: Slot, scalar: usize, drive: f32) {
        let at = slot as usize * self.widths.scalars + scalar;
        self.columns.drive_sums[at] += f64::from(drive);
        self.columns.drive_counts[at] += 1;
    }

    /// Derives the drives of a memory anew, after its key or its observations changed.
    pub(crate) fn refresh_drives(&mut self, slot: Slot, channels: &Channels) {
        for q in 0..channels.len() {
            self.refresh_drive(slot, q, channels);
        }
    }

    fn refresh_drive(&mut self, slot: Slot, q: usize, channels: &Channels) {
        let channel = &channels.as_slice()[q];
        let drive = match &channel.kind {
            Kind::Terminal { memory } => {
                let terminal = self.held(*memory);
                channel.drive(linalg::dot(self.key(slot), self.key(terminal)))
            }
            Kind::Scalar => {
                let scalar = channels.scalar_column(q).expect("the channel is scalar");
                let at = slot as usize * self.widths.scalars + scalar;
                match self.columns.drive_counts[at] {
                    0 => 0.0,
                    n => (self.columns.drive_sums[at] / f64::from(n)) as f32,
                }
            }
        };
        self.columns.drives[slot as usize * self.widths.channels + q] = drive;
    }

    /// Makes room for the last of `channels`, just added, and derives its drives.
    pub(crate) fn add_column(&mut self, channels: &Channels) {
        let q = channels.len() - 1;
        widen(&mut self.columns.drives, self.widths.channels, 0.0);
        self.widths.channels += 1;
        if channels.as_slice()[q].is_scalar() {
            widen(&mut self.columns.drive_sums, self.widths.scalars, 0.0);
            widen(&mut self.columns.drive_counts, self.widths.scalars, 0);
            if self.widths.scalars == 0 {
                self.columns.drive_sums.resize(self.slots(), 0.0);
                self.columns.drive_counts.resize(self.slots(), 0);
            }
            self.widths.scalars += 1;
        }
        if q == 0 {
            self.columns.drives.resize(self.slots(), 0.0);
        }
        for at in 0..self.order.len() {
            self.refresh_drive(self.order[at], q, channels);
        }
    }

    /// Forgets column `q` of the drives and, if it was scalar, that column of the observations.
    pub(crate) fn remove_column(&mut self, q: usize, scalar: Option<usize>) {
        narrow(&mut self.columns.drives, self.widths.channels, q);
        self.widths.channels -= 1;
        if let Some(scalar) = scalar {
            narrow(&mut self.columns.drive_sums, self.widths.scalars, scalar);
            narrow(&mut self.columns.drive_counts, self.widths.scalars, scalar);
            self.widths.scalars -= 1;
        }
    }
}

/// Appends a column to a row-major matrix of `columns` ≥ 1 columns.
pub(crate) fn widen<T: Copy>(matrix: &mut Vec<T>, columns: usize, fill: T) {
    if columns == 0 {
        return;
    }
    *matrix = matrix
        .chunks_exact(columns)
        .flat_map(|row| row.iter().copied().chain([fill]))
        .collect();
}

/// Removes column `gone` of a row-major matrix.
pub(crate) fn narrow<T: Copy>(matrix: &mut Vec<T>, columns: usize, gone: usize) {
    let mut at = 0;
    matrix.retain(|_| {
        let keep = at % columns != gone;
        at += 1;
        keep
    });
}
