//! The thread pool: built lazily, sized by the caller, rebuilt after a fork.
//!
//! Work is split by item and each item's result depends on that item alone, so the number of threads
//! never changes a result.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};
use crate::interrupt;
use crate::placement::Helpers;
use crate::replay::sleep::Interrupt;
use crate::simd::fpenv;

/// Shares of the work that a thread takes, if all are as quick: the last of them may have to be waited for.
const SHARES: usize = 16;

/// Between two looks at whether the other of two threads is done, and at the interrupt.
const WAIT: Duration = Duration::from_millis(1);

thread_local! {
    /// Whether this thread is in the middle of a [`map`] that others help with.
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

/// What was so before a [`map`]; it is so again when this goes, also after a panic.
struct Within(bool);

impl Drop for Within {
    fn drop(&mut self) {
        WITHIN.set(self.0);
    }
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Threads that help, and where they are woken.
struct Pool {
    threads: ThreadPool,
    helpers: Arc<Helpers>,
}

/// The pools by size, and the process that built them: threads do not survive a fork.
struct Pools {
    process: u32,
    by_size: BTreeMap<usize, Arc<Pool>>,
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

/// `f(0) … f(n − 1)` in order, computed on `threads` threads (the default number if `None`), of which this is one: it
/// works while the others wake up, which takes them milliseconds if their processors slept.
///
/// # Errors
/// [`Error::Invalid`] for a bad number of threads, [`Error::Interrupted`] if the caller had enough ([`crate::interruptible`]).
pub(crate) fn map<T: Send>(
    n: usize,
    threads: Option<usize>,
    f: impl Fn(usize) -> T + Sync + Send,
) -> Result<Vec<T>> {
    map_where(n, threads, false, f)
}

/// [`map`]; where the work is `long`, ten milliseconds and more, the helpers are kept off this thread's processor when they
/// are woken. On a machine with other work they may have to wait elsewhere, which short work would wait for.
pub(crate) fn map_where<T: Send>(
    n: usize,
    threads: Option<usize>,
    long: bool,
    f: impl Fn(usize) -> T + Sync + Send,
) -> Result<Vec<T>> {
    if let Some(threads) = threads {
        check(threads)?;
    }
    let threads = threads.unwrap_or_else(num_threads).min(n.max(1));
    // A signal handler that reads would have to wait until the other threads have done the work that it interrupts.
    let pool = (threads > 1 && !WITHIN.get()).then(|| pool(threads - 1));
    // Where the system gives no threads, this one does it all: a write must not fail halfway for that.
    let Some(Ok(pool)) = pool else {
        return (0..n).map(|i| interrupt::check().map(|()| f(i))).collect();
    };
    let _restored = Within(WITHIN.replace(true));
    let share = (n / (threads * SHARES)).max(1);
    let (next, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    let go_on = || !enough.load(Ordering::Relaxed);
    // The next share, if there is one, and what comes of it; `look` is asked before every item.
    let work = |look: &dyn Fn() -> bool| {
        let first = next.fetch_add(share, Ordering::Relaxed);
        (first < n).then(|| {
            let rows = first..(first + share).min(n);
            (
                first,
                rows.take_while(|_| look()).map(&f).collect::<Vec<T>>(),
            )
        })
    };
    let done = Mutex::new(Vec::new());
    let keep = |mine: Vec<(usize, Vec<T>)>| {
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        done.extend(mine);
    };
    pool.threads.in_place_scope(|scope| {
        pool.helpers.woken(long, || {
            for _ in 1..threads {
                scope.spawn(|_| keep(std::iter::from_fn(|| work(&go_on)).collect()));
            }
        });
        let mut mine = Vec::new();
        let look = || {
            enough.store(interrupt::enough(), Ordering::Relaxed);
            go_on()
        };
        while let Some(share) = work(&look) {
            if !go_on() {
                next.store(n, Ordering::Relaxed);
                return Err(Error::Interrupted);
            }
            mine.push(share);
        }
        keep(mine);
        Ok(())
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|&(first, _)| first);
    Ok(done.into_iter().flat_map(|(_, share)| share).collect())
}

/// What two pieces of work come to, done at once: `beside` on a thread of its own, if threads are wanted and one can be
/// had. It is to ask the interrupt it is given, which knows what this thread's caller wants.
pub(crate) fn both<A: Send, B>(
    beside: impl FnOnce(Interrupt<'_>) -> Result<A> + Send,
    here: impl FnOnce() -> Result<B>,
) -> (Result<A>, Result<B>) {
    if num_threads() == 1 {
        return (beside(&interrupt::enough), here());
    }
    let (given_up, beside) = (AtomicBool::new(false), Mutex::new(Some(beside)));
    let taken = || beside.lock().unwrap_or_else(PoisonError::into_inner).take();
    std::thread::scope(|scope| {
        let work = || taken().map(|beside| beside(&|| given_up.load(Ordering::Relaxed)));
        let thread = std::thread::Builder::new()
            .name("sharpwave-beside".into())
            .spawn_scoped(scope, work);
        let Ok(thread) = thread else {
            let beside = taken().expect("no thread took it");
            return (beside(&interrupt::enough), here());
        };
        // A panic here ends the other thread, too.
        let guard = GivenUp(&given_up);
        let here = here();
        while !thread.is_finished() && !interrupt::enough() {
            std::thread::sleep(WAIT);
        }
        drop(guard);
        let beside = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        (beside.expect("it was there to be taken"), here)
    })
}

/// Tells the other thread, when it goes, that nobody waits any more.
struct GivenUp<'a>(&'a AtomicBool);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn pool(size: usize) -> Result<Arc<Pool>> {
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
    let helpers = Arc::new(Helpers::default());
    let started = Arc::clone(&helpers);
    let threads = ThreadPoolBuilder::new()
        .num_threads(size)
        .thread_name(|i| format!("sharpwave-{i}"))
        .start_handler(move |_| {
            fpenv::pin_thread();
            started.join();
        })
        .build()
        .map_err(|error| Error::Io(std::io::Error::other(error)))?;
    let pool = Arc::new(Pool { threads, helpers });
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

    #[test]
    fn both_pieces_are_done_and_an_interrupt_or_a_panic_ends_them() {
        let (a, b) = both(|_| Ok(1), || Ok(2));
        assert_eq!((a.unwrap(), b.unwrap()), (1, 2));
        // An error of one leaves the other to its end: which of them counts is the caller's affair.
        let (a, b) = both(
            |_| Ok(1),
            || {
                Err::<(), _>(Error::Invalid {
                    argument: "b",
                    message: "bad".into(),
                })
            },
        );
        assert!(a.is_ok() && matches!(b, Err(Error::Invalid { .. })));
        let endless = |enough: Interrupt<'_>| loop {
            if enough() {
                return Err::<(), _>(Error::Interrupted);
            }
            std::thread::yield_now();
        };
        let stopped = interrupt::interruptible(|| true, || both(endless, || Ok(())).0);
        assert!(matches!(stopped, Err(Error::Interrupted)));
        let panicked = std::panic::catch_unwind(|| {
            interrupt::interruptible(
                || true,
                || both(endless, || -> Result<()> { panic!("here") }).1,
            )
        });
        assert!(panicked.is_err());
        let panicked =
            std::panic::catch_unwind(|| both(|_| -> Result<()> { panic!("beside") }, || Ok(())));
        assert!(panicked.is_err());
    }

    #[test]
    fn a_map_within_another_waits_for_no_thread() {
        let outer = map(6, Some(2), |i| map(5, Some(2), |j| i * j).unwrap()).unwrap();
        assert!((0..6).all(|i| outer[i] == (0..5).map(|j| i * j).collect::<Vec<_>>()));
        assert!(!WITHIN.get());
    }

    #[test]
    fn it_looks_before_every_item_of_its_own() {
        let asked = std::cell::Cell::new(0);
        let ask = move || {
            asked.set(asked.get() + 1);
            asked.get() > 3
        };
        let (me, mine) = (std::thread::current().id(), AtomicUsize::new(0));
        let outcome = crate::interruptible(ask, || {
            map(10_000, Some(2), |_| {
                if std::thread::current().id() == me {
                    mine.fetch_add(1, Ordering::Relaxed);
                } else {
                    // So that the other one cannot do it all.
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            })
        });
        assert!(matches!(outcome, Err(Error::Interrupted)));
        assert_eq!(mine.into_inner(), 3);
    }
}
