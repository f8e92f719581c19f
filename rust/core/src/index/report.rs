//! Which passes answered the queries of a search.

/// Which passes answered the queries of a search. They never change what is found, only the time it takes.
///
/// It depends on the data and on the instruction set, and not on the number of threads, except for queries with
/// too many candidates.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SearchReport {
    /// The kernel of the int8 pass, as `"avx512-vnni"`, if this processor has one.
    pub kernel: Option<&'static str>,
    /// Queries answered through the blocks of a partition.
    pub blocks: usize,
    /// Queries answered through int8 codes of all memories.
    pub int8: usize,
    /// Queries answered through a bf16 pass over the keys.
    pub bf16: usize,
    /// Queries answered through a fused f32 pass over the keys.
    pub f32: usize,
    /// Queries compared with every memory.
    pub plain: usize,
    /// Blocks looked into, in all.
    pub probed: usize,
    /// Similarities computed in the canonical arithmetic, in all.
    pub compared: usize,
}

impl SearchReport {
    pub(crate) fn of(kernel: Option<&'static str>) -> Self {
        Self {
            kernel,
            ..Self::default()
        }
    }

    /// Counts a query by the name of the pass that settled it.
    pub(crate) fn count(&mut self, pass: &str) {
        match pass {
            "blocks" => self.blocks += 1,
            "int8" => self.int8 += 1,
            "bf16" => self.bf16 += 1,
            "f32" => self.f32 += 1,
            _ => self.plain += 1,
        }
    }
}
