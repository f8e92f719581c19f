//! The thread pool: built lazily, sized by the caller, rebuilt after a fork.
//!
//! Work is split by item and each item's result depends on that item alone, so the number of threads
//! never changes a result.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};
use crate::interrupt;
use crate::simd::fpenv;

/// About so much work passes between two looks at the interrupt.
const SLICE: Duration = Duration::from_millis(10);

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// The pools by size, and the process that built them: threads do not survive a fork.
struct Pools {
    process: u32,
    by_size: BTreeMap<usize, Arc<ThreadPool>>,
}

static POOLS: Mutex<Pools> = Mutex::new(Pools {
    process: 0,
    by_size: BTreeMap::new(),
});

/// Sets how many threads a call uses unless it says otherwise.
///
/// # Errors
/// [`Error::Invalid`] for 0 or more than 1024.
pub fn set_num_threads(n: usize) -> Result<()> {
    check(n)?;
    THREADS.store(n, Ordering::Relaxed);
    Ok(())
}

/// How many threads a call uses unless it says otherwise; all processors by default.
#[must_use]
pub fn num_threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        n => n,
    }
}

fn check(n: usize) -> Result<()> {
    if (1..=1024).contains(&n) {
        Ok(())
    } else {
        Err(Error::invalid(
            "num_threads",
            format!("{n} is not in [1, 1024]"),
        ))
    }
}

/// The threads worth waking for `work` multiplications: one where it is done sooner than they are awake.
pub(crate) fn worth_waking(threads: Option<usize>, work: usize) -> Option<usize> {
    /// About a tenth of a millisecond's worth.
    const LITTLE: usize = 1 << 20;
    if work < LITTLE && threads.is_none_or(|n| n > 0) {
        Some(1)
    } else {
        threads
    }
}

/// `f(0) … f(n − 1)` in order, computed on `threads` threads (the default number if `None`).
///
/// # Errors
/// [`Error::Invalid`] for a bad number of threads, [`Error::Interrupted`] if the caller had enough ([`crate::interruptible`]).
pub(crate) fn map<T: Send>(
    n: usize,
    threads: Option<usize>,
    f: impl Fn(usize) -> T + Sync + Send,
) -> Result<Vec<T>> {
    if let Some(threads) = threads {
        check(threads)?;
    }
    let threads = threads.unwrap_or_else(num_threads).min(n.max(1));
    let pool = (threads > 1).then(|| pool(threads));
    // Where the system gives no threads, this one does it all: a write must not fail halfway for that.
    let Some(Ok(pool)) = pool else {
        return (0..n).map(|i| interrupt::check().map(|()| f(i))).collect();
    };
    if !interrupt::possible() {
        return Ok(pool.install(|| (0..n).into_par_iter().map(f).collect()));
    }
    // In slices of some milliseconds, and on this thread the question between them.
    let mut done = Vec::with_capacity(n);
    let mut slice = threads;
    while done.len() < n {
        interrupt::check()?;
        let begin = Instant::now();
        let rows = done.len()..(done.len() + slice).min(n);
        pool.install(|| done.par_extend(rows.into_par_iter().map(&f)));
        let took = begin.elapsed();
        if took < SLICE / 2 {
            slice *= 2;
        } else if took > 2 * SLICE {
            slice = (slice / 2).max(threads);
        }
    }
    Ok(done)
}

fn pool(size: usize) -> Result<Arc<ThreadPool>> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if pools.process != process {
        // After a fork the old pools have no threads: joining them would wait for ever.
        std::mem::forget(std::mem::take(&mut pools.by_size));
        pools.process = process;
    }
    if let Some(pool) = pools.by_size.get(&size) {
        return Ok(Arc::clone(pool));
    }
    let pool = ThreadPoolBuilder::new()
        .num_threads(size)
        .thread_name(|i| format!("sharpwave-{i}"))
        .start_handler(|_| fpenv::pin_thread())
        .build()
        .map_err(|error| Error::Io(std::io::Error::other(error)))?;
    let pool = Arc::new(pool);
    pools.by_size.insert(size, Arc::clone(&pool));
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order() {
        for threads in [1, 2, 3, 7] {
            let squares = map(100, Some(threads), |i| i * i).unwrap();
            assert!(squares.iter().enumerate().all(|(i, x)| *x == i * i));
        }
        assert!(map(1, Some(0), |i| i).is_err());
    }
}
