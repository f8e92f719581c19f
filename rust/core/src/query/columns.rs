//! The columns of the memories as arrays, by rising id.

use crate::base::{HeapSize, Slot};
use crate::error::{Error, Result};
use crate::store::Store;

impl Store {
    fn column<T>(&self, of: impl Fn(Slot) -> T) -> Vec<T> {
        self.memories
            .in_order()
            .iter()
            .map(|&slot| of(slot))
            .collect()
    }

    fn rows<'a>(&'a self, width: usize, of: impl Fn(Slot) -> &'a [f32]) -> Vec<f32> {
        let mut rows = Vec::with_capacity(self.len() * width);
        for &slot in self.memories.in_order() {
            rows.extend_from_slice(of(slot));
        }
        rows
    }

    /// `(N,)`.
    #[must_use]
    pub fn ids(&self) -> Vec<i64> {
        self.column(|slot| self.memories.id(slot))
    }

    /// `(N, d)`.
    #[must_use]
    pub fn keys(&self) -> Vec<f32> {
        self.rows(self.memories.dim(), |slot| self.memories.key(slot))
    }

    /// The keys of the memories `ids`, `(len, d)`.
    ///
    /// # Errors
    /// [`Error::Unknown`] if there is no such memory.
    pub fn keys_of(&self, ids: &[i64]) -> Result<Vec<f32>> {
        let mut keys = Vec::with_capacity(ids.len() * self.memories.dim());
        for &id in ids {
            let slot = self.memories.slot(id);
            let slot = slot.ok_or_else(|| Error::unknown("memory", id.to_string()))?;
            keys.extend_from_slice(self.memories.key(slot));
        }
        Ok(keys)
    }

    /// `(N,)`: a number for each key that is another whenever the key is another, unique in the process. A
    /// copy of the keys compares it to see which to copy again.
    #[must_use]
    pub fn key_stamps(&self) -> Vec<u64> {
        self.column(|slot| self.memories.columns().stamps[slot as usize])
    }

    /// `v`, `(N, Q)`.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        self.rows(self.channels.len(), |slot| self.values.of(slot))
    }

    /// `r`, `(N, Q)`.
    #[must_use]
    pub fn drives(&self) -> Vec<f32> {
        self.rows(self.channels.len(), |slot| self.memories.drives(slot))
    }

    /// `m_i`, `(N,)`.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        self.column(|slot| self.memories.columns().merged[slot as usize])
    }

    /// `n_i`, `(N,)`.
    #[must_use]
    pub fn mass(&self) -> Vec<f64> {
        self.column(|slot| self.graph.mass(slot))
    }

    /// `(N,)`.
    #[must_use]
    pub fn is_terminal(&self) -> Vec<bool> {
        self.column(|slot| self.memories.columns().terminal[slot as usize])
    }

    /// `(N,)`: the text of the step that made each memory, where there was one.
    #[must_use]
    pub fn texts(&self) -> Vec<Option<String>> {
        let text = |slot| self.memories.columns().texts[slot as usize].as_deref();
        self.column(|slot| text(slot).map(str::to_owned))
    }

    /// `b`, `(Q,)`: what the ordinary memory is worth.
    #[must_use]
    pub fn baseline(&self) -> Vec<f32> {
        self.values.baseline.clone()
    }

    /// The associations as `(source id, target id, P)`, by rising source, then target.
    #[must_use]
    pub fn edges(&self) -> (Vec<i64>, Vec<i64>, Vec<f64>) {
        let n = self.graph.edges();
        let (mut sources, mut targets, mut weights) = (
            Vec::with_capacity(n),
            Vec::with_capacity(n),
            Vec::with_capacity(n),
        );
        for &slot in self.memories.in_order() {
            for (successor, p) in self.graph.successors(slot) {
                sources.push(self.memories.id(slot));
                targets.push(self.memories.id(successor));
                weights.push(p);
            }
        }
        (sources, targets, weights)
    }

    /// How many associations there are, and the bytes they take, both ways.
    #[must_use]
    pub fn associations(&self) -> (usize, usize) {
        (self.graph.edges(), self.graph.heap_size())
    }

    /// The text of a memory.
    #[must_use]
    pub fn text(&self, id: i64) -> Option<&str> {
        let slot = self.memories.slot(id)?;
        self.memories.columns().texts[slot as usize].as_deref()
    }
}
