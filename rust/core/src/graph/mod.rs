//! Which memory leads to which: forward and reverse adjacency.
//!
//! Sums and masses are stored, `P_ij = C_ij / n_i` is derived. [`hebbian`] is the only writer of weights.
//!
//! An association takes 12 bytes forward (target and sum) and 4 in reverse, a memory 32 for its two rows and
//! its mass. Unused capacity adds at most two fifths of that, and 9 KB for every 1024 memories.

pub(crate) mod adjacency;
pub(crate) mod edge_statistics;
pub(crate) mod flow;
pub(crate) mod hebbian;
pub(crate) mod predict;

pub(crate) use edge_statistics::{EdgeRange, EdgeStatistics};
pub(crate) use flow::Flow;
pub(crate) use predict::{predict, successors};

use crate::base::{Slot, cancel, heap_sized};
use crate::error::Result;
use crate::linalg;
use crate::memory::{Memories, SlotMap, rows};
use adjacency::Rows;

/// One association `i → target`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Edge {
    pub(crate) target: Slot,
    /// `C_ij`.
    pub(crate) sum: f64,
}

/// The successors of one memory, by rising id, so that sums have one order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) targets: &'a [Slot],
    /// `C_ij`, beside the targets.
    pub(crate) sums: &'a [f64],
}

impl<'a> Row<'a> {
    pub(crate) fn len(self) -> usize {
        self.targets.len()
    }

    pub(crate) fn is_empty(self) -> bool {
        self.targets.is_empty()
    }

    pub(crate) fn edges(self) -> impl Iterator<Item = Edge> + Clone + 'a {
        let edge = |(&target, &sum): (&Slot, &f64)| Edge { target, sum };
        self.targets.iter().zip(self.sums).map(edge)
    }
}

heap_sized! {
    /// Rows by slot.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Graph {
        rows: Rows<f64>,
        /// `n_i`: association mass.
        mass: Vec<f64>,
        /// The sources of the edges into a slot, by rising id.
        sources: Rows<()>,
    }
}

impl Graph {
    /// The associations of the live memories in other slots.
    pub(crate) fn permuted(&self, map: &SlotMap<'_>) -> Self {
        Self {
            rows: self.rows.permuted(map),
            mass: rows(&self.mass, 1, map.order),
            sources: self.sources.permuted(map),
        }
    }

    #[inline]
    pub(crate) fn row(&self, slot: Slot) -> Row<'_> {
        let (targets, sums) = self.rows.row(slot);
        Row { targets, sums }
    }

    pub(crate) fn mass(&self, slot: Slot) -> f64 {
        self.mass[slot as usize]
    }

    /// `(j, P_ij)` of every successor of `slot`, by rising id of j.
    pub(crate) fn successors(&self, slot: Slot) -> impl Iterator<Item = (Slot, f64)> + '_ {
        let mass = self.mass(slot);
        self.row(slot)
            .edges()
            .map(move |edge| (edge.target, edge.sum / mass))
    }

    /// Prefetches the row of `slot`.
    pub(crate) fn prefetch(&self, slot: Slot) {
        let (targets, sums) = self.rows.row(slot);
        linalg::prefetch(targets);
        linalg::prefetch(sums);
    }

    pub(crate) fn predecessors(&self, slot: Slot) -> &[Slot] {
        self.sources.names(slot)
    }

    /// How many associations there are.
    pub(crate) fn edges(&self) -> usize {
        self.rows.entries()
    }

    /// Makes room for a memory in `slot`.
    pub(crate) fn ensure(&mut self, slot: Slot) {
        let n = slot as usize + 1;
        self.rows.ensure(slot);
        self.sources.ensure(slot);
        if self.mass.len() < n {
            self.mass.resize(n, 0.0);
        }
    }

    /// The graph of whole rows by slot, as a snapshot holds them: edges by rising id of their targets.
    pub(crate) fn restored(rows: &[(Vec<Edge>, f64)], memories: &Memories) -> Result<Self> {
        let lengths: Vec<u32> = rows.iter().map(|(row, _)| row.len() as u32).collect();
        let mut indegrees = vec![0u32; rows.len()];
        for edge in rows.iter().flat_map(|(row, _)| row) {
            indegrees[edge.target as usize] += 1;
        }
        let mut graph = Self {
            rows: Rows::with_room(&lengths, (0, 0.0)),
            mass: rows.iter().map(|&(_, mass)| mass).collect(),
            sources: Rows::with_room(&indegrees, (0, ())),
        };
        for &slot in memories.in_order() {
            cancel::check()?;
            for edge in &rows[slot as usize].0 {
                graph.rows.push(slot, edge.target, edge.sum);
                graph.sources.push(edge.target, slot, ());
            }
        }
        Ok(graph)
    }

    /// Every row replaced by one and the same, with unit mass: the "constant P" ablation.
    pub(crate) fn with_constant_rows(&self, memories: &Memories, max_out: usize) -> Result<Self> {
        let mut column = vec![0.0f64; self.mass.len()];
        let mut total = 0.0;
        for &slot in memories.in_order() {
            cancel::check()?;
            total += self.mass(slot);
            for edge in self.row(slot).edges() {
                column[edge.target as usize] += edge.sum;
            }
        }
        let mut row: Vec<hebbian::Outgoing> = memories
            .in_order()
            .iter()
            .filter(|&&slot| column[slot as usize] > 0.0)
            .map(|&target| hebbian::Outgoing {
                id: memories.id(target),
                target,
                sum: column[target as usize] / total,
            })
            .collect();
        hebbian::keep_largest(&mut row, max_out);
        let row = row.into_iter().map(|out| Edge {
            target: out.target,
            sum: out.sum,
        });
        let row: Vec<Edge> = row.collect();
        let mut rows = vec![(Vec::new(), 0.0); self.mass.len()];
        for &slot in memories.in_order() {
            cancel::check()?;
            let own = row.iter().copied().filter(|e| e.target != slot).collect();
            rows[slot as usize] = (own, 1.0);
        }
        Self::restored(&rows, memories)
    }
}
