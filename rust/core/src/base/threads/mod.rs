//! Work shared out among threads: a caller and those that help it.
//!
//! Work is split by item and each item's result depends on that item alone, so the number of threads never changes a
//! result. Helpers are threads of a rayon pool: kept by number, started when first asked for and anew after a fork, and kept
//! off the processor of the thread that they help. Rayon's own scope was tried in the place of [`team`] and of this: see
//! `docs/performance.md`, Two threads.

mod team;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::base::{Cancel, fpenv};
use crate::error::{Error, Result, in_range};
use team::Team;

/// Shares of the work that a thread takes, if all are as quick: the last of them may have to be waited for.
const SHARES: usize = 16;
/// About a tenth of a millisecond's worth of multiplications.
const WAKE_COST: usize = 1 << 20;

/// The part of a thread in shared work.
enum Role {
    Alone,
    /// Its call has helpers.
    Leads(WorkerLease),
    /// It works on a [`map`] that is shared out: a map within that is not shared out again.
    Busy,
}

thread_local! {
    static ROLE: RefCell<Role> = const { RefCell::new(Role::Alone) };
}

/// The role before this one, restored when this is dropped, also after a panic.
struct Before(Role);

impl Before {
    fn taking(role: Role) -> Self {
        Self(ROLE.replace(role))
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        ROLE.replace(std::mem::replace(&mut self.0, Role::Alone));
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
    in_range("num_threads", n, 1, 1024)
}

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
    let alone = ROLE.with_borrow(|role| matches!(role, Role::Alone));
    // Where the system gives no threads, this one does it all: a write must not fail halfway for that.
    let lease = (alone && helpers > 0)
        .then(|| WorkerLease::of(size, helpers))
        .flatten();
    let _until_the_end = lease.map(|lease| Before::taking(Role::Leads(lease)));
    work()
}

/// `f(0) … f(n − 1)` in order, computed on `threads` threads (the default number if `None`), of which this is one: it
/// works while the others wake up, which takes them milliseconds if their processors slept, and waits for none that has
/// not begun. It fails for a bad number of threads, and if the call is cancelled.
pub(crate) fn map<T: Send>(
    n: usize,
    threads: Option<usize>,
    f: impl Fn(usize) -> T + Sync + Send,
) -> Result<Vec<T>> {
    with_helpers(threads, n, || {
        let threads = participants(n, threads);
        if threads > 1 && ROLE.with_borrow(|role| matches!(role, Role::Leads(_))) {
            let before = Before::taking(Role::Busy);
            if let Role::Leads(lease) = &before.0 {
                return shared_out(n, threads, lease, f);
            }
        }
        let cancel = Cancel::current();
        (0..n).map(|i| cancel.check().map(|()| f(i))).collect()
    })
}

fn shared_out<T: Send>(
    n: usize,
    threads: usize,
    lease: &WorkerLease,
    f: impl Fn(usize) -> T + Sync + Send,
) -> Result<Vec<T>> {
    let share = (n / (threads * SHARES)).max(1);
    let (next, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done = Mutex::new(Vec::new());
    // Takes shares until none is left; checks `go_on` before every item.
    let work = |go_on: &dyn Fn() -> bool| {
        let mut mine = Vec::new();
        loop {
            let first = next.fetch_add(share, Ordering::Relaxed);
            if first >= n {
                break;
            }
            let items = (first..(first + share).min(n)).take_while(|_| go_on());
            mine.push((first, items.map(&f).collect::<Vec<T>>()));
        }
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        done.extend(mine);
    };
    let help = || work(&|| !enough.load(Ordering::Relaxed));
    // While helpers are told of work, and while this thread works itself; while it waits for them its processor is theirs.
    let placed = lease.pool.off_this_cpu();
    lease.team.with(threads - 1, &help, || {
        let _until_here = placed;
        let cancel = Cancel::current();
        work(&|| {
            if cancel.is_cancelled() {
                enough.store(true, Ordering::Relaxed);
                next.store(n, Ordering::Relaxed);
            }
            !enough.load(Ordering::Relaxed)
        });
    });
    if enough.into_inner() {
        return Err(Error::Interrupted);
    }
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|&(first, _)| first);
    Ok(done.into_iter().flat_map(|(_, share)| share).collect())
}

/// How many threads take part in work on so many cells.
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
    let Some(pool) = (num_threads() > 1).then(|| pool(1)).flatten() else {
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

/// A team, whose helpers go when this does.
struct WorkerLease {
    team: Arc<Team>,
    pool: Arc<Pool>,
}

impl WorkerLease {
    /// A team of so many helpers out of `size`, who come as they wake up; none where the system gives no threads, or where
    /// those there are help others for so long that calls pile up.
    fn of(size: usize, helpers: usize) -> Option<Self> {
        let pool = pool(size)?;
        if pool.open.load(Ordering::Relaxed) >= size {
            return None;
        }
        pool.open.fetch_add(helpers, Ordering::Relaxed);
        let team = Arc::new(Team::default());
        let _elsewhere = pool.off_this_cpu();
        for _ in 0..helpers {
            let (team, of) = (Arc::clone(&team), Arc::clone(&pool));
            pool.threads.spawn(move || {
                of.open.fetch_sub(1, Ordering::Relaxed);
                team.help();
            });
        }
        Some(Self { team, pool })
    }
}

impl Drop for WorkerLease {
    fn drop(&mut self) {
        self.team.dismiss();
    }
}

/// Threads that help.
struct Pool {
    threads: ThreadPool,
    helpers: Arc<placement::Helpers>,
    /// Calls for help that no thread has come to yet.
    open: AtomicUsize,
}

impl Pool {
    /// Keeps few helpers off the processor of the calling thread until the guard goes.
    fn off_this_cpu(&self) -> Option<placement::AffinityGuard> {
        placement::off_this_cpu(&self.helpers)
    }
}

/// The process that built the pools, and these by size: threads do not survive a fork.
static POOLS: Mutex<(u32, BTreeMap<usize, Arc<Pool>>)> = Mutex::new((0, BTreeMap::new()));

fn pool(size: usize) -> Option<Arc<Pool>> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let (process, by_size) = &mut *pools;
    if *process != std::process::id() {
        // After a fork the old pools have no threads: joining them would wait for ever.
        std::mem::forget(std::mem::take(by_size));
        *process = std::process::id();
    }
    if let Some(pool) = by_size.get(&size) {
        return Some(Arc::clone(pool));
    }
    let helpers = Arc::new(placement::Helpers::default());
    let started = Arc::clone(&helpers);
    let threads = ThreadPoolBuilder::new()
        .num_threads(size)
        .thread_name(|i| format!("sharpwave-{i}"))
        .start_handler(move |_| {
            fpenv::pin_thread();
            ROLE.set(Role::Busy);
            started.join();
        })
        .build()
        .ok()?;
    let pool = Arc::new(Pool {
        threads,
        helpers,
        open: AtomicUsize::new(0),
    });
    by_size.insert(size, Arc::clone(&pool));
    Some(pool)
}

/// Keeping helpers off the processor of the thread that they help.
///
/// Linux wakes a thread on an idle processor. But one of a virtual machine that has just gone idle counts as taken away by
/// the host, so that the thread lands beside its caller, and shares the processor with it until the system balances its
/// load. Where helpers run decides no result.
#[cfg(target_os = "linux")]
mod placement {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};

    use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// More helpers than these are left to the system: it takes two calls of it for each, a microsecond.
    pub(super) const MAX_PINNED_WORKERS: usize = 8;

    /// The threads of a pool.
    #[derive(Default)]
    pub(super) struct Helpers {
        pub(super) threads: Mutex<Vec<Pid>>,
        /// Whether they are kept off a processor: by one call at a time, or the last would not know where they may run.
        placed: AtomicBool,
    }

    impl Helpers {
        /// Makes the calling thread one of them.
        pub(super) fn join(&self) {
            let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            threads.push(gettid());
        }
    }

    /// Threads that may not run on one processor, and where each of them might run before; so it is again when this goes.
    pub(super) struct AffinityGuard {
        helpers: Arc<Helpers>,
        kept_off: Vec<(Pid, CpuSet)>,
    }

    pub(super) fn off_this_cpu(helpers: &Arc<Helpers>) -> Option<AffinityGuard> {
        let threads = helpers
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if threads.len() > MAX_PINNED_WORKERS || helpers.placed.swap(true, Ordering::Acquire) {
            return None;
        }
        let here = sched_getcpu();
        let moved = |&thread: &Pid| {
            // A system that does not tell or does not let itself be told places threads as it likes.
            let allowed = sched_getaffinity(Some(thread)).ok()?;
            let mut others = allowed;
            others.unset(here);
            let elsewhere = others.count() > 0 && others != allowed;
            (elsewhere && sched_setaffinity(Some(thread), &others).is_ok())
                .then_some((thread, allowed))
        };
        Some(AffinityGuard {
            helpers: Arc::clone(helpers),
            kept_off: threads.iter().filter_map(moved).collect(),
        })
    }

    impl Drop for AffinityGuard {
        fn drop(&mut self) {
            for (thread, allowed) in &self.kept_off {
                let _ = sched_setaffinity(Some(*thread), allowed);
            }
            self.helpers.placed.store(false, Ordering::Release);
        }
    }
}

/// Elsewhere the system places them.
#[cfg(not(target_os = "linux"))]
mod placement {
    #[derive(Default)]
    pub(super) struct Helpers;

    impl Helpers {
        #[allow(clippy::unused_self)] // As on Linux.
        pub(super) fn join(&self) {}
    }

    pub(super) struct AffinityGuard;

    pub(super) fn off_this_cpu(_: &Helpers) -> Option<AffinityGuard> {
        None
    }
}

/// The locks of a [`Team`]: those of the system, each by itself.
///
/// Helpers come and go after the call that they helped. A process that forks meanwhile must not find a table that all locks
/// share (as `parking_lot` has) locked for good by a thread that is not there.
mod sync {
    use std::sync::PoisonError;
    use std::time::{Duration, Instant};

    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use std::sync::{Condvar, MutexGuard};

    /// How long to wait awake for what comes soon: to be woken takes as long.
    const AWAKE: Duration = Duration::from_micros(50);

    /// A mutex that a panic does not poison.
    #[derive(Default)]
    pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// Waits until there is something new.
    pub(crate) fn wait<'a, T>(turn: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        turn.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits awake, for a moment at most, until it `came`.
    pub(crate) fn linger(came: impl Fn() -> bool) {
        let end = Instant::now() + AWAKE;
        while !came() && Instant::now() < end {
            for _ in 0..16 {
                std::hint::spin_loop();
            }
        }
    }
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
        assert!(ROLE.with_borrow(|role| matches!(role, Role::Alone)));
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

    #[cfg(target_os = "linux")]
    #[test]
    fn few_helpers_are_kept_off_one_processor_while_they_help_one_call() {
        use rustix::thread::sched_getaffinity;
        // Pools that no other test has.
        let [few, many] = [5, placement::MAX_PINNED_WORKERS + 1].map(|size| {
            let pool = pool(size).unwrap();
            pool.threads.broadcast(|_| ());
            pool
        });
        let thread = few.helpers.threads.lock().unwrap()[0];
        let allowed = || sched_getaffinity(Some(thread)).unwrap();
        let before = allowed();
        for _ in 0..2 {
            let first = few.off_this_cpu().unwrap();
            assert!(few.off_this_cpu().is_none(), "one at a time");
            let left = before.count() - u32::from(before.count() > 1);
            assert_eq!(allowed().count(), left);
            drop(first);
            assert_eq!(allowed(), before);
        }
        assert!(many.off_this_cpu().is_none());
    }
}
