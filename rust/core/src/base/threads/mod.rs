//! Work shared out among threads: a caller and those that help it.
//!
//! Work is split by item and each item's result depends on that item alone, so the number of threads
//! never changes a result.

mod pool;
mod sync;
mod team;

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::cancel::Cancel;
use crate::error::{Error, Result, invalid_if};

/// Shares of the work that a thread takes, if all are as quick: the last of them may have to be waited for.
const SHARES: usize = 16;

thread_local! {
    /// Whether this thread is in the middle of a [`map`] that others help with, or helps with one.
    static WITHIN: Cell<bool> = const { Cell::new(false) };
    /// The helpers of this thread's call.
    static TEAM: RefCell<Option<Arc<pool::WorkerLease>>> = const { RefCell::new(None) };
}

/// What was so before a [`map`]; it is so again when this goes, also after a panic.
struct WithinGuard(bool);

impl Drop for WithinGuard {
    fn drop(&mut self) {
        WITHIN.set(self.0);
    }
}

/// A call with helpers of its own; they go when it does, also after a panic.
struct TeamGuard;

impl Drop for TeamGuard {
    fn drop(&mut self) {
        TEAM.set(None);
    }
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

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
    invalid_if!(
        !(1..=1024).contains(&n),
        "num_threads",
        "{n} is not in [1, 1024]"
    );
    Ok(())
}

/// About a tenth of a millisecond's worth of multiplications.
const WAKE_COST: usize = 1 << 20;

/// The threads worth waking for `work` multiplications: one where it is done sooner than they are awake.
pub(crate) fn worth_waking(threads: Option<usize>, work: usize) -> Option<usize> {
    if work < WAKE_COST && threads.is_none_or(|n| n > 0) {
        Some(1)
    } else {
        threads
    }
}

/// Does `work`, whose maps have the same helpers: they are woken at its beginning, and stay until its end. There are `threads`
/// at most, this one among them, and one for each tenth of a millisecond's worth of `cost` multiplications.
///
/// # Errors
/// [`Error::Invalid`] for a bad number of threads, else as `work`.
pub(crate) fn with_team<T>(
    threads: Option<usize>,
    cost: usize,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    with_helpers(threads, 1 + cost / WAKE_COST, work)
}

/// Does `work` with as many threads as are wanted, and `most` at most.
fn with_helpers<T>(
    threads: Option<usize>,
    most: usize,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if let Some(threads) = threads {
        check(threads)?;
    }
    // One pool for each number of threads, of which a call may use a part.
    let size = threads.unwrap_or_else(num_threads) - 1;
    let helpers = size.min(most.saturating_sub(1));
    // A signal handler that reads would have to wait until the other threads have done the work that it interrupts.
    let alone = helpers == 0 || WITHIN.get() || TEAM.with_borrow(Option::is_some);
    // Where the system gives no threads, this one does it all: a write must not fail halfway for that.
    let lease = if alone {
        None
    } else {
        pool::WorkerLease::of(size, helpers)
    };
    let _call = lease.map(|lease| {
        TEAM.set(Some(Arc::new(lease)));
        TeamGuard
    });
    work()
}

/// `f(0) … f(n − 1)` in order, computed on `threads` threads (the default number if `None`), of which this is one: it
/// works while the others wake up, which takes them milliseconds if their processors slept, and waits for none that has
/// not begun.
///
/// # Errors
/// [`Error::Invalid`] for a bad number of threads, [`Error::Interrupted`] if the call is cancelled.
pub(crate) fn map<T: Send>(
    n: usize,
    threads: Option<usize>,
    f: impl Fn(usize) -> T + Sync + Send,
) -> Result<Vec<T>> {
    with_helpers(threads, n, || {
        let threads = threads.unwrap_or_else(num_threads).min(n);
        let team = TEAM.with_borrow(Clone::clone);
        if let Some(lease) = team.filter(|_| threads > 1 && !WITHIN.get()) {
            return shared_out(n, threads, &lease, f);
        }
        let cancel = Cancel::current();
        (0..n).map(|i| cancel.check().map(|()| f(i))).collect()
    })
}

fn shared_out<T: Send>(
    n: usize,
    threads: usize,
    lease: &pool::WorkerLease,
    f: impl Fn(usize) -> T + Sync + Send,
) -> Result<Vec<T>> {
    let _restored = WithinGuard(WITHIN.replace(true));
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
    let help = || keep(std::iter::from_fn(|| work(&go_on)).collect());
    let placed = lease.keep_off_this_cpu();
    lease.team().with(threads - 1, &help, || {
        let _until_here = placed;
        let mut mine = Vec::new();
        let cancel = Cancel::current();
        let look = || {
            enough.store(cancel.is_cancelled(), Ordering::Relaxed);
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

/// How many threads take part in [`take_cells`].
pub(crate) fn participants(cells: usize, threads: Option<usize>) -> usize {
    threads.unwrap_or_else(num_threads).min(cells)
}

/// Does `work` for each of so many cells, and returns the states of the threads, which begin as `begin` makes them.
///
/// Threads take the next cell when they are done with one, so none waits for a slower one. Which thread took which cell
/// differs from run to run: what the caller makes of the states must not depend on it. The call may be cancelled between
/// two cells.
pub(crate) fn take_cells<S: Send>(
    cells: usize,
    threads: Option<usize>,
    begin: impl Fn() -> S + Sync + Send,
    work: impl Fn(&mut S, usize) + Sync + Send,
) -> Result<Vec<S>> {
    let next = AtomicUsize::new(0);
    let states = map(participants(cells, threads), threads, |_| {
        let mut mine = begin();
        loop {
            let cell = next.fetch_add(1, Ordering::Relaxed);
            if cell >= cells {
                return mine;
            }
            if Cancel::current().is_cancelled() {
                // The others have no token: there is nothing left for them.
                next.store(cells, Ordering::Relaxed);
                return mine;
            }
            work(&mut mine, cell);
        }
    })?;
    Cancel::current().check()?;
    Ok(states)
}

/// What two pieces of work come to, done at once where threads are wanted: `beside` on another one. It is cancelled when
/// `here` fails.
pub(crate) fn both<A: Send, B>(
    beside: impl FnOnce() -> Result<A> + Send,
    here: impl FnOnce() -> Result<B>,
) -> (Result<A>, Result<B>) {
    let Some(pool) = (num_threads() > 1).then(|| pool::pool(1)).flatten() else {
        return (beside(), here());
    };
    let failed = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&failed);
    let mut found = None;
    let here = pool.threads.in_place_scope(|scope| {
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
    fn every_cell_is_taken_once() {
        for (cells, threads) in [(0, 2), (1, 3), (100, 1), (1000, 3)] {
            let states = take_cells(cells, Some(threads), Vec::new, Vec::push);
            let mut taken: Vec<usize> = states.unwrap().concat();
            taken.sort_unstable();
            assert!(taken.into_iter().eq(0..cells));
        }
        assert!(take_cells(1, Some(0), || (), |(), _| ()).is_err());
        let cancelled = Cancel::new(|| true).scope(|| take_cells(9, Some(2), || (), |(), _| ()));
        assert!(matches!(cancelled, Err(Error::Interrupted)));
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
        let outcome = Cancel::new(ask).scope(|| {
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
        let panic =
            std::panic::catch_unwind(|| both(|| -> Result<()> { panic!("beside") }, || Ok(())));
        assert!(panic.is_err());
    }
}
