//! Directories: random operations, and what opening makes of the journal.

mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use sharpwave_core::{
    Cancel, Config, Drives, Durability, Error, Journal, Log, Lookahead, Need, Observation, Order,
    ReplayRequest, Store, repair,
};
use world::{Batch, axis, cases, config, episode};

const DIM: usize = 5;

/// In memory where the system has that: these tests ask the disk for nothing but time.
fn fast_folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}

/// A directory of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = fast_folder().join(format!("sharpwave-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn journal(&self) -> PathBuf {
        let mut logs: Vec<PathBuf> = fs::read_dir(self.0.join("journal"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect();
        assert_eq!(logs.len(), 1);
        logs.remove(0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Every public verb that changes a store.
#[derive(Clone, Debug)]
enum Verb {
    Calibrate(Batch),
    AddTerminal(usize, Option<f32>),
    AddChannel,
    RemoveChannel(usize),
    Observe(Batch, u8, bool, bool),
    Insert(Batch, bool),
    Replay(u8, Option<u64>, bool, Option<f64>),
    VetoEpisodes(Vec<usize>),
    VetoMemory(usize),
    BindEmbedder(bool),
    Compact,
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![
        1 => episode(DIM).prop_map(Verb::Calibrate),
        2 => (0..DIM, prop::option::of(0.5f32..0.9)).prop_map(|(i, high)| Verb::AddTerminal(i, high)),
        1 => Just(Verb::AddChannel),
        1 => (0usize..4).prop_map(Verb::RemoveChannel),
        8 => (episode(DIM), 0u8..4, any::<bool>(), any::<bool>())
            .prop_map(|(batch, drive, text, propose)| Verb::Observe(batch, drive, text, propose)),
        2 => (episode(DIM), any::<bool>()).prop_map(|(batch, text)| Verb::Insert(batch, text)),
        3 => (0u8..36, prop::option::of(0u64..20), any::<bool>(), prop::option::of(0.0f64..0.2))
            .prop_map(|(kind, budget, consolidate, drift)| {
                Verb::Replay(kind, budget, consolidate, drift)
            }),
        1 => prop::collection::vec(0usize..20, 0..3).prop_map(Verb::VetoEpisodes),
        1 => (0usize..20).prop_map(Verb::VetoMemory),
        1 => any::<bool>().prop_map(Verb::BindEmbedder),
        1 => Just(Verb::Compact),
    ]
}

/// Does a verb; what the store refuses is no matter.
fn act(store: &mut Store, verb: &Verb, at: usize) -> Result<(), Error> {
    let scalars = store.scalar_count();
    match verb {
        Verb::Calibrate(batch) => store.calibrate(&batch.episodes()).map(drop),
        Verb::AddTerminal(i, high) => store
            .add_terminal(&format!("t{at}"), &axis(*i, DIM), high.map(|_| 0.1), *high)
            .map(drop),
        Verb::AddChannel => store.add_channel(&format!("c{at}"), 0.0, 1.0).map(drop),
        Verb::RemoveChannel(i) => {
            let name = store.channels().get(*i).map(|c| c.name.clone());
            store.remove_channel(&name.unwrap_or_default())
        }
        Verb::Observe(batch, drive, text, propose) => {
            let n = batch.steps.len() / DIM;
            let drives = vec![f32::from(*drive) / 3.0; scalars];
            let texts: Vec<String> = (0..n).map(|t| format!("{at}/{t} ü")).collect();
            let ids = [1000 + at as i64];
            let observation = Observation {
                episodes: batch.episodes(),
                drives: (*drive > 0).then_some(Drives::Episodes(&drives)),
                texts: text.then_some(&texts),
                ids: at.is_multiple_of(3).then_some(&ids),
                source: text.then_some("there"),
                propose: *propose,
            };
            store.observe(&observation).map(drop)
        }
        Verb::Insert(batch, text) => {
            let n = batch.steps.len() / DIM;
            let texts: Vec<String> = (0..n).map(|t| format!("{at}/{t}")).collect();
            store
                .insert(&batch.steps, None, text.then_some(&texts))
                .map(drop)
        }
        Verb::Replay(kind, budget, consolidate, max_drift) => {
            let ids = store.ids();
            let request = ReplayRequest {
                budget: *budget,
                tol: 1e-4,
                order: [Order::Prioritized, Order::Reverse, Order::Full][usize::from(kind % 3)],
                need: match kind / 3 % 3 {
                    0 => Need::Uniform,
                    1 => Need::Frequency,
                    _ => Need::From(ids.iter().copied().step_by(3).collect()),
                },
                lookahead: Lookahead {
                    floor: f64::from(kind / 9 % 2) * 1e-10,
                    extend: kind / 18 == 1,
                },
                consolidate: *consolidate,
                max_drift: *max_drift,
                seconds: None,
                threads: None,
            };
            store.replay(&request).map(drop)
        }
        Verb::VetoEpisodes(ids) => store.veto_episodes(ids.iter().map(|&id| id as i64).collect()),
        Verb::VetoMemory(rank) => {
            let id = store.ids().get(*rank).copied().unwrap_or(-1);
            store.veto_memory(id)
        }
        Verb::BindEmbedder(other) => store.bind_embedder(if *other { "other" } else { "one" }),
        Verb::Compact => Ok(()),
    }
}

fn live(directory: &Path, config: &Config, verbs: &[Verb]) -> Store {
    let (mut store, mut journal, _) =
        Journal::open(directory, Some(config), Durability::Process).unwrap();
    for (at, verb) in verbs.iter().enumerate() {
        if let Verb::Compact = verb {
            journal.compact(&store).unwrap();
        }
        let _ = journal.during(&mut store, |store| act(store, verb, at));
    }
    store
}

fn bytes(store: &Store) -> Vec<u8> {
    store.to_bytes().unwrap()
}

proptest! {
    #![proptest_config(cases(48))]

    /// The journal makes the store again, to the last bit of its snapshot: archive, ids and counters too.
    #[test]
    fn any_operations_come_back(
        config in config(DIM),
        keep in any::<bool>(),
        verbs in prop::collection::vec(verb(), 1..24),
    ) {
        let config = Config { keep_episodes: keep, ..config };
        let folder = Folder::new();
        let lived = live(&folder.0, &config, &verbs);
        let mut twin = Store::new(config.clone()).unwrap();
        for (at, verb) in verbs.iter().enumerate() {
            let _ = act(&mut twin, verb, at);
        }
        prop_assert_eq!(lived.digest(), twin.digest(), "a journal changes nothing");

        let (read, _) = Journal::read(&folder.0).unwrap();
        prop_assert_eq!(bytes(&read), bytes(&lived));
        let (opened, mut journal, found) =
            Journal::open(&folder.0, None, Durability::Power).unwrap();
        prop_assert_eq!(found.cut, 0);
        prop_assert_eq!(bytes(&opened), bytes(&lived));
        journal.close(&opened).unwrap();
        drop(journal);
        let (again, found) = Journal::read(&folder.0).unwrap();
        prop_assert_eq!(found.operations, 0);
        prop_assert_eq!(bytes(&again), bytes(&lived));
    }
}

/// A few operations of every kind that a journal of few bytes can hold.
fn few() -> Vec<Verb> {
    vec![
        Verb::AddTerminal(0, Some(0.8)),
        Verb::AddChannel,
        Verb::Observe(
            Batch::one([axis(1, DIM), axis(0, DIM)].concat(), DIM),
            2,
            true,
            false,
        ),
        Verb::Observe(Batch::one(axis(2, DIM), DIM), 1, false, true),
        Verb::Insert(Batch::one(axis(3, DIM), DIM), true),
        Verb::Replay(6, Some(3), true, None),
        Verb::Replay(27, Some(5), false, None),
        Verb::BindEmbedder(false),
        Verb::VetoEpisodes(vec![0, 0]),
    ]
}

/// Digests after 0, 1, … of the verbs.
fn stages(config: &Config, verbs: &[Verb]) -> Vec<String> {
    let mut store = Store::new(config.clone()).unwrap();
    let mut digests = vec![store.digest()];
    for (at, verb) in verbs.iter().enumerate() {
        act(&mut store, verb, at).unwrap();
        digests.push(store.digest());
    }
    digests
}

#[test]
fn a_journal_cut_anywhere_is_an_earlier_store() {
    let (config, verbs) = (Config::new(DIM), few());
    let digests = stages(&config, &verbs);
    let folder = Folder::new();
    live(&folder.0, &config, &verbs);
    let path = folder.journal();
    let whole = fs::read(&path).unwrap();
    let mut most = 0;
    for cut in (64..=whole.len()).rev() {
        fs::write(&path, &whole[..cut]).unwrap();
        let (store, found) = Journal::read(&folder.0).unwrap();
        let done = found.operations as usize;
        assert_eq!(store.digest(), digests[done], "cut at {cut}");
        assert!(done == verbs.len() || cut < whole.len());
        assert_eq!(
            found.cut_at.map(|at| at + found.cut),
            (found.cut > 0).then_some(cut as u64)
        );
        most = most.max(found.cut);
        if cut % 7 == 0 {
            // Writing goes on behind the cut.
            let (mut store, mut journal, _) =
                Journal::open(&folder.0, None, Durability::Process).unwrap();
            let last = Verb::Insert(Batch::one(axis(4, DIM), DIM), false);
            journal
                .during(&mut store, |store| act(store, &last, 0))
                .unwrap();
            drop(journal);
            let (read, found) = Journal::read(&folder.0).unwrap();
            assert_eq!((read.digest(), found.cut), (store.digest(), 0));
        }
    }
    assert!(most > 100);
    for cut in 0..64 {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = Journal::read(&folder.0).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error}");
    }
}

#[test]
fn a_second_writer_is_refused_and_a_reader_is_not() {
    let folder = Folder::new();
    let config = Config::new(DIM);
    let (mut store, mut journal, _) =
        Journal::open(&folder.0, Some(&config), Durability::Process).unwrap();
    let second = Journal::open(&folder.0, None, Durability::Process);
    assert!(matches!(
        second.err(),
        Some(Error::Locked { process, .. }) if process == Some(std::process::id())
    ));
    for (at, verb) in few().iter().enumerate() {
        journal
            .during(&mut store, |store| act(store, verb, at))
            .unwrap();
        assert_eq!(Journal::read(&folder.0).unwrap().0.digest(), store.digest());
    }
    drop(journal);
    assert!(Journal::open(&folder.0, None, Durability::Process).is_ok());
}

#[test]
fn a_refused_operation_leaves_no_record() {
    let folder = Folder::new();
    let config = Config::new(DIM);
    let (mut store, mut journal, _) =
        Journal::open(&folder.0, Some(&config), Durability::Process).unwrap();
    let before = fs::metadata(folder.journal()).unwrap().len();
    for verb in [
        Verb::RemoveChannel(0),
        Verb::Insert(Batch::one(vec![0.0; DIM], DIM), false),
        Verb::Observe(Batch::one(vec![0.0; DIM], DIM), 0, false, false),
        Verb::VetoEpisodes(vec![7]),
        Verb::AddTerminal(0, Some(0.0)),
    ] {
        assert!(
            journal
                .during(&mut store, |store| act(store, &verb, 0))
                .is_err()
        );
    }
    assert_eq!(fs::metadata(folder.journal()).unwrap().len(), before);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        journal.during(&mut store, |store| -> Result<(), Error> {
            act(store, &Verb::AddChannel, 0)?;
            panic!("a bug")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(
        fs::metadata(folder.journal()).unwrap().len(),
        before,
        "what a panic broke off is no operation"
    );
}

#[test]
fn a_compaction_cut_off_anywhere_loses_nothing() {
    let (config, verbs) = (Config::new(DIM), few());
    let folder = Folder::new();
    let lived = live(&folder.0, &config, &verbs);
    let (old, snapshot) = (
        fs::read(folder.journal()).unwrap(),
        fs::read(folder.0.join("snapshot.safetensors")).unwrap(),
    );
    let open = || {
        let (store, ..) = Journal::open(&folder.0, None, Durability::Process).unwrap();
        assert_eq!(store.digest(), lived.digest());
    };
    // The next journal is there, whole or in part, the snapshot is not.
    let next = folder.0.join("journal/00000002.log");
    for length in [0, 10, 64] {
        fs::write(&next, &old[..length]).unwrap();
        open();
        assert!(!next.exists());
    }
    let beside = folder.0.join("snapshot.safetensors.123.tmp");
    fs::write(&beside, &snapshot[..100]).unwrap();
    open();
    // The snapshot is there, the old journal too.
    let (store, mut journal, _) = Journal::open(&folder.0, None, Durability::Process).unwrap();
    let first = folder.journal();
    journal.compact(&store).unwrap();
    drop(journal);
    fs::write(&first, &old).unwrap();
    open();
    assert!(!first.exists());
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let config = Config::new(DIM);
    let (folder, other) = (Folder::new(), Folder::new());
    live(&folder.0, &config, &few());
    live(&other.0, &config, &few()[..3]);
    let snapshot = folder.0.join("snapshot.safetensors");
    let own = fs::read(&snapshot).unwrap();
    let refused = || {
        let error = Journal::open(&folder.0, None, Durability::Process).err();
        assert!(matches!(error, Some(Error::Format { .. })), "{error:?}");
    };
    // Another store's snapshot, an older one, none at all.
    let (store, mut journal, _) = Journal::open(&other.0, None, Durability::Process).unwrap();
    journal.compact(&store).unwrap();
    drop(journal);
    fs::copy(other.0.join("snapshot.safetensors"), &snapshot).unwrap();
    refused();
    store.save(&snapshot).unwrap();
    refused();
    fs::write(&snapshot, &own).unwrap();
    fs::rename(
        folder.0.join("journal/00000001.log"),
        folder.0.join("journal/00000002.log"),
    )
    .unwrap();
    refused();
    fs::remove_file(&snapshot).unwrap();
    let error = Journal::open(&folder.0, Some(&config), Durability::Process).err();
    assert!(matches!(error, Some(Error::Format { .. })), "{error:?}");
}

#[test]
fn a_plain_snapshot_becomes_a_store() {
    let folder = Folder::new();
    let mut store = Store::new(Config::new(DIM)).unwrap();
    for (at, verb) in few().iter().enumerate() {
        act(&mut store, verb, at).unwrap();
    }
    store.save(&folder.0.join("snapshot.safetensors")).unwrap();
    let (read, _) = Journal::read(&folder.0).unwrap();
    assert_eq!(bytes(&read), bytes(&store));
    let (opened, ..) = Journal::open(&folder.0, None, Durability::Process).unwrap();
    assert_eq!(bytes(&opened), bytes(&store));
    assert!(folder.journal().exists());
}

#[test]
fn a_repair_saves_what_is_intact_in_a_journal() {
    let config = Config::new(DIM);
    let verbs = few();
    for victim in 0..verbs.len() {
        let folder = Folder::new();
        live(&folder.0, &config, &verbs);
        let path = folder.journal();
        let mut file = fs::read(&path).unwrap();
        let mut at = 64;
        for _ in 0..victim {
            at += 24 + u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
        }
        file[at + 30] ^= 1;
        fs::write(&path, &file).unwrap();
        let error = Journal::open(&folder.0, None, Durability::Process).err();
        let error = error.expect("it is damaged").to_string();
        assert!(error.contains(&format!("byte {at}")), "{error}");

        let report = repair(&folder.0).unwrap();
        assert_eq!(report.damaged, 1);
        assert!(!report.is_complete());
        let done = report.operations as usize + report.refused.len();
        assert_eq!(done, verbs.len() - 1, "{report:?}");
        let (store, ..) = Journal::open(&folder.0, None, Durability::Process).unwrap();
        if report.refused.is_empty() {
            let mut twin = Store::new(config.clone()).unwrap();
            for (n, verb) in verbs.iter().enumerate().filter(|(n, _)| *n != victim) {
                let _ = act(&mut twin, verb, n);
            }
            assert_eq!(store.digest(), twin.digest());
        }
        assert!(folder.0.join("journal/00000001.log.damaged").exists());
    }
}

#[test]
fn a_repair_makes_a_damaged_snapshot_again_from_its_archive() {
    let folder = Folder::new();
    let lived = live(
        &folder.0,
        &Config::new(DIM),
        &[few(), vec![Verb::Compact]].concat(),
    );
    let path = folder.0.join("snapshot.safetensors");
    let whole = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let (mut exact, mut without) = (0, 0);
    for at in header..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert!(Journal::read(&folder.0).is_err());
        if at % 11 == 0 {
            let report = repair(&folder.0).unwrap();
            let (store, _) = Journal::read(&folder.0).unwrap();
            assert_eq!(store.digest(), lived.digest());
            let aside = folder.0.join("snapshot.safetensors.damaged");
            assert_eq!(fs::read(&aside).unwrap(), damaged);
            fs::remove_file(aside).unwrap();
            exact += usize::from(!report.rebuilt.is_empty());
            without += usize::from(report.archive_lost);
        }
    }
    assert!(exact > 10 && without > 5, "{exact} {without}");
}

/// A file of more than one read, rows across their bounds.
#[test]
fn a_long_snapshot_is_read_from_a_file_as_from_memory() {
    let rows: Vec<f32> = (0..20_000 * DIM)
        .map(|i| (i * 37 % 101) as f32 + 0.5)
        .collect();
    let mut store = Store::new(Config::new(DIM)).unwrap();
    store.insert(&rows, None, None).unwrap();
    let folder = Folder::new();
    let path = folder.0.join("store");
    store.save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    assert_eq!(bytes(&Store::load(&path).unwrap()), whole);
    assert_eq!(bytes(&Store::from_bytes(&whole).unwrap()), whole);
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(Store::load(&path).is_err());
}

/// One more episode of six steps, every seventh put aside.
fn live_once(store: &mut Store, n: usize) {
    let dim = store.config().dim;
    let batch = wave(dim, n);
    let drives: Vec<f32> = batch.steps.iter().step_by(dim).map(|x| x.abs()).collect();
    let texts: Vec<String> = (0..6).map(|t| format!("{n} {t}")).collect();
    let observation = Observation {
        episodes: batch.episodes(),
        drives: Some(Drives::Steps(&drives)),
        texts: Some(&texts),
        propose: n % 7 == 3,
        ..Observation::default()
    };
    store.observe(&observation).unwrap();
}

fn wave(dim: usize, n: usize) -> Batch {
    let number = |i: usize| ((n * 6 * dim + i) as f32 * 12.9898).sin() * 43_758.547 % 1.0;
    Batch::one((0..6 * dim).map(number).collect(), dim)
}

/// A store of which most memories took the place of others, laid out anew as a compaction does it, is the same store,
/// and so is what becomes of both.
#[test]
fn a_store_laid_out_anew_is_the_same_store() {
    for (dim, capacity, episodes) in [(4, 40, 80), (64, 1200, 320)] {
        let config = Config {
            capacity: Some(capacity),
            half_life: 3,
            min_novelty: 0.01,
            ..Config::new(dim)
        };
        let mut store = Store::new(config).unwrap();
        let mut end = vec![0.0; dim];
        end[0] = 1.0;
        store.add_terminal("t", &end, None, None).unwrap();
        store.add_channel("s", 0.0, 1.0).unwrap();
        for n in 0..episodes {
            live_once(&mut store, n);
        }
        assert!(store.len() > capacity / 2);
        let cancelled = Cancel::new(|| true).scope(|| Journal::reordered(&store));
        assert!(matches!(cancelled, Err(Error::Interrupted)));
        let mut reordered = Journal::reordered(&store)
            .unwrap()
            .expect("it is out of order");
        assert!(Journal::reordered(&reordered).unwrap().is_none());
        let before = reordered.nbytes();
        for n in 600..603 {
            assert_eq!(store.digest(), reordered.digest());
            let asked = wave(dim, n).steps;
            let found = |store: &Store| store.search(&asked, 5, None).unwrap();
            assert_eq!(found(&store), found(&reordered));
            live_once(&mut store, n);
            live_once(&mut reordered, n);
        }
        // There is room for more keys.
        let grown = reordered.nbytes() - before;
        assert!(dim < 64 || grown < capacity * dim * 4, "{grown}");
        store.veto_episodes(vec![70]).unwrap();
        reordered.veto_episodes(vec![70]).unwrap();
        assert_eq!(store.digest(), reordered.digest());
    }
}
