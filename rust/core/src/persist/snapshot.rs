//! Snapshots: the whole store as one safetensors file that anyone can read. `docs/format.md` has its bytes.
//!
//! The arrays are tensors; what is not an array is JSON in the metadata, under `state`; the archive's
//! arrays are pooled in `archive`. `checksum` covers the state and every tensor.
//! A file is untrusted input: every length, id and number is checked before it is used.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::channel::Channel;
use crate::config::Config;
use crate::copied;
use crate::discard::Heavy;
use crate::episodes::Episode;
use crate::error::{Error, Result};
use crate::history::Entry;
use crate::interrupt;
use crate::persist::digest::hex;
use crate::persist::directory::{Journal, SNAPSHOT};
use crate::persist::restore::Reader;
use crate::persist::sections::{Element, Section, archive, arrays, sections};
use crate::store::Store;

const FORMAT: &str = "sharpwave-snapshot";
const VERSION: &str = "1";

/// What is not an array, to be read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) given: Config,
    pub(crate) embedder: Option<String>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) clock: u64,
    pub(crate) inserts: u64,
    pub(crate) next_memory: i64,
    pub(crate) next_episode: i64,
    pub(crate) proposals: Vec<Episode>,
    pub(crate) history: Option<Vec<Entry>>,
    /// Lengths of the pooled arrays: proposals first, then history.
    pub(crate) pooled: Vec<usize>,
    /// The number of the journal that goes on from here, in a store's directory.
    #[serde(default)]
    pub(crate) journal: Option<u64>,
}

/// [`State`], to be written.
#[derive(Serialize)]
struct StateOf<'a> {
    config: &'a Config,
    given: &'a Config,
    embedder: Option<&'a str>,
    channels: &'a [Channel],
    clock: u64,
    inserts: u64,
    next_memory: i64,
    next_episode: i64,
    proposals: &'a [Episode],
    history: Option<&'a [Arc<Entry>]>,
    pooled: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<u64>,
}

/// A tensor in the header.
#[derive(Serialize)]
struct Place<'a> {
    dtype: String,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

/// What a header holds by name.
#[derive(Serialize)]
#[serde(untagged)]
enum Entered<'a> {
    Metadata(BTreeMap<&'static str, String>),
    Tensor(Place<'a>),
}

/// A snapshot about to be written: the header is known, the tensors are poured out.
pub(crate) struct Snapshot<'a> {
    header: Vec<u8>,
    sections: Vec<Section<'a>>,
    /// As in the metadata.
    pub(crate) checksum: String,
}

/// A store that was read, and what its file says about itself.
pub(crate) struct Loaded {
    pub(crate) store: Store,
    pub(crate) checksum: String,
    pub(crate) journal: Option<u64>,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn of(store: &'a Store, journal: Option<u64>) -> Result<Self> {
        let mut all: Vec<Section<'_>> = sections(store)
            .into_iter()
            .map(|(_, section)| section)
            .collect();
        all.push(archive(store));
        let state = StateOf {
            config: store.config(),
            given: store.given_config(),
            embedder: store.embedder(),
            channels: store.channels(),
            clock: store.clock,
            inserts: store.inserts,
            next_memory: store.next_memory,
            next_episode: store.next_episode,
            proposals: &store.proposals,
            history: store.history.as_deref(),
            pooled: arrays(store).map(<[f32]>::len).collect(),
            journal,
        };
        let state = serde_json::to_string(&state)
            .map_err(|error| Error::format("state", error.to_string()))?;

        all.sort_by_key(|section| section.name);
        let mut sum = Checksum::new(&state);
        for section in &all {
            let kind = dtype(section.element);
            sum.tensor(section.name, kind, &section.shape, section.size());
            section.pour(&mut |piece| {
                sum.bytes(piece);
                Ok(())
            })?;
        }
        let (checksum, sums) = sum.finish();
        // Wide elements first, so that every tensor is aligned.
        all.sort_by_key(|section| (std::cmp::Reverse(section.element.size()), section.name));
        let metadata = BTreeMap::from([
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_owned()),
            ("checksum", checksum.clone()),
            ("state", state),
            ("sums", sums),
        ]);
        Ok(Self {
            header: header(metadata, &all)?,
            sections: all,
            checksum,
        })
    }

    pub(crate) fn size(&self) -> usize {
        self.header.len() + self.sections.iter().map(Section::size).sum::<usize>()
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> Result<()> {
        out.write_all(&self.header)?;
        for section in &self.sections {
            section.pour(&mut |piece| Ok(out.write_all(piece)?))?;
        }
        Ok(())
    }

    /// Writes the file beside `path` and renames it into place, so that a crash leaves the old one.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.tmp", std::process::id()));
        let beside = PathBuf::from(beside);
        let written = (|| {
            let mut out = BufWriter::with_capacity(1 << 20, fs::File::create(&beside)?);
            self.write(&mut out)?;
            let file = out
                .into_inner()
                .map_err(std::io::IntoInnerError::into_error)?;
            file.sync_all()?;
            Ok(fs::rename(&beside, path)?)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

/// Makes sure that what was renamed or created at `path` is there after a power cut.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    #[cfg(unix)]
    fs::File::open(parent)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = parent;
    Ok(())
}

/// Length, JSON and padding, as safetensors has them; `sections` in the order of their bytes.
fn header(metadata: BTreeMap<&'static str, String>, sections: &[Section<'_>]) -> Result<Vec<u8>> {
    let mut entries = BTreeMap::from([("__metadata__", Entered::Metadata(metadata))]);
    let mut at = 0usize;
    for section in sections {
        let end = at + section.size();
        entries.insert(
            section.name,
            Entered::Tensor(Place {
                dtype: format!("{:?}", dtype(section.element)),
                shape: &section.shape,
                data_offsets: [at, end],
            }),
        );
        at = end;
    }
    let mut json =
        serde_json::to_vec(&entries).map_err(|error| Error::format("header", error.to_string()))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}

impl Store {
    /// The store as the bytes of a safetensors file; the same store has the same bytes.
    ///
    /// # Errors
    /// [`Error::Interrupted`] within [`crate::interruptible`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let snapshot = Snapshot::of(self, None)?;
        let mut bytes = Heavy::new(Vec::new());
        bytes
            .try_reserve_exact(snapshot.size())
            .map_err(|error| Error::Io(std::io::Error::other(error)))?;
        snapshot.write(&mut *bytes)?;
        Ok(bytes.keep())
    }

    /// The store that [`Store::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Error::Format`] naming the section that is damaged or foreign.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Ok(read(bytes)?.store)
    }

    /// Writes a snapshot beside `path` and renames it into place, so that a crash leaves the old one.
    ///
    /// # Errors
    /// [`Error::Io`] as the operating system gives it, [`Error::Interrupted`] within
    /// [`crate::interruptible`].
    pub fn save(&self, path: &Path) -> Result<()> {
        Snapshot::of(self, None)?.save(path)?;
        sync_directory(path)
    }

    /// Reads a snapshot, or the store of a directory as it is now.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is damaged.
    pub fn load(path: &Path) -> Result<Self> {
        if path.join(SNAPSHOT).is_file() {
            return Ok(Journal::read(path)?.0);
        }
        Self::from_bytes(&Heavy::new(read_file(path)?))
    }
}

/// A snapshot file taken apart, nothing of it believed yet.
pub(crate) struct File<'a> {
    state: String,
    tensors: BTreeMap<String, TensorView<'a>>,
    /// What is true of the bytes…
    found: (String, String),
    /// …and what the file says: checksum and sums.
    pub(crate) said: (String, String),
}

impl<'a> File<'a> {
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self> {
        let foreign = |error: safetensors::SafeTensorError| {
            Error::format("header", format!("not a safetensors file: {error}"))
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(foreign)?;
        let file = SafeTensors::deserialize(bytes).map_err(foreign)?;
        let metadata = header
            .metadata()
            .as_ref()
            .ok_or_else(|| Error::format("header", "no metadata: not a sharpwave snapshot"))?;
        let entry = |name: &str| {
            metadata
                .get(name)
                .cloned()
                .ok_or_else(|| Error::format(name, "missing: not a sharpwave snapshot"))
        };
        if entry("format")? != FORMAT {
            return Err(Error::format("format", "not a sharpwave snapshot"));
        }
        let version = entry("version")?;
        if version != VERSION {
            return Err(Error::format(
                "version",
                format!("{version:?} is not known to this version of sharpwave"),
            ));
        }
        let state = entry("state")?;
        let tensors: BTreeMap<String, TensorView<'_>> = file.tensors().into_iter().collect();
        let mut sum = Checksum::new(&state);
        for (name, tensor) in &tensors {
            sum.tensor(name, tensor.dtype(), tensor.shape(), tensor.data().len());
            for piece in tensor.data().chunks(1 << 20) {
                interrupt::check()?;
                sum.bytes(piece);
            }
        }
        Ok(Self {
            state,
            tensors,
            found: sum.finish(),
            said: (entry("checksum")?, entry("sums")?),
        })
    }

    pub(crate) fn is_sound(&self) -> bool {
        // A fuzzer would never guess a checksum, and find nothing behind it.
        cfg!(fuzzing) || self.found == self.said
    }

    /// The names of the damaged parts: `state`, and sections.
    pub(crate) fn damaged(&self) -> Vec<String> {
        let sums = |json: &str| serde_json::from_str(json).unwrap_or_default();
        let found: BTreeMap<String, u32> = sums(&self.found.1);
        let said: BTreeMap<String, u32> = sums(&self.said.1);
        let wrong = |(name, sum): &(String, u32)| said.get(name) != Some(sum);
        found
            .into_iter()
            .filter(wrong)
            .map(|(name, _)| name)
            .collect()
    }

    pub(crate) fn state(&self) -> Result<State> {
        serde_json::from_str(&self.state).map_err(|error| Error::format("state", error.to_string()))
    }

    /// The archive's numbers.
    pub(crate) fn archive(&self) -> Result<Vec<f32>> {
        Reader::of(&self.tensors).archive()
    }

    /// The store, its arrays checked.
    pub(crate) fn store(&self, state: State) -> Result<Store> {
        Reader::of(&self.tensors).store(state)
    }
}

/// A whole file, in pieces, so that it can be given up.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let mut bytes = Heavy::new(Vec::new());
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    bytes
        .try_reserve_exact(length)
        .map_err(|error| Error::Io(std::io::Error::other(error)))?;
    while (&mut file).take(1 << 22).read_to_end(&mut bytes)? > 0 {
        interrupt::check()?;
    }
    Ok(bytes.keep())
}

/// Reads a snapshot, with what a directory needs to know of it.
pub(crate) fn read(bytes: &[u8]) -> Result<Loaded> {
    let file = File::open(bytes)?;
    if !file.is_sound() {
        return Err(Error::format("checksum", "the file is damaged"));
    }
    let mut state = Heavy::new(file.state()?);
    let journal = state.journal;
    let archive = Heavy::new(file.archive()?);
    state.unpool(&archive)?;
    drop(archive);
    let store = file.store(state.keep())?;
    Ok(Loaded {
        store,
        checksum: file.said.0,
        journal,
    })
}

impl State {
    /// Gives every array its part of the pool back.
    pub(crate) fn unpool(&mut self, mut pool: &[f32]) -> Result<()> {
        let lengths = std::mem::take(&mut self.pooled);
        let proposals = self
            .proposals
            .iter_mut()
            .flat_map(|episode| [&mut episode.steps, &mut episode.drives]);
        let history = self
            .history
            .iter_mut()
            .flatten()
            .flat_map(|entry| entry.operation.arrays_mut());
        let arrays: Vec<_> = proposals.chain(history).collect();
        if arrays.len() != lengths.len() {
            return Err(Error::format("archive", "arrays are missing"));
        }
        for (array, length) in arrays.into_iter().zip(lengths) {
            let Some((head, tail)) = pool.split_at_checked(length) else {
                return Err(Error::format("archive", "shorter than its parts"));
            };
            copied::append(array, head, &interrupt::enough)?;
            pool = tail;
        }
        if pool.is_empty() {
            Ok(())
        } else {
            Err(Error::format("archive", "longer than its parts"))
        }
    }
}

pub(crate) fn dtype(element: Element) -> Dtype {
    match element {
        Element::U8 => Dtype::U8,
        Element::U32 => Dtype::U32,
        Element::I64 => Dtype::I64,
        Element::U64 => Dtype::U64,
        Element::F32 => Dtype::F32,
        Element::F64 => Dtype::F64,
    }
}

/// SHA-256 over version, state and every tensor by name, each part with its length before it; and a CRC-32 of the
/// state and of each tensor, so that a repair knows which of them is damaged.
struct Checksum {
    all: Sha256,
    part: crc32fast::Hasher,
    name: String,
    sums: BTreeMap<String, u32>,
}

impl Checksum {
    fn new(state: &str) -> Self {
        let mut sum = Self {
            all: Sha256::new(),
            part: crc32fast::Hasher::new(),
            name: "state".into(),
            sums: BTreeMap::new(),
        };
        sum.framed(VERSION.as_bytes());
        sum.all.update((state.len() as u64).to_le_bytes());
        sum.bytes(state.as_bytes());
        sum
    }

    /// What comes before the `size` bytes of a tensor.
    fn tensor(&mut self, name: &str, dtype: Dtype, shape: &[usize], size: usize) {
        self.framed(name.as_bytes());
        self.framed(format!("{dtype:?} {shape:?}").as_bytes());
        self.all.update((size as u64).to_le_bytes());
        self.end_part(name);
    }

    fn end_part(&mut self, next: &str) {
        let part = std::mem::take(&mut self.part).finalize();
        let name = std::mem::replace(&mut self.name, next.to_owned());
        self.sums.insert(name, part);
    }

    fn framed(&mut self, bytes: &[u8]) {
        self.all.update((bytes.len() as u64).to_le_bytes());
        self.all.update(bytes);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.all.update(bytes);
        self.part.update(bytes);
    }

    /// The metadata `checksum` and `sums`.
    fn finish(mut self) -> (String, String) {
        self.end_part("");
        let sums = serde_json::to_string(&self.sums).expect("names and numbers have a JSON form");
        (hex(&self.all.finalize()), sums)
    }
}
