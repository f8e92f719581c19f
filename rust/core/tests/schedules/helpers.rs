//! Threads that help with a call (`src/base/threads/team.rs`): whoever comes, whenever.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;

use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use shuttle::thread;

use super::team::Team;
use super::{all, try_schedules};

/// A caller whose helpers come when they like: what is shared out is done once, by whoever took it; when `with` returns
/// nobody is in the middle of it, so that what it borrows may go; and all helpers leave.
#[test]
fn helpers_do_what_is_left_and_nobody_works_on_what_is_gone() {
    try_schedules(|| {
        let team = Arc::new(Team::default());
        let mut helpers = Vec::new();
        for _ in 0..2 {
            let team = Arc::clone(&team);
            helpers.push(thread::spawn(move || team.help()));
        }
        for round in 1..4 {
            // Told when the piece is given back: who still worked on it would find out.
            let gone = Arc::new(AtomicBool::new(false));
            let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
            let work = || {
                loop {
                    let item = next.fetch_add(1, Ordering::SeqCst);
                    if item >= 3 {
                        break;
                    }
                    thread::yield_now();
                    assert!(!gone.load(Ordering::SeqCst));
                    done.lock().unwrap().push(item);
                }
                thread::yield_now();
                assert!(!gone.load(Ordering::SeqCst));
            };
            let places = round % 3;
            let before = thread::current().id();
            assert_eq!(
                team.with(places, &work, || {
                    work();
                    thread::current().id()
                }),
                before
            );
            gone.store(true, Ordering::SeqCst);
            let mut done = done.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, [0, 1, 2]);
        }
        team.dismiss();
        all(helpers);
    });
}

/// A panic of a helper is the caller's; a panic of the caller waits for the helpers; the team works on.
#[test]
fn a_panic_of_a_helper_is_raised_where_the_work_was_shared_out() {
    try_schedules(|| {
        let team = Arc::new(Team::default());
        let helping = Arc::clone(&team);
        let helper = thread::spawn(move || helping.help());
        let took = AtomicUsize::new(0);
        let work = || {
            took.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
            panic_any("of the helper");
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| team.with(1, &work, thread::yield_now)));
        assert_eq!(outcome.is_err(), took.load(Ordering::SeqCst) == 1);
        let running = AtomicUsize::new(0);
        let work = || {
            running.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
            running.fetch_sub(1, Ordering::SeqCst);
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            team.with(1, &work, || panic_any("of the caller"));
        }));
        assert!(outcome.is_err());
        assert_eq!(running.load(Ordering::SeqCst), 0);
        team.with(1, &work, || ());
        assert_eq!(running.load(Ordering::SeqCst), 0);
        team.dismiss();
        all(vec![helper]);
    });
}
