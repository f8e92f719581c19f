//! Damaged and forged files: each byte of a small one, one at a time.
//!
//! A damage is found by a checksum. A forgery has right checksums and wrong content: it is refused, or it is a store that
//! holds together. Neither makes a reader panic, nor allocate out of proportion to the file.

mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use sharpwave_core::{
    Config, Drives, Durability, Error, Journal, Log, Observation, ReplayRequest, Store,
};
use world::{Batch, axis, cases, score};

/// Counts what this thread allocates, and notes the largest piece.
struct Counting;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller's promises are the system's demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` returns, and the largest piece of memory it asked for.
fn largest<T>(work: impl FnOnce() -> T) -> (T, usize) {
    LARGEST.set(0);
    let done = work();
    (done, LARGEST.get())
}

const DIM: usize = 4;

/// A little of everything.
fn fill(mut act: impl FnMut(&mut dyn FnMut(&mut Store))) {
    act(&mut |store| {
        let episodes = Batch::one((0..4).flat_map(|i| axis(i, DIM)).collect(), DIM);
        store.calibrate(&episodes.episodes()).unwrap();
    });
    act(&mut |store| {
        store
            .add_terminal("goal", &axis(0, DIM), None, None)
            .unwrap();
    });
    act(&mut |store| {
        store.add_channel("reward", 0.0, 1.0).unwrap();
    });
    for (at, propose) in [false, false, true].into_iter().enumerate() {
        act(&mut |store| {
            let steps = [axis(1 + at, DIM), axis(0, DIM), vec![1.0, 1.0, 0.5, 0.0]].concat();
            let batch = Batch::one(steps, DIM);
            let texts = ["one", "two", "three ü"].map(str::to_owned);
            let observation = Observation {
                episodes: batch.episodes(),
                drives: Some(Drives::Episodes(&[0.5])),
                texts: Some(&texts),
                source: Some("a source"),
                propose,
                ..Observation::default()
            };
            store.observe(&observation).unwrap();
        });
    }
    act(&mut |store| {
        store.insert(&[0.3, 0.1, 0.9, 0.2], None, None).unwrap();
    });
    act(&mut |store| {
        let request = ReplayRequest {
            budget: Some(2),
            ..ReplayRequest::default()
        };
        store.replay(&request).unwrap();
    });
    act(&mut |store| store.bind_embedder("an embedder").unwrap());
}

fn config() -> Config {
    Config {
        k: 3,
        capacity: Some(50),
        ..Config::new(DIM)
    }
}

fn store() -> Store {
    let mut store = Store::new(config()).unwrap();
    fill(|verb| verb(&mut store));
    store
}

/// Uses what was read in every way that could trip over it.
fn exercise(store: &Store) {
    let d = store.config().dim;
    let batch = Batch::one([axis(0, d), axis(d - 1, d)].concat(), d);
    score(store, &batch, "coverage", 1, None, None);
    store.search(&batch.steps, 5, None).unwrap();
    let _ = (store.digest(), store.edges());
    let mut copy = Store::from_bytes(&store.to_bytes().unwrap()).unwrap();
    assert_eq!(copy.digest(), store.digest());
    let request = ReplayRequest {
        budget: Some(50),
        consolidate: true,
        ..ReplayRequest::default()
    };
    let _ = copy.replay(&request);
    let _ = copy.veto_episodes(vec![0]);
    let observation = Observation {
        episodes: batch.episodes(),
        ..Observation::default()
    };
    let _ = copy.observe(&observation);
}

/// A snapshot taken apart and put together again, its checksums right.
struct Forged {
    header: serde_json::Map<String, serde_json::Value>,
    data: Vec<u8>,
}

impl Forged {
    fn of(bytes: &[u8]) -> Self {
        let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        Self {
            header: serde_json::from_slice(&bytes[8..8 + n]).unwrap(),
            data: bytes[8 + n..].to_vec(),
        }
    }

    fn state(&self) -> String {
        self.header["__metadata__"]["state"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn set_state(&mut self, state: &str) {
        self.header["__metadata__"]["state"] = state.into();
    }

    fn sealed(&self) -> Vec<u8> {
        let mut header = self.header.clone();
        let (mut all, mut sums) = (Sha256::new(), BTreeMap::new());
        let mut part = |bytes: &[u8]| {
            all.update((bytes.len() as u64).to_le_bytes());
            all.update(bytes);
        };
        let state = self.state();
        part(b"1");
        part(state.as_bytes());
        sums.insert("state".to_owned(), crc32fast::hash(state.as_bytes()));
        let mut names: Vec<&String> = self.header.keys().collect();
        names.sort();
        for name in names.into_iter().filter(|name| *name != "__metadata__") {
            let tensor = &self.header[name];
            let at = |i: usize| tensor["data_offsets"][i].as_u64().unwrap() as usize;
            let shape: Vec<u64> = tensor["shape"]
                .as_array()
                .unwrap()
                .iter()
                .map(|n| n.as_u64().unwrap())
                .collect();
            let bytes = &self.data[at(0)..at(1)];
            part(name.as_bytes());
            part(format!("{} {shape:?}", tensor["dtype"].as_str().unwrap()).as_bytes());
            part(bytes);
            sums.insert(name.clone(), crc32fast::hash(bytes));
        }
        let hex = format!("{:x}", all.finalize());
        header["__metadata__"]["checksum"] = hex.into();
        header["__metadata__"]["sums"] = serde_json::to_string(&sums).unwrap().into();
        let mut json = serde_json::to_vec(&header).unwrap();
        json.resize(json.len().next_multiple_of(8), b' ');
        [&(json.len() as u64).to_le_bytes()[..], &json, &self.data].concat()
    }
}

/// Refused, or a store that holds together; nothing large allocated on the way.
fn read_forged(bytes: &[u8]) -> bool {
    let (read, largest) = largest(|| Store::from_bytes(bytes));
    assert!(
        largest <= 8 * bytes.len() + (1 << 20),
        "{largest} bytes at once"
    );
    match read {
        Ok(store) => {
            exercise(&store);
            true
        }
        Err(Error::Format { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn every_damaged_byte_of_a_snapshot_is_found_or_harmless() {
    let bytes = store().to_bytes().unwrap();
    let digest = store().digest();
    let mut harmless = 0;
    for at in 0..bytes.len() {
        for mask in [1, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= mask;
            let (read, largest) = largest(|| Store::from_bytes(&damaged));
            assert!(
                largest <= 8 * bytes.len() + (1 << 20),
                "{at}: {largest} bytes at once"
            );
            match read {
                Err(Error::Format { .. }) => {}
                Ok(store) => {
                    assert_eq!(store.digest(), digest, "{at}");
                    harmless += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    // Padding behind the header.
    assert!(harmless < 12, "{harmless}");
}

#[test]
fn every_cut_of_a_snapshot_is_found() {
    let bytes = store().to_bytes().unwrap();
    for length in 0..bytes.len() {
        let (read, largest) = largest(|| Store::from_bytes(&bytes[..length]));
        assert!(matches!(read, Err(Error::Format { .. })), "{length}");
        assert!(
            largest <= bytes.len() + (1 << 16),
            "{largest} bytes at once"
        );
    }
}

#[test]
fn a_seal_that_is_right_is_accepted() {
    let bytes = store().to_bytes().unwrap();
    let read = Store::from_bytes(&Forged::of(&bytes).sealed()).unwrap();
    assert_eq!(read.to_bytes().unwrap(), bytes);
}

#[test]
fn every_forged_byte_of_an_array_is_refused_or_holds_together() {
    let whole = Forged::of(&store().to_bytes().unwrap());
    let (mut taken, mut refused) = (0, 0);
    for at in 0..whole.data.len() {
        for mask in [1, 0x80] {
            let mut data = whole.data.clone();
            data[at] ^= mask;
            let header = whole.header.clone();
            if read_forged(&Forged { header, data }.sealed()) {
                taken += 1;
            } else {
                refused += 1;
            }
        }
    }
    assert!(taken > 100 && refused > 100, "{taken} {refused}");
}

#[test]
fn every_forged_byte_of_the_state_is_refused_or_holds_together() {
    let mut forged = Forged::of(&store().to_bytes().unwrap());
    let state = forged.state();
    let mut taken = 0;
    for (at, letter) in state.char_indices() {
        for other in ['9', '-', '"', ' '] {
            let (before, after) = (&state[..at], &state[at + letter.len_utf8()..]);
            forged.set_state(&format!("{before}{other}{after}"));
            taken += usize::from(read_forged(&forged.sealed()));
        }
    }
    assert!(taken > 50, "{taken}");
}

#[test]
fn forged_numbers_are_refused() {
    let mut forged = Forged::of(&store().to_bytes().unwrap());
    let state = forged.state();
    let numbers = [
        "0",
        "-1",
        "4294967296",
        "9007199254740993",
        "9223372036854775807",
        "1e300",
    ];
    let mut at = 0;
    while let Some(colon) = state[at..].find(':') {
        at += colon + 1;
        let end = at + state[at..].find(|c| !"-+.0123456789e".contains(c)).unwrap();
        if end > at {
            for number in numbers {
                forged.set_state(&format!("{}{number}{}", &state[..at], &state[end..]));
                read_forged(&forged.sealed());
            }
        }
    }
}

#[test]
fn forged_shapes_beyond_4_gib_are_refused() {
    let whole = Forged::of(&store().to_bytes().unwrap());
    for (name, shape) in [
        ("keys", vec![1u64 << 30, 1 << 30]),
        ("keys", vec![u64::MAX, 4]),
        ("text_bytes", vec![1 << 40]),
        ("archive", vec![(1 << 32) + 1]),
        ("ids", vec![0x2000_0000_0000_0001]),
    ] {
        let mut forged = Forged {
            header: whole.header.clone(),
            data: whole.data.clone(),
        };
        forged.header[name]["shape"] = shape.into();
        assert!(!read_forged(&forged.sealed()), "{name}");
        let begin = forged.header[name]["data_offsets"][0].as_u64().unwrap();
        let mut far = forged.header.clone();
        far[name]["data_offsets"] = vec![begin, begin + (5 << 30)].into();
        let mut json = serde_json::to_vec(&far).unwrap();
        json.resize(json.len().next_multiple_of(8), b' ');
        let bytes = [&(json.len() as u64).to_le_bytes()[..], &json, &whole.data].concat();
        assert!(!read_forged(&bytes), "{name}");
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sharpwave-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let (mut store, mut journal, _) =
            Journal::open(&path, Some(&config()), Durability::Process).unwrap();
        fill(|verb| {
            journal
                .during(&mut store, |store| {
                    verb(store);
                    Ok::<_, Error>(())
                })
                .unwrap();
        });
        Self(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join("journal/00000001.log")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_damaged_byte_of_a_journal_is_found() {
    let folder = Folder::new("flip");
    let whole = fs::read(folder.log()).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= if at % 2 == 0 { 1 } else { 0xff };
        fs::write(folder.log(), &damaged).unwrap();
        let (read, largest) = largest(|| Journal::read(&folder.0));
        let error = read.map(drop).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{at}: {error}");
        assert!(error.to_string().starts_with("journal/00000001.log"));
        assert!(
            largest <= 8 * whole.len() + (1 << 20),
            "{at}: {largest} bytes at once"
        );
    }
}

/// Where each record begins, and its payload.
fn records(file: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let (mut at, mut all) = (64, Vec::new());
    while at < file.len() {
        let n = u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
        all.push((at, file[at + 24..at + 24 + n].to_vec()));
        at += 24 + n;
    }
    all
}

fn framed(number: usize, payload: &[u8]) -> Vec<u8> {
    let mut record = (payload.len() as u64).to_le_bytes().to_vec();
    record.extend((number as u64).to_le_bytes());
    record.extend(crc32fast::hash(payload).to_le_bytes());
    record.extend(crc32fast::hash(&record).to_le_bytes());
    record.extend(payload);
    record
}

/// Sound records in the wrong places, and lengths that no file has: refused, or a record that was never finished.
#[test]
fn records_out_of_place_and_absurd_lengths_are_found() {
    let folder = Folder::new("place");
    let whole = fs::read(folder.log()).unwrap();
    let all = records(&whole);
    let (begin, payload) = &all[1];
    let read = |rest: &[u8]| {
        fs::write(folder.log(), [&whole[..*begin], rest].concat()).unwrap();
        let (read, largest) = largest(|| Journal::read(&folder.0));
        assert!(
            largest <= 8 * whole.len() + (1 << 20),
            "{largest} bytes at once"
        );
        read.map(|(_, recovery)| (recovery.operations, recovery.cut))
    };
    let swapped = [framed(2, &all[2].1), framed(1, payload)].concat();
    let twice = [framed(1, payload), framed(1, payload)].concat();
    for misplaced in [swapped, twice] {
        assert!(matches!(read(&misplaced), Err(Error::Format { .. })));
    }
    for length in [1 << 32, (1 << 32) + 5, u64::MAX - 23, u64::MAX] {
        let mut record = framed(1, b"");
        record[..8].copy_from_slice(&length.to_le_bytes());
        let sum = crc32fast::hash(&record[..20]);
        record[20..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(read(&record).unwrap(), (1, 24), "{length}");
    }
    // After a power cut a file may be longer than what was written to it.
    let mut zeros = vec![0; 10_000];
    assert_eq!(read(&zeros).unwrap(), (1, 10_000));
    zeros[9_999] = 1;
    assert!(matches!(read(&zeros), Err(Error::Format { .. })));
}

#[test]
fn every_forged_byte_of_a_journal_is_refused_or_holds_together() {
    let folder = Folder::new("forge");
    let whole = fs::read(folder.log()).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for (number, (begin, payload)) in records(&whole).iter().enumerate() {
        for at in 0..payload.len() {
            for other in [payload[at] ^ 1, payload[at] ^ 0x80, b'9', b'-'] {
                let mut forged = payload.clone();
                forged[at] = other;
                let file = [&whole[..*begin], &framed(number, &forged)].concat();
                fs::write(folder.log(), &file).unwrap();
                let (read, largest) = largest(|| Journal::read(&folder.0));
                assert!(
                    largest <= 8 * whole.len() + (1 << 20),
                    "{largest} bytes at once"
                );
                match read {
                    Ok((store, _)) => {
                        if taken % 5 == 0 {
                            exercise(&store);
                        }
                        taken += 1;
                    }
                    Err(Error::Format { .. }) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
    assert!(taken > 100 && refused > 100, "{taken} {refused}");
}

proptest! {
    #![proptest_config(cases(300))]

    /// Several wrong bytes at once, anywhere, under right checksums.
    #[test]
    fn wilder_forgeries_are_refused_or_hold_together(
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut forged = Forged::of(&store().to_bytes().unwrap());
        for (at, byte) in bytes {
            let n = forged.data.len();
            forged.data[at.index(n)] = byte;
        }
        read_forged(&forged.sealed());
    }
}
