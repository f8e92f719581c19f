//! Work shared out among threads: a caller, and the threads of a rayon pool that help it.
//!
//! Work is split by item and each item's result depends on that item alone, so the number of threads never changes a
//! result. The caller works too, and alone asks whether the call is cancelled.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::base::cancel::Cancel;
use crate::base::fpenv;
use crate::error::{Error, Result};

/// Shares of the work that a thread takes, if all are as quick: the last of them may have to be waited for.
const SHARES: usize = 16;
/// Multiplications of about a tenth of a millisecond: less is done sooner than a thread is awake.
const WAKE_COST: usize = 1 << 20;

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// The pools by size, and the process that built them: threads do not survive a fork.
static POOLS: Mutex<(u32, BTreeMap<usize, Arc<ThreadPool>>)> = Mutex::new((0, BTreeMap::new()));

thread_local! {
    /// Whether this thread is in the middle of a [`map`]: what it does there is not shared out again.
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

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

/// The threads worth waking for `cost` multiplications: one where it is done sooner than they are awake.
pub(crate) fn worth_waking(threads: Option<usize>, cost: usize) -> Option<usize> {
    if cost < WAKE_COST && threads.is_none_or(|n| n > 0) {
        Some(1)
    } else {
        threads
    }
}

/// `f(0) … f(n − 1)` in order, computed on `threads` threads (the default number if `None`), of which this is one.
///
/// # Errors
/// [`Error::Invalid`] for a bad number of threads, [`Error::Interrupted`] if the call is cancelled.
pub(crate) fn map<T: Send>(
    n: usize,
    threads: Option<usize>,
    f: impl Fn(usize) -> T + Sync + Send,
) -> Result<Vec<T>> {
    let wanted = threads.unwrap_or_else(num_threads);
    check(wanted)?;
    let (cancel, threads) = (Cancel::current(), wanted.min(n));
    // Where the system gives no threads, this one does it all: a write must not fail halfway for that.
    let pool = if threads > 1 && !WITHIN.get() {
        pool(wanted - 1)
    } else {
        None
    };
    let Some(pool) = pool else {
        return (0..n).map(|i| cancel.check().map(|()| f(i))).collect();
    };
    let share = (n / (threads * SHARES)).max(1);
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done = Mutex::new(Vec::with_capacity(threads * SHARES));
    let work = |stopped: &dyn Fn() -> bool| {
        let mut mine = Vec::new();
        loop {
            let first = next.fetch_add(share, Ordering::Relaxed);
            if first >= n || stopped() {
                break;
            }
            let rows = first..(first + share).min(n);
            mine.push((first, rows.map(&f).collect::<Vec<T>>()));
        }
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        done.append(&mut mine);
    };
    pool.in_place_scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| work(&|| stop.load(Ordering::Relaxed)));
        }
        let _restored = Within(WITHIN.replace(true));
        work(&|| {
            let cancelled = cancel.is_cancelled();
            stop.fetch_or(cancelled, Ordering::Relaxed);
            cancelled
        });
    });
    if stop.into_inner() {
        return Err(Error::Interrupted);
    }
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|&(first, _)| first);
    Ok(done.into_iter().flat_map(|(_, share)| share).collect())
}

/// What two pieces of work come to, done at once where threads are wanted: `beside` on another one. It is cancelled when
/// `here` fails.
pub(crate) fn both<A: Send, B>(
    beside: impl FnOnce() -> Result<A> + Send,
    here: impl FnOnce() -> Result<B>,
) -> (Result<A>, Result<B>) {
    let Some(pool) = (num_threads() > 1).then(|| pool(1)).flatten() else {
        return (beside(), here());
    };
    let failed = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&failed);
    let mut found = None;
    let here = pool.in_place_scope(|scope| {
        scope.spawn(|_| {
            let cancel = Cancel::new(move || asked.load(Ordering::Relaxed));
            found = Some(cancel.scope(beside));
        });
        let here = here();
        failed.store(here.is_err(), Ordering::Relaxed);
        here
    });
    (found.expect("the scope waits for it"), here)
}

/// What was so before a [`map`]; it is so again when this goes, also after a panic.
struct Within(bool);

impl Drop for Within {
    fn drop(&mut self) {
        WITHIN.set(self.0);
    }
}

fn pool(size: usize) -> Option<Arc<ThreadPool>> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if pools.0 != process {
        // After a fork the old pools have no threads: joining them would wait for ever.
        std::mem::forget(std::mem::take(&mut pools.1));
        pools.0 = process;
    }
    if let Some(pool) = pools.1.get(&size) {
        return Some(Arc::clone(pool));
    }
    let built = ThreadPoolBuilder::new()
        .num_threads(size)
        .thread_name(|i| format!("sharpwave-{i}"))
        .start_handler(|_| {
            fpenv::pin_thread();
            WITHIN.set(true);
        })
        .build();
    let pool = Arc::new(built.ok()?);
    pools.1.insert(size, Arc::clone(&pool));
    Some(pool)
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

    #[test]
    fn a_map_within_another_waits_for_no_thread() {
        let outer = map(6, Some(2), |i| map(5, Some(2), |j| i * j).unwrap()).unwrap();
        assert!((0..6).all(|i| outer[i] == (0..5).map(|j| i * j).collect::<Vec<_>>()));
        assert!(!WITHIN.get());
    }

    #[test]
    fn a_cancelled_map_stops_and_a_panic_is_raised_here() {
        let (asked, made) = (Cell::new(0), AtomicUsize::new(0));
        let cancel = Cancel::new(move || {
            asked.set(asked.get() + 1);
            asked.get() > 3
        });
        let outcome = cancel.scope(|| {
            map(10_000, Some(2), |_| {
                made.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_micros(10));
            })
        });
        assert!(matches!(outcome, Err(Error::Interrupted)));
        assert!(made.into_inner() < 10_000);
        let raised = std::panic::catch_unwind(|| map(100, Some(2), |i| assert!(i < 50)));
        assert!(raised.is_err());
        assert!(!WITHIN.get());
    }

    #[test]
    fn two_pieces_of_work_are_done_at_once_and_a_failure_cancels_the_other() {
        let (a, b) = both(|| Ok(1), || Ok(2));
        assert_eq!((a.unwrap(), b.unwrap()), (1, 2));
        let endless = || -> Result<()> {
            while Cancel::current().check().is_ok() {
                std::thread::yield_now();
            }
            Err(Error::Interrupted)
        };
        if num_threads() > 1 {
            let (beside, here) = both(endless, || Err::<(), _>(Error::invalid("b", "bad")));
            assert!(matches!(beside, Err(Error::Interrupted)));
            assert!(matches!(here, Err(Error::Invalid { .. })));
        }
        let raised =
            std::panic::catch_unwind(|| both(|| -> Result<()> { panic!("beside") }, || Ok(())));
        assert!(raised.is_err());
    }
}
