//! The threads that help, by the number of them: started when first asked for, and anew after a fork.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::WITHIN;
use super::placement::{Elsewhere, Helpers};
use super::team::Team;
use crate::simd::fpenv;

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

/// A team, whose helpers go when this does.
pub(super) struct Led {
    team: Arc<Team>,
    _elsewhere: Option<Elsewhere>,
}

impl Led {
    /// A team of so many helpers, who come as they wake up; none where the system gives no threads.
    pub(super) fn of(helpers: usize) -> Option<Self> {
        let pool = pool(helpers)?;
        let team = Arc::new(Team::default());
        let elsewhere = Elsewhere::than_here(&pool.helpers);
        for _ in 0..helpers {
            let team = Arc::clone(&team);
            pool.threads.spawn(move || team.help());
        }
        Some(Self {
            team,
            _elsewhere: elsewhere,
        })
    }

    pub(super) fn team(&self) -> &Arc<Team> {
        &self.team
    }
}

impl Drop for Led {
    fn drop(&mut self) {
        self.team.dismiss();
    }
}

fn pool(size: usize) -> Option<Arc<Pool>> {
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
    let pool = Arc::new(Pool { threads, helpers });
    pools.by_size.insert(size, Arc::clone(&pool));
    Some(pool)
}
