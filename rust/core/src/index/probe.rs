//! The passes one by one, for benchmarks and tests.

use crate::error::Result;
use crate::index::kernels::float;
use crate::index::kernels::float::FloatKernel;
use crate::index::kernels::int8::{CHUNK, Kernel};
use crate::index::{Candidates, Codes};
use crate::memory::{Memories, normalised_rows};

/// Memories to search with a pass of choice, on one thread.
pub struct Probe {
    memories: Memories,
    codes: Codes,
}

impl Probe {
    /// Of rows of `dim` numbers.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for bad rows.
    pub fn new(rows: &[f32], dim: usize) -> Result<Self> {
        let rows = normalised_rows("rows", rows, dim)?;
        let (memories, mut codes) = (Memories::of_rows(&rows, dim), Codes::new(dim));
        for &slot in memories.in_order() {
            codes.set(slot, memories.key(slot));
        }
        Ok(Self { memories, codes })
    }

    /// The passes that this processor can run.
    #[must_use]
    pub fn passes() -> Vec<&'static str> {
        let kernels = Kernel::available().map(|kernel| kernel.name);
        kernels
            .chain(FloatKernel::available().map(|kernel| kernel.name))
            .collect()
    }

    /// How many candidates `pass` leaves to each query.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for bad queries.
    ///
    /// # Panics
    /// If there is no such pass.
    pub fn candidates(&self, pass: &str, queries: &[f32], k: usize) -> Result<Vec<usize>> {
        let dim = self.memories.dim();
        let queries = normalised_rows("queries", queries, dim)?;
        let kernel = Kernel::available().find(|kernel| kernel.name == pass);
        let chunk = kernel.map_or(float::CHUNK, |_| CHUNK);
        let mut left = Vec::new();
        for chunk in queries.chunks(chunk * dim) {
            let rows: Vec<&[f32]> = chunk.chunks_exact(dim).collect();
            let mut found = vec![Candidates::new(k, self.memories.len() + 1); rows.len()];
            if let Some(kernel) = kernel {
                let queries: Vec<_> = rows.iter().map(|row| kernel.query(row)).collect();
                let tiles = kernel.tiles(&queries);
                kernel.scan(&self.codes, 0..self.codes.panels(), &tiles, &mut found);
            } else {
                let kernel = FloatKernel::available()
                    .find(|kernel| kernel.name == pass)
                    .expect("such a pass");
                kernel.scan(&self.memories, 0..self.memories.slots(), &rows, &mut found);
            }
            left.extend(
                found
                    .into_iter()
                    .map(|found| found.left().map_or(0, |slots| slots.len())),
            );
        }
        Ok(left)
    }
}
