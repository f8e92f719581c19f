//! The columns of the memories.
//!
//! A memory keeps one *slot* for its life. A freed slot is used again, an id never is: everything that
//! depends on an order (ties, sums, digests) goes by id.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::copied;
use crate::base::discard::{self, Heavy};
use crate::base::heap::{heap_size, no_heap};
use crate::base::huge::Huge;
use crate::base::interrupt::Interrupt;
use crate::base::slot::Slot;
use crate::error::Result;
use crate::index::ivf::blocks::Partition;
use crate::index::quantize::Codes;
use crate::index::uses_codes;
use crate::linalg;
use crate::memory::channels::{Channels, Kind};
use crate::memory::episodes::normalise;
use crate::memory::slot_map::SlotMap;

/// Memories between two looks at the interrupt.
const PIECE: usize = 1 << 14;

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
pub(crate) struct Birth<'a> {
    pub(crate) key: &'a [f32],
    pub(crate) terminal: bool,
    pub(crate) merged: u64,
    pub(crate) clock: u64,
    pub(crate) text: Option<&'a str>,
    pub(crate) provenance: Option<Provenance>,
}

/// What merging a step into a memory changes, as it was before.
pub(crate) struct Before {
    key: Vec<f32>,
    stamp: u64,
    merged: u64,
    written: u64,
    /// How much there was of it.
    provenance: usize,
    drive_sums: Vec<f64>,
    drive_counts: Vec<u32>,
}

/// The next stamp of a key: unique in the process, so that one who copied keys knows which of them changed, whatever
/// was cloned, rebuilt or put back meanwhile. No result depends on it.
static NEXT_STAMP: AtomicU64 = AtomicU64::new(0);

/// Struct of arrays over slots.
#[derive(Clone, Debug)]
pub(crate) struct Memories {
    dim: usize,
    /// −1 where the slot is free.
    pub(crate) ids: Vec<i64>,
    pub(crate) keys: Huge<f32>,
    /// Another number whenever the key becomes another; never stored.
    pub(crate) stamps: Vec<u64>,
    pub(crate) terminal: Vec<bool>,
    /// `m_i`: steps merged.
    pub(crate) merged: Vec<u64>,
    /// The clock (observed episodes) when last created or merged.
    pub(crate) written: Vec<u64>,
    pub(crate) texts: Vec<Option<Box<str>>>,
    pub(crate) provenance: Vec<Vec<Provenance>>,
    /// Sum and count of the observed scalar drives, `(slot, Qs)`.
    pub(crate) drive_sums: Vec<f64>,
    pub(crate) drive_counts: Vec<u32>,
    /// `r_iq`, `(slot, Q)`: derived from key, sums and counts; a cache, never stored.
    drives: Vec<f32>,
    channels: usize,
    scalars: usize,
    order: Vec<Slot>,
    /// The terminals by rising id: few, and asked for often.
    terminals: Vec<Slot>,
    by_id: HashMap<i64, Slot>,
    free: BTreeSet<Slot>,
    /// What the first pass of a search reads, where the processor has one; a cache, never stored.
    codes: Option<Codes>,
    /// The same memories in blocks, if somebody asked for it; an index, never stored.
    partition: Option<Box<Partition>>,
}

heap_size!(Memories {
    dim,
    ids,
    keys,
    stamps,
    terminal,
    merged,
    written,
    texts,
    provenance,
    drive_sums,
    drive_counts,
    drives,
    channels,
    scalars,
    order,
    terminals,
    by_id,
    free,
    codes,
    partition,
});

impl Memories {
    pub(crate) fn new(dim: usize) -> Self {
        Self {
            dim,
            ids: Vec::new(),
            keys: Huge::default(),
            stamps: Vec::new(),
            terminal: Vec::new(),
            merged: Vec::new(),
            written: Vec::new(),
            texts: Vec::new(),
            provenance: Vec::new(),
            drive_sums: Vec::new(),
            drive_counts: Vec::new(),
            drives: Vec::new(),
            channels: 0,
            scalars: 0,
            order: Vec::new(),
            terminals: Vec::new(),
            by_id: HashMap::new(),
            free: BTreeSet::new(),
            codes: uses_codes(dim).then(|| Codes::new(dim)),
            partition: None,
        }
    }

    /// A copy, unless that is given up.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub(crate) fn copied(&self, interrupt: Interrupt<'_>) -> Result<Self> {
        let codes = self.codes.as_ref().map(|codes| codes.copied(interrupt));
        let partition = self.partition.as_ref().map(|p| p.copied(interrupt));
        Ok(Self {
            dim: self.dim,
            ids: copied::plain(&self.ids, interrupt)?,
            keys: self.keys.copied(interrupt)?,
            stamps: copied::plain(&self.stamps, interrupt)?,
            terminal: copied::plain(&self.terminal, interrupt)?,
            merged: copied::plain(&self.merged, interrupt)?,
            written: copied::plain(&self.written, interrupt)?,
            texts: copied::owning(&self.texts, interrupt)?,
            provenance: copied::owning(&self.provenance, interrupt)?,
            drive_sums: copied::plain(&self.drive_sums, interrupt)?,
            drive_counts: copied::plain(&self.drive_counts, interrupt)?,
            drives: copied::plain(&self.drives, interrupt)?,
            channels: self.channels,
            scalars: self.scalars,
            order: copied::plain(&self.order, interrupt)?,
            terminals: self.terminals.clone(),
            by_id: self.by_id.clone(),
            free: self.free.clone(),
            codes: codes.transpose()?,
            partition: partition.transpose()?.map(Box::new),
        })
    }

    /// The live memories in other slots, no slot free and nothing in blocks, unless that is given up.
    ///
    /// There is room for as many more as there are slots now and an eighth: what comes next must not copy it all again.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub(crate) fn moved(&self, moves: &SlotMap<'_>, interrupt: Interrupt<'_>) -> Result<Self> {
        let (order, n) = (moves.order, moves.order.len());
        let spare = self.slots() - n + n / 8;
        let mut moved = Heavy::new(Self::new(self.dim));
        moved.encode_later();
        moved.keys.reserve((n + spare) * self.dim);
        for &slot in order {
            copied::ask(interrupt)?;
            moved.keys.append(self.key(slot));
        }
        moved.ids = copied::rows(&self.ids, 1, order, interrupt)?;
        moved.stamps = copied::rows(&self.stamps, 1, order, interrupt)?;
        moved.terminal = copied::rows(&self.terminal, 1, order, interrupt)?;
        moved.merged = copied::rows(&self.merged, 1, order, interrupt)?;
        moved.written = copied::rows(&self.written, 1, order, interrupt)?;
        let texts = order.iter().map(|&slot| self.texts[slot as usize].clone());
        moved.texts = copied::collected(texts, interrupt)?;
        let provenance = order
            .iter()
            .map(|&slot| self.provenance[slot as usize].clone());
        moved.provenance = copied::collected(provenance, interrupt)?;
        moved.drive_sums = copied::rows(&self.drive_sums, self.scalars, order, interrupt)?;
        moved.drive_counts = copied::rows(&self.drive_counts, self.scalars, order, interrupt)?;
        moved.drives = copied::rows(&self.drives, self.channels, order, interrupt)?;
        (moved.channels, moved.scalars) = (self.channels, self.scalars);
        moved.order = (0..n as Slot).collect();
        moved.terminals = self.terminals.iter().map(|&slot| moves.to(slot)).collect();
        moved.by_id.reserve(n + spare);
        for slot in 0..n {
            if slot % PIECE == 0 {
                copied::ask(interrupt)?;
            }
            let id = moved.ids[slot];
            moved.by_id.insert(id, slot as Slot);
        }
        moved.encode_all()?;
        moved.reserve_for(spare, interrupt)?;
        Ok(moved.keep())
    }

    /// Makes room for the keys of `more` memories, if there is too little, unless that is given up.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub(crate) fn reserve_for(&mut self, more: usize, interrupt: Interrupt<'_>) -> Result<()> {
        self.keys.reserve_for(more * self.dim, interrupt)?;
        match &mut self.codes {
            Some(codes) => codes.reserve_for(more, interrupt),
            None => Ok(()),
        }
    }

    /// Makes room for the keys of `more` memories.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.keys.reserve(more * self.dim);
        self.by_id.reserve(more);
        if let Some(codes) = &mut self.codes {
            codes.reserve(more);
        }
    }

    /// Unit `rows` `(n, dim)` as memories and no more, their slots and ids in order.
    pub(crate) fn of_rows(rows: &[f32], dim: usize) -> Self {
        let mut memories = Self::new(dim);
        memories.reserve(rows.len() / dim);
        for (id, key) in rows.chunks_exact(dim).enumerate() {
            let birth = Birth {
                key,
                terminal: false,
                merged: 1,
                clock: 0,
                text: None,
                provenance: None,
            };
            memories.add(id as i64, &birth, &Channels::default());
        }
        memories
    }

    /// The latest stamp of a live memory's key.
    pub(crate) fn last_stamp(&self) -> Option<u64> {
        let stamps = self.order.iter().map(|&slot| self.stamps[slot as usize]);
        stamps.max()
    }

    pub(crate) fn partition(&self) -> Option<&Partition> {
        self.partition.as_deref()
    }

    /// Puts a partition of these very memories in the place of the one before.
    pub(crate) fn adopt(&mut self, partition: Partition) {
        self.partition = Some(Box::new(partition));
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    pub(crate) fn codes(&self) -> Option<&Codes> {
        self.codes.as_ref()
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Slots in use or free.
    pub(crate) fn slots(&self) -> usize {
        self.ids.len()
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
        self.ids[slot as usize]
    }

    pub(crate) fn key(&self, slot: Slot) -> &[f32] {
        let at = slot as usize * self.dim;
        &self.keys[at..at + self.dim]
    }

    pub(crate) fn drives(&self, slot: Slot) -> &[f32] {
        let at = slot as usize * self.channels;
        &self.drives[at..at + self.channels]
    }

    /// The live memories that are not terminals, by rising id.
    pub(crate) fn ordinary(&self) -> impl Iterator<Item = Slot> + '_ {
        self.order
            .iter()
            .copied()
            .filter(|&slot| !self.terminal[slot as usize])
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
    pub(crate) fn add(&mut self, id: i64, birth: &Birth<'_>, channels: &Channels) -> Slot {
        debug_assert!(self.order.last().is_none_or(|&last| self.id(last) < id));
        let slot = self.free.pop_first().unwrap_or_else(|| {
            self.ids.push(-1);
            self.keys.extend(self.dim, 0.0);
            self.stamps.push(0);
            self.terminal.push(false);
            self.merged.push(0);
            self.written.push(0);
            self.texts.push(None);
            self.provenance.push(Vec::new());
            self.drive_sums
                .resize(self.drive_sums.len() + self.scalars, 0.0);
            self.drive_counts
                .resize(self.drive_counts.len() + self.scalars, 0);
            self.drives.resize(self.drives.len() + self.channels, 0.0);
            (self.ids.len() - 1) as Slot
        });
        let at = slot as usize;
        self.ids[at] = id;
        self.keys[at * self.dim..(at + 1) * self.dim].copy_from_slice(birth.key);
        self.terminal[at] = birth.terminal;
        if birth.terminal {
            self.terminals.push(slot);
        }
        self.merged[at] = birth.merged;
        self.written[at] = birth.clock;
        self.texts[at] = birth.text.map(Into::into);
        self.provenance[at] = birth.provenance.into_iter().collect();
        self.order.push(slot);
        self.by_id.insert(id, slot);
        self.stamps[at] = NEXT_STAMP.fetch_add(1, Ordering::Relaxed);
        self.encode(slot);
        self.refresh_drives(slot, channels);
        slot
    }

    /// Takes back the latest of the memories, from slot `from` on, which were all added where no slot was before: the
    /// columns end there again. The graph and the values must hold nothing of them.
    pub(crate) fn truncate(&mut self, from: usize) {
        let since = self.order.len() - (self.slots() - from);
        let gone = self.order.split_off(since);
        debug_assert!(gone.iter().all(|&slot| slot as usize >= from));
        if gone.len() > self.order.len() / 4 {
            self.by_id.retain(|_, slot| (*slot as usize) < from);
        } else {
            for &slot in &gone {
                self.by_id.remove(&self.ids[slot as usize]);
            }
        }
        for slot in gone {
            if let Some(codes) = &mut self.codes {
                codes.clear(slot);
            }
            if let Some(partition) = &mut self.partition {
                partition.clear(slot);
            }
        }
        self.ids.truncate(from);
        self.keys.truncate(from * self.dim);
        self.stamps.truncate(from);
        self.terminal.truncate(from);
        self.merged.truncate(from);
        self.written.truncate(from);
        discard::later((self.texts.split_off(from), self.provenance.split_off(from)));
        self.drive_sums.truncate(from * self.scalars);
        self.drive_counts.truncate(from * self.scalars);
        self.drives.truncate(from * self.channels);
    }

    /// Adds no codes until [`Memories::encode_all`], which makes them for many memories sooner than one by one.
    pub(crate) fn encode_later(&mut self) {
        self.codes = None;
    }

    /// The codes of all memories, on all threads; no slot may be free.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub(crate) fn encode_all(&mut self) -> Result<()> {
        debug_assert!(self.free.is_empty());
        if uses_codes(self.dim) {
            self.codes = Some(Codes::of_rows(&self.keys, self.dim)?);
        }
        Ok(())
    }

    /// Frees the slot. The graph and the values must have forgotten it.
    pub(crate) fn remove(&mut self, slot: Slot) {
        let at = slot as usize;
        self.by_id.remove(&self.ids[at]);
        let rank = self
            .order
            .binary_search_by_key(&self.ids[at], |&s| self.ids[s as usize])
            .expect("a live slot is in the order");
        self.order.remove(rank);
        self.ids[at] = -1;
        self.terminal[at] = false;
        self.terminals.retain(|&terminal| terminal != slot);
        self.texts[at] = None;
        self.provenance[at] = Vec::new();
        self.keys[at * self.dim..(at + 1) * self.dim].fill(0.0);
        self.drive_sums[at * self.scalars..(at + 1) * self.scalars].fill(0.0);
        self.drive_counts[at * self.scalars..(at + 1) * self.scalars].fill(0);
        self.free.insert(slot);
        if let Some(codes) = &mut self.codes {
            codes.clear(slot);
        }
        if let Some(partition) = &mut self.partition {
            partition.clear(slot);
        }
    }

    /// Oja's rule: `k ← normalise(k + (x − ⟨x,k⟩k)/m)`, with `m` already counting `x` (Oja 1982).
    pub(crate) fn drift(&mut self, slot: Slot, x: &[f32]) {
        let at = slot as usize;
        let m = self.merged[at] as f32;
        let key = &mut self.keys[at * self.dim..(at + 1) * self.dim];
        let s = linalg::dot(x, key);
        let moved: Vec<f32> = key
            .iter()
            .zip(x)
            .map(|(&k, &x)| k + (x - s * k) / m)
            .collect();
        // x and k are unit vectors and m ≥ 2, so the sum is only ever zero by accident: stay then.
        let _ = normalise(&moved, key);
        self.stamps[at] = NEXT_STAMP.fetch_add(1, Ordering::Relaxed);
        self.encode(slot);
    }

    /// A memory before a step is merged into it.
    pub(crate) fn before(&self, slot: Slot) -> Before {
        let at = slot as usize;
        let scalars = at * self.scalars..(at + 1) * self.scalars;
        Before {
            key: self.key(slot).to_vec(),
            stamp: self.stamps[at],
            merged: self.merged[at],
            written: self.written[at],
            provenance: self.provenance[at].len(),
            drive_sums: self.drive_sums[scalars.clone()].to_vec(),
            drive_counts: self.drive_counts[scalars].to_vec(),
        }
    }

    /// Makes a memory again what it was.
    pub(crate) fn put_back(&mut self, slot: Slot, before: &Before, channels: &Channels) {
        let at = slot as usize;
        let scalars = at * self.scalars..(at + 1) * self.scalars;
        self.keys[at * self.dim..(at + 1) * self.dim].copy_from_slice(&before.key);
        self.stamps[at] = before.stamp;
        self.merged[at] = before.merged;
        self.written[at] = before.written;
        self.provenance[at].truncate(before.provenance);
        self.drive_sums[scalars.clone()].copy_from_slice(&before.drive_sums);
        self.drive_counts[scalars].copy_from_slice(&before.drive_counts);
        self.encode(slot);
        self.refresh_drives(slot, channels);
    }

    /// Brings the code of a memory up to date with its key.
    fn encode(&mut self, slot: Slot) {
        let at = slot as usize;
        let key = &self.keys[at * self.dim..(at + 1) * self.dim];
        if let Some(codes) = &mut self.codes {
            codes.set(slot, key);
        }
        if let Some(partition) = &mut self.partition {
            partition.set(slot, key);
        }
    }

    pub(crate) fn observe_drive(&mut self, slot: Slot, scalar: usize, drive: f32) {
        let at = slot as usize * self.scalars + scalar;
        self.drive_sums[at] += f64::from(drive);
        self.drive_counts[at] += 1;
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
                let at = slot as usize * self.scalars + scalar;
                match self.drive_counts[at] {
                    0 => 0.0,
                    n => (self.drive_sums[at] / f64::from(n)) as f32,
                }
            }
        };
        self.drives[slot as usize * self.channels + q] = drive;
    }

    /// Makes room for the last of `channels`, just added, and derives its drives.
    pub(crate) fn add_column(&mut self, channels: &Channels) {
        let q = channels.len() - 1;
        widen(&mut self.drives, self.channels, 0.0);
        self.channels += 1;
        if channels.as_slice()[q].is_scalar() {
            widen(&mut self.drive_sums, self.scalars, 0.0);
            widen(&mut self.drive_counts, self.scalars, 0);
            if self.scalars == 0 {
                self.drive_sums.resize(self.slots(), 0.0);
                self.drive_counts.resize(self.slots(), 0);
            }
            self.scalars += 1;
        }
        if q == 0 {
            self.drives.resize(self.slots(), 0.0);
        }
        for at in 0..self.order.len() {
            self.refresh_drive(self.order[at], q, channels);
        }
    }

    /// Forgets column `q` of the drives and, if it was scalar, that column of the observations.
    pub(crate) fn remove_column(&mut self, q: usize, scalar: Option<usize>) {
        narrow(&mut self.drives, self.channels, q);
        self.channels -= 1;
        if let Some(scalar) = scalar {
            narrow(&mut self.drive_sums, self.scalars, scalar);
            narrow(&mut self.drive_counts, self.scalars, scalar);
            self.scalars -= 1;
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
