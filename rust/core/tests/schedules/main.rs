//! The locks of a shared store under a scheduler that tries interleavings (shuttle): the files of `src/shared`, compiled
//! with its locks instead of the system's, around a toy store and a toy disk; and threads that help with a call
//! (`src/base/threads/team.rs`).
//!
//! `SHARPWAVE_SCHEDULES` says how many schedules each test tries with each of three schedulers. One that fails is
//! printed, and can be run again with `shuttle::replay`.

#[path = "../../src/base/group_commit.rs"]
mod group_commit;
#[path = "../../src/shared/held_locks.rs"]
mod held_locks;
mod helpers;
#[path = "../../src/base/log.rs"]
mod log;
#[path = "../../src/shared/rwlock.rs"]
#[allow(dead_code)] // what a fork needs is not tried here
mod rwlock;
mod sync;
#[path = "../../src/base/threads/team.rs"]
mod team;
mod toy;

use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler, UrwRandomScheduler};
use shuttle::sync::Mutex;
use shuttle::{Config, Runner, thread};

use rwlock::{Denied, Shared};
use toy::{Fault, Log, Refused, Shelf, Toy};

type Store = Shared<Toy, Log, Refused>;

/// Runs `life` under many schedules, the same ones every time.
fn try_schedules(life: impl Fn() + Send + Sync + 'static) {
    try_more_schedules(1, life);
}

fn try_more_schedules(times: usize, life: impl Fn() + Send + Sync + 'static) {
    let many =
        times * std::env::var("SHARPWAVE_SCHEDULES").map_or(300, |n| n.parse().expect("a number"));
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    let life = Arc::new(life);
    let again = || {
        let life = Arc::clone(&life);
        move || life()
    };
    Runner::new(RandomScheduler::new_from_seed(1, many), config.clone()).run(again());
    Runner::new(UrwRandomScheduler::new_from_seed(2, many), config.clone()).run(again());
    Runner::new(PctScheduler::new_from_seed(3, 4, many), config).run(again());
}

fn in_memory() -> Arc<Store> {
    Arc::new(Store::new(Arc::new(Toy::default())))
}

fn all(threads: Vec<thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("no thread panics");
    }
}

/// What a reader sees: whole, and no less than was seen before.
fn look(store: &Store, before: &mut Vec<u32>) {
    let now = store.read(|toy| Ok(toy.whole())).expect("it is open");
    assert!(
        now.starts_with(before),
        "{before:?} was there, and is {now:?}"
    );
    *before = now;
}

#[test]
fn readers_see_whole_stores_and_frozen_moments_stay() {
    try_schedules(|| {
        let store = in_memory();
        let mut threads = Vec::new();
        for writer in 0..2 {
            let store = Arc::clone(&store);
            threads.push(thread::spawn(move || {
                let done = store.writing(|turn| {
                    for slice in 0..2 {
                        turn.write(|toy| toy.add(10 * writer + slice))?;
                    }
                    Ok(())
                });
                done.expect("a write");
            }));
        }
        for _ in 0..2 {
            let store = Arc::clone(&store);
            threads.push(thread::spawn(move || {
                let mut seen = Vec::new();
                look(&store, &mut seen);
                let frozen = store.freeze().expect("it is open");
                let moment = frozen.whole();
                assert!(moment.starts_with(&seen));
                look(&store, &mut seen);
                assert_eq!(frozen.whole(), moment);
            }));
        }
        all(threads);
        let mut end = Vec::new();
        look(&store, &mut end);
        // The slices of one call lie together: nobody else wrote between them.
        assert!(end == [0, 1, 10, 11] || end == [10, 11, 0, 1], "{end:?}");
        assert_eq!(store.writes(), 4);
    });
}

#[test]
fn no_write_is_lost_whatever_way_it_is_made() {
    try_schedules(|| {
        let store = in_memory();
        let add = Arc::clone(&store);
        let dream = Arc::clone(&store);
        let rewrite = Arc::clone(&store);
        let reader = Arc::clone(&store);
        all(vec![
            thread::spawn(move || {
                add.writing(|turn| turn.write(|toy| toy.add(1)))
                    .expect("a write");
            }),
            // As a sleep does: beside readers first, then taken over.
            thread::spawn(move || {
                let done = dream.writing(|turn| {
                    let next = turn.read(|toy| Ok(toy.whole().len() as u32))?;
                    thread::yield_now();
                    turn.write(|toy| toy.add(100 + next))
                });
                done.expect("a sleep");
            }),
            // As a veto does.
            thread::spawn(move || {
                rewrite
                    .writing(|turn| turn.rewrite(|toy| toy.with(2), |toy| toy.record(2)))
                    .expect("a rewrite");
            }),
            thread::spawn(move || {
                let mut seen = Vec::new();
                look(&reader, &mut seen);
                look(&reader, &mut seen);
            }),
        ]);
        let mut end = Vec::new();
        look(&store, &mut end);
        let at = end.iter().position(|&x| x >= 100).expect("the sleep");
        assert_eq!(end[at], 100 + at as u32, "nobody wrote while it slept");
        end.sort_unstable();
        assert_eq!(end[..2], [1, 2]);
        assert_eq!(end.len(), 3);
    });
}

/// Writes that have to copy the store first, since it was frozen.
#[test]
fn a_store_that_was_frozen_is_copied_whole_before_it_is_written_to() {
    try_schedules(|| {
        let store = in_memory();
        let add = |store: &Store, x: u32| {
            store
                .writing(|turn| turn.write(|toy| toy.add(x)))
                .expect("a write");
        };
        add(&store, 1);
        let frozen = store.freeze().expect("it is open");
        let (reader, writer) = (Arc::clone(&store), Arc::clone(&store));
        all(vec![
            thread::spawn(move || {
                let mut seen = vec![1];
                look(&reader, &mut seen);
                look(&reader, &mut seen);
            }),
            thread::spawn(move || add(&writer, 2)),
            thread::spawn(move || {
                add(&store, 3);
                let mut end = vec![1];
                look(&store, &mut end);
                assert!(end.contains(&3));
            }),
        ]);
        assert_eq!(frozen.whole(), [1]);
    });
}

fn all_there(acknowledged: &[u32], left: &[u32]) {
    let there = acknowledged.iter().all(|x| left.contains(x));
    assert!(
        there,
        "{acknowledged:?} were acknowledged, {left:?} are left"
    );
}

/// Writers, one of whose operations fails after it was recorded, a compaction, and somebody who pulls the plug.
fn acknowledged_operations_are_kept(fault: Fault) {
    // One that finds the fault is the last.
    let times = if fault == Fault::None { 1 } else { 20 };
    try_more_schedules(times, move || {
        let shelf = Arc::new(Shelf::default());
        let log = Log::on(&shelf, fault);
        let store = Arc::new(Store::opened(Toy::default(), Some(log)));
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let mut threads = Vec::new();
        for writer in 0..3 {
            let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
            threads.push(thread::spawn(move || {
                let x = 10 * writer;
                if writer == 0 {
                    let done = store.writing(|turn| turn.write(|toy| toy.fail(99)));
                    assert!(matches!(done, Err(Refused::Asked)));
                }
                store
                    .writing(|turn| turn.write(|toy| toy.add(x)))
                    .expect("a write");
                acknowledged.lock().unwrap().push(x);
            }));
        }
        let flush = Arc::clone(&store);
        threads.push(thread::spawn(move || {
            flush
                .writing(|turn| turn.compact(false))
                .expect("a snapshot");
        }));
        let (plug, said) = (Arc::clone(&shelf), Arc::clone(&acknowledged));
        threads.push(thread::spawn(move || {
            for _ in 0..6 {
                let acknowledged = said.lock().unwrap().clone();
                all_there(&acknowledged, &plug.after_a_power_cut());
                thread::yield_now();
            }
        }));
        all(threads);
        all_there(&acknowledged.lock().unwrap(), &shelf.after_a_power_cut());
        let mut end = Vec::new();
        look(&store, &mut end);
        end.sort_unstable();
        assert_eq!(end, [0, 10, 20]);
    });
}

#[test]
fn what_is_acknowledged_is_on_the_disk() {
    acknowledged_operations_are_kept(Fault::None);
}

/// The schedules find it when a record that was taken back counts as brought to the disk.
#[test]
#[should_panic(expected = "were acknowledged")]
fn a_journal_that_forgets_what_it_took_back_is_found() {
    acknowledged_operations_are_kept(Fault::ForgetsWhatItTookBack);
}

/// The schedules find it when a compaction lets waiting calls go before its snapshot is there.
#[test]
#[should_panic(expected = "were acknowledged")]
fn a_compaction_that_lets_go_too_early_is_found() {
    acknowledged_operations_are_kept(Fault::LetsGoTooEarly);
}

#[test]
fn after_the_disk_failed_the_store_is_what_was_acknowledged() {
    try_schedules(|| {
        let shelf = Arc::new(Shelf::default());
        let log = Log::on(&shelf, Fault::None);
        let store = Arc::new(Store::opened(Toy::default(), Some(log)));
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let mut threads = Vec::new();
        for writer in 0..3 {
            let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
            threads.push(thread::spawn(move || {
                for x in [10 * writer, 10 * writer + 1] {
                    match store.writing(|turn| turn.write(|toy| toy.add(x))) {
                        Ok(()) => acknowledged.lock().unwrap().push(x),
                        Err(Refused::Disk(error)) => assert!(!error.to_string().is_empty()),
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }));
        }
        let (breaking, flush) = (Arc::clone(&shelf), Arc::clone(&store));
        threads.push(thread::spawn(move || {
            breaking.break_down();
            let _ = flush.writing(|turn| turn.compact(false));
        }));
        all(threads);
        let mut acknowledged = acknowledged.lock().unwrap().clone();
        let mut end = store.read(|toy| Ok(toy.whole())).expect("it is read");
        let mut left = shelf.after_a_restart();
        for list in [&mut acknowledged, &mut end, &mut left] {
            list.sort_unstable();
        }
        assert_eq!(end, acknowledged, "in memory");
        assert_eq!(left, acknowledged, "in the files");
    });
}

#[test]
fn closing_beside_all_others_ends_them() {
    try_schedules(|| {
        let shelf = Arc::new(Shelf::default());
        let log = Log::on(&shelf, Fault::None);
        let store = Arc::new(Store::opened(Toy::default(), Some(log)));
        let (reader, writer, closer) = (Arc::clone(&store), Arc::clone(&store), Arc::clone(&store));
        let wrote = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&wrote);
        let closed = |error: &Refused| matches!(error, Refused::Denied(Denied::Closed));
        all(vec![
            thread::spawn(move || {
                for _ in 0..2 {
                    let seen = reader.read(|toy| Ok(toy.whole()));
                    assert!(seen.as_ref().err().is_none_or(closed));
                    assert!(reader.freeze().err().as_ref().is_none_or(closed));
                }
            }),
            thread::spawn(move || {
                for x in 0..2 {
                    match writer.writing(|turn| turn.write(|toy| toy.add(x))) {
                        Ok(()) => written.lock().unwrap().push(x),
                        Err(error) => assert!(closed(&error)),
                    }
                }
            }),
            thread::spawn(move || closer.close().expect("it closes")),
        ]);
        assert!(matches!(store.is_closed(), Ok(true)));
        let left = shelf.after_a_power_cut();
        assert_eq!(left, *wrote.lock().unwrap());
    });
}

#[test]
fn a_panic_ends_the_store_for_all_and_the_journal_with_it() {
    try_schedules(|| {
        let shelf = Arc::new(Shelf::default());
        let log = Log::on(&shelf, Fault::None);
        let store = Arc::new(Store::opened(Toy::default(), Some(log)));
        let (reader, writer, broken) = (Arc::clone(&store), Arc::clone(&store), Arc::clone(&store));
        let poisoned = |error: &Refused| matches!(error, Refused::Denied(Denied::Poisoned));
        all(vec![
            thread::spawn(move || {
                for _ in 0..2 {
                    let seen = reader.read(|toy| Ok(toy.whole()));
                    assert!(seen.as_ref().err().is_none_or(poisoned));
                }
            }),
            thread::spawn(move || {
                let done = writer.writing(|turn| turn.write(|toy| toy.add(1)));
                assert!(done.as_ref().err().is_none_or(poisoned));
            }),
            thread::spawn(move || {
                let broke = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    broken.writing(|turn| turn.write(Toy::break_off))
                }));
                assert!(broke.is_err());
            }),
        ]);
        assert!(matches!(
            store.read(|toy| Ok(toy.whole())),
            Err(Refused::Denied(Denied::Poisoned))
        ));
        assert!(shelf.after_a_restart().iter().all(|&x| x == 1));
    });
}

#[test]
fn a_call_in_the_middle_of_another_of_the_same_thread_is_answered_or_told() {
    try_schedules(|| {
        let store = in_memory();
        let other = Arc::clone(&store);
        let busy = |error: &Refused| matches!(error, Refused::Denied(Denied::Busy));
        let reading = store.read(|_| {
            assert_eq!(store.read(|toy| Ok(toy.whole())).unwrap(), []);
            store.freeze().expect("it is read");
            let write = store.writing(|turn| turn.write(|toy| toy.add(1)));
            assert!(write.as_ref().err().is_some_and(busy));
            assert!(store.close().as_ref().err().is_some_and(busy));
            Ok(())
        });
        reading.expect("a read");
        let others = thread::spawn(move || {
            other
                .writing(|turn| turn.write(|toy| toy.add(2)))
                .expect("another thread is not in the middle of anything");
        });
        let writing = store.writing(|turn| {
            assert!(store.read(|toy| Ok(toy.whole())).is_ok());
            let write = store.writing(|turn| turn.write(|toy| toy.add(3)));
            assert!(write.as_ref().err().is_some_and(busy));
            turn.write(|toy| {
                let read = store.read(|toy| Ok(toy.whole()));
                assert!(read.as_ref().err().is_some_and(busy));
                assert!(store.freeze().as_ref().err().is_some_and(busy));
                toy.add(4)
            })
        });
        writing.expect("a write");
        others.join().expect("no thread panics");
        let mut end = store.read(|toy| Ok(toy.whole())).unwrap();
        end.sort_unstable();
        assert_eq!(end, [2, 4]);
    });
}
