//! What a store says that it holds is what the allocator gave it.

mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use sharpwave_core::{Config, Observation, ReplayRequest, Store};
use world::Batch;

/// Counts what the process has.
struct Counting;

static HELD: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system's demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Directions that are all different.
fn rows(from: usize, n: usize, dim: usize) -> Vec<f32> {
    (from * dim..(from + n) * dim)
        .map(|i| ((i as f32) * 0.7).sin() + (i as f32 * 0.013).cos())
        .collect()
}

/// The bytes that a store says it holds, and those that were taken while it was made, within a hundredth: a column of
/// eight bytes a memory is more.
fn compare(what: &str, make: impl FnOnce() -> Store) {
    let before = HELD.load(Ordering::Relaxed);
    let store = make();
    let taken = HELD.load(Ordering::Relaxed) - before;
    let said = (store.nbytes() - size_of::<Store>()) as isize;
    assert!(
        (said - taken).abs() <= taken / 100 + 2048,
        "{what}: {said} bytes said, {taken} taken"
    );
}

/// The only test of this program: another one's memory would be counted too.
#[test]
fn what_is_said_is_what_was_taken() {
    const DIM: usize = 24;
    const N: usize = 6000;
    // What is made once for all stores is made here.
    let mut warm = Store::new(Config::new(DIM)).unwrap();
    warm.insert(&rows(0, 600, DIM), None, None).unwrap();
    warm.partition(Some(8), 0, None).unwrap();
    warm.replay(&ReplayRequest::default()).unwrap();
    drop(warm);

    compare("empty", || Store::new(Config::new(DIM)).unwrap());
    let plain = || Config {
        keep_episodes: false,
        ..Config::new(DIM)
    };
    let keys = rows(0, N, DIM);
    let inserted = |config: Config| {
        let mut store = Store::new(config).unwrap();
        store.insert(&keys, None, None).unwrap();
        store
    };
    compare("keys", || inserted(plain()));
    compare("keys and archive", || inserted(Config::new(DIM)));
    compare("a checkpoint", || {
        let mut store = inserted(Config::new(DIM));
        store.checkpoint(1).unwrap();
        store
    });
    compare("blocks", || {
        let mut store = inserted(plain());
        store.partition(Some(40), 0, None).unwrap();
        store
    });
    let texts: Vec<String> = (0..N).map(|i| format!("the text of number {i}")).collect();
    compare("texts", || {
        let mut store = Store::new(plain()).unwrap();
        store.insert(&keys, None, Some(&texts)).unwrap();
        store
    });
    // Channels, associations, values, proposals, freed places.
    compare("a life", || {
        let config = Config {
            capacity: Some(1500),
            min_novelty: 0.001,
            ..Config::new(DIM)
        };
        let mut store = Store::new(config).unwrap();
        store
            .add_terminal("goal", &keys[..DIM], None, None)
            .unwrap();
        store.add_channel("reward", 0.0, 1.0).unwrap();
        for (at, part) in keys.chunks(60 * DIM).enumerate() {
            let n = part.len() / DIM;
            let batch = Batch::one(part.to_vec(), DIM);
            let observation = Observation {
                episodes: batch.episodes(),
                texts: Some(&texts[..n]),
                source: Some("somewhere"),
                propose: at % 10 == 9,
                ..Observation::default()
            };
            store.observe(&observation).unwrap();
        }
        store.replay(&ReplayRequest::default()).unwrap();
        store
    });
}
