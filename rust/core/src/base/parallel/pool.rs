//! The threads that help, by the number of them: started when first asked for, and anew after a fork.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::WITHIN;
use super::placement::{Elsewhere, Helpers};
use super::team::Team;
use crate::base::fpenv;

/// Threads that help.
pub(super) struct Pool {
    pub(super) threads: ThreadPool,
    helpers: Arc<Helpers>,
    /// Calls for help that no thread has come to yet.
    open: AtomicUsize,
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

/// A team, whose helpers go when this does.
pub(super) struct Led {
    team: Arc<Team>,
    pool: Arc<Pool>,
}

impl Led {
    /// A team of so many helpers out of `size`, who come as they wake up; none where the system gives no threads, or where those
    /// there are help others for so long that calls pile up.
    pub(super) fn of(size: usize, helpers: usize) -> Option<Self> {
        let pool = pool(size)?;
        if pool.open.load(Ordering::Relaxed) >= size {
            return None;
        }
        pool.open.fetch_add(helpers, Ordering::Relaxed);
        let team = Arc::new(Team::default());
        let _elsewhere = Elsewhere::than_here(&pool.helpers);
        for _ in 0..helpers {
            let (team, of) = (Arc::clone(&team), Arc::clone(&pool));
            pool.threads.spawn(move || {
                of.open.fetch_sub(1, Ordering::Relaxed);
                team.help();
            });
        }
        Some(Self { team, pool })
    }

    pub(super) fn team(&self) -> &Team {
        &self.team
    }

    /// Keeps the helpers off this thread's processor as long as it is there: while they are told of work, and while this
    /// thread works itself. While it waits for them its processor is theirs, too.
    pub(super) fn elsewhere(&self) -> Option<Elsewhere> {
        Elsewhere::than_here(&self.pool.helpers)
    }
}

impl Drop for Led {
    fn drop(&mut self) {
        self.team.dismiss();
    }
}

pub(super) fn pool(size: usize) -> Option<Arc<Pool>> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if pools.process != process {
        // After a fork the old pools have no threads: joining them would wait for ever.
        std::mem::forget(std::mem::take(&mut pools.by_size));
        pools.process = process;
    }
    if let Some(pool) = pools.by_size.get(&size) {
        return Some(Arc::clone(pool));
    }
    let helpers = Arc::new(Helpers::default());
    let started = Arc::clone(&helpers);
    let threads = ThreadPoolBuilder::new()
        .num_threads(size)
        .thread_name(|i| format!("sharpwave-{i}"))
        .start_handler(move |_| {
            fpenv::pin_thread();
            // What it helps with is not shared out again.
            WITHIN.set(true);
            started.join();
        })
        .build()
        .ok()?;
    let pool = Arc::new(Pool {
        threads,
        helpers,
        open: AtomicUsize::new(0),
    });
    pools.by_size.insert(size, Arc::clone(&pool));
    Some(pool)
}
