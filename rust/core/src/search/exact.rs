//! Exact top-k: a certified first pass where the processor has one, a plain scan elsewhere.
//!
//! Both give the same ids and the same canonical similarities, bit for bit: the first pass only decides
//! which memories are worth the canonical arithmetic.

use std::ops::Range;

use crate::error::Result;
use crate::memory::{Memories, Slot};
use crate::parallel;
use crate::search::topk::{Hit, TopK};
use crate::simd;

#[cfg(target_arch = "x86_64")]
use crate::search::{candidates::Candidates, query::Query, vnni};

/// Memories below which a first pass does not pay.
#[cfg(target_arch = "x86_64")]
const FEW: usize = 512;
/// Queries of one piece of parallel work: whole tiles, and enough of them to reuse what lies in the cache.
const CHUNK: usize = 48;

/// The `k` memories of largest inner product with each row of `queries`, best first, ties by lower id.
pub(crate) fn nearest(
    memories: &Memories,
    queries: &[f32],
    k: usize,
    threads: Option<usize>,
) -> Result<Vec<Vec<Hit>>> {
    let dim = memories.dim();
    let n = queries.len() / dim;
    let row = |i: usize| &queries[i * dim..(i + 1) * dim];
    let threads = parallel::worth_waking(threads, queries.len() * memories.len());
    #[cfg(target_arch = "x86_64")]
    if let Some(codes) = memories.codes()
        && memories.len() >= FEW
        && k <= memories.len() / 8
    {
        return certified(memories, codes, n, row, k, threads);
    }
    parallel::map(n, threads, |i| scan(memories, row(i), k))
}

/// Every memory in the canonical arithmetic.
fn scan(memories: &Memories, x: &[f32], k: usize) -> Vec<Hit> {
    rescore(memories, x, k, memories.in_order().iter().copied())
}

fn rescore(
    memories: &Memories,
    x: &[f32],
    k: usize,
    slots: impl Iterator<Item = Slot>,
) -> Vec<Hit> {
    let mut top = TopK::new(k);
    for slot in slots {
        top.offer(Hit {
            slot,
            id: memories.id(slot),
            similarity: simd::dot(x, memories.key(slot)),
        });
    }
    top.into_sorted()
}

/// First pass, certificate, second pass.
#[cfg(target_arch = "x86_64")]
fn certified<'a>(
    memories: &Memories,
    codes: &crate::search::codes::Codes,
    n: usize,
    row: impl Fn(usize) -> &'a [f32] + Sync,
    k: usize,
    threads: Option<usize>,
) -> Result<Vec<Vec<Hit>>> {
    let most = (memories.len() / 8).max(4 * k);
    let panels = codes.panels();
    // Few queries: the parts are of the store. Many: of the queries, each part passing over the whole store.
    let workers = threads.unwrap_or_else(parallel::num_threads);
    let parts = if n < CHUNK && workers > 1 {
        (2 * workers).min(panels)
    } else {
        1
    };
    let pieces = n.div_ceil(CHUNK);
    let part_of =
        |part: usize| -> Range<usize> { panels * part / parts..panels * (part + 1) / parts };
    let mut found = parallel::map(pieces * parts, threads, |task| {
        let (piece, part) = (task / parts, task % parts);
        let rows = piece * CHUNK..((piece + 1) * CHUNK).min(n);
        let queries: Vec<Query> = rows.map(|i| Query::of(row(i))).collect();
        let mut candidates = vec![Candidates::new(k, most); queries.len()];
        vnni::scan(codes, part_of(part), &queries, &mut candidates);
        candidates
    })?
    .into_iter();
    let mut candidates: Vec<Candidates> = Vec::with_capacity(n);
    for _ in 0..pieces {
        let mut whole = found.next().unwrap_or_default();
        for _ in 1..parts {
            for (mine, other) in whole.iter_mut().zip(found.next().unwrap_or_default()) {
                mine.join(other);
            }
        }
        candidates.append(&mut whole);
    }
    parallel::map(n, threads, |i| match candidates[i].left() {
        Some(slots) => rescore(memories, row(i), k, slots.into_iter()),
        None => scan(memories, row(i), k),
    })
}
