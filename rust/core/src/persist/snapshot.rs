//! Snapshots: the whole store as one safetensors file that anyone can read.
//!
//! The arrays are tensors; what is not an array is JSON in the metadata, under `state`; the archive's
//! arrays are pooled in `archive`. `checksum` covers the state, the archive's JSON and every tensor.
//! A file is untrusted input: every length, id and number is checked before it is used.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::channel::Channel;
use crate::config::Config;
use crate::episodes::Episode;
use crate::error::{Error, Result};
use crate::history::Entry;
use crate::persist::digest::hex;
use crate::persist::restore::Reader;
use crate::persist::sections::{Element, Section, visit};
use crate::store::Store;

const FORMAT: &str = "sharpwave-snapshot";
const VERSION: &str = "1";

/// What is not an array.
#[derive(Serialize, Deserialize)]
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
}

impl Store {
    /// The store as the bytes of a safetensors file.
    ///
    /// # Errors
    /// [`Error::Format`] if the bytes cannot be laid out (a section beyond the format's limits).
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut sections = Vec::new();
        visit(self, |_, section| sections.push(section));
        let (state, pool) = self.state();
        sections.push(Section {
            name: "archive",
            element: Element::F32,
            shape: vec![pool.len()],
            bytes: pool.iter().flat_map(|x| x.to_le_bytes()).collect(),
        });
        let state = serde_json::to_string(&state)
            .map_err(|error| Error::format("state", error.to_string()))?;
        let mut tensors = BTreeMap::new();
        for section in &sections {
            let view = TensorView::new(
                dtype(section.element),
                section.shape.clone(),
                &section.bytes,
            )
            .map_err(|error| Error::format(section.name, error.to_string()))?;
            tensors.insert(section.name.to_owned(), view);
        }
        let metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("version".to_owned(), VERSION.to_owned()),
            ("checksum".to_owned(), checksum(&state, &tensors)),
            ("state".to_owned(), state),
        ]);
        safetensors::serialize(tensors, Some(metadata))
            .map_err(|error| Error::format("file", error.to_string()))
    }

    /// The store that [`Store::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Error::Format`] naming the section that is damaged or foreign.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
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
                .map(String::as_str)
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
        if checksum(state, &tensors) != entry("checksum")? {
            return Err(Error::format("checksum", "the file is damaged"));
        }
        let state: State = serde_json::from_str(state)
            .map_err(|error| Error::format("state", error.to_string()))?;
        Reader { tensors }.store(state)
    }

    /// Writes a snapshot beside `path` and renames it into place, so that a crash leaves the old one.
    ///
    /// # Errors
    /// [`Error::Io`] as the operating system gives it.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.to_bytes()?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.tmp", std::process::id()));
        let beside = Path::new(&beside);
        let written = (|| {
            let mut file = fs::File::create(beside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(beside, path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(beside);
        }
        Ok(written?)
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is damaged.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_bytes(&fs::read(path)?)
    }

    fn state(&self) -> (State, Vec<f32>) {
        let mut state = State {
            config: self.config.clone(),
            given: self.given_config().clone(),
            embedder: self.embedder.clone(),
            channels: self.channels().to_vec(),
            clock: self.clock,
            inserts: self.inserts,
            next_memory: self.next_memory,
            next_episode: self.next_episode,
            proposals: self.proposals.clone(),
            history: self.history.clone(),
            pooled: Vec::new(),
        };
        let mut pool = Vec::new();
        let mut lengths = Vec::new();
        for array in state.arrays() {
            lengths.push(array.len());
            pool.append(array);
        }
        state.pooled = lengths;
        (state, pool)
    }
}

impl State {
    fn arrays(&mut self) -> Vec<&mut Vec<f32>> {
        let proposals = self
            .proposals
            .iter_mut()
            .flat_map(|episode| [&mut episode.steps, &mut episode.drives]);
        let history = self
            .history
            .iter_mut()
            .flatten()
            .flat_map(|entry| entry.operation.arrays());
        proposals.chain(history).collect()
    }

    /// Gives every array its part of the pool back.
    pub(crate) fn unpool(&mut self, mut pool: &[f32]) -> Result<()> {
        let lengths = std::mem::take(&mut self.pooled);
        let arrays = self.arrays();
        if arrays.len() != lengths.len() {
            return Err(Error::format("archive", "arrays are missing"));
        }
        for (array, length) in arrays.into_iter().zip(lengths) {
            let Some((head, tail)) = pool.split_at_checked(length) else {
                return Err(Error::format("archive", "shorter than its parts"));
            };
            array.extend_from_slice(head);
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

/// SHA-256 over version, state and every tensor by name.
fn checksum(state: &str, tensors: &BTreeMap<String, TensorView<'_>>) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(VERSION.as_bytes());
    part(state.as_bytes());
    for (name, tensor) in tensors {
        part(name.as_bytes());
        part(format!("{:?} {:?}", tensor.dtype(), tensor.shape()).as_bytes());
        part(tensor.data());
    }
    hex(&hash.finalize())
}
