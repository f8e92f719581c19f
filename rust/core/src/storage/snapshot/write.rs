//! Snapshots: the whole store as one safetensors file that anyone can read. `docs/format.md` has its bytes.
//!
//! The arrays are tensors; what is not an array is JSON in the metadata, under `state`; the archive's
//! arrays are pooled in `archive`. `checksum` covers the state and every tensor.
//! `file.rs` reads it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::tensor::TensorInfo;
use serde::Serialize;

use crate::base::room;
use crate::error::{Error, Result};
use crate::storage::folder::Folder;
use crate::storage::snapshot::checksum::Checksum;
use crate::storage::snapshot::sections::{Section, archive, sections, size};
use crate::storage::snapshot::state::{FORMAT, State, VERSION};
use crate::store::Store;

/// What a header holds by name.
#[derive(Serialize)]
#[serde(untagged)]
enum HeaderEntry {
    Metadata(BTreeMap<&'static str, String>),
    Tensor(TensorInfo),
}

/// A snapshot about to be written: the header is known, the tensors are poured out.
pub(crate) struct Snapshot<'a> {
    header: Vec<u8>,
    sections: Vec<Section<'a>>,
    /// As in the metadata.
    pub(crate) checksum: String,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn of(store: &'a Store, journal: Option<u64>) -> Result<Self> {
        let mut all: Vec<Section<'_>> = sections(store)
            .into_iter()
            .map(|(_, section)| section)
            .collect();
        all.push(archive(store));
        let state = State {
            config: Cow::Borrowed(&store.config),
            given: Cow::Borrowed(&store.given),
            embedder: store.embedder().map(Cow::Borrowed),
            channels: store.channels().into(),
            clock: store.clock,
            inserts: store.inserts,
            next_memory: store.next_memory,
            next_episode: store.next_episode,
            proposals: Cow::Borrowed(&store.proposals),
            history: store.history.as_deref().map(Cow::Borrowed),
            pooled: store.archived().map(<[f32]>::len).collect(),
            journal,
        };
        let state = serde_json::to_string(&state)
            .map_err(|error| Error::format("state", error.to_string()))?;

        all.sort_by_key(|section| section.name);
        let mut sum = Checksum::new(&state);
        for section in &all {
            sum.tensor(section.name, section.dtype, &section.shape, section.size());
            section.pour(&mut |piece| {
                sum.bytes(piece);
                Ok(())
            })?;
        }
        let (checksum, sums) = sum.finish();
        // Wide elements first, so that every tensor is aligned.
        all.sort_by_key(|section| (std::cmp::Reverse(size(section.dtype)), section.name));
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

    /// Writes the file beside the one of that name and renames it into place, so that a crash leaves the old one. What
    /// `ready` says is asked for at the last moment.
    pub(crate) fn save(
        &self,
        folder: &Folder,
        name: impl AsRef<Path>,
        ready: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        folder.replace(name, |file| {
            let mut out = BufWriter::with_capacity(1 << 20, file);
            self.write(&mut out)?;
            out.flush()?;
            ready()
        })
    }
}

/// Length, JSON and padding, as safetensors has them; `sections` in the order of their bytes.
fn header(metadata: BTreeMap<&'static str, String>, sections: &[Section<'_>]) -> Result<Vec<u8>> {
    let mut entries = BTreeMap::from([("__metadata__", HeaderEntry::Metadata(metadata))]);
    let mut at = 0usize;
    for section in sections {
        let end = at + section.size();
        entries.insert(
            section.name,
            HeaderEntry::Tensor(TensorInfo {
                dtype: section.dtype,
                shape: section.shape.clone(),
                data_offsets: (at, end),
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
    /// [`Error::Interrupted`] if the call is cancelled ([`crate::Cancel`]).
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let snapshot = Snapshot::of(self, None)?;
        let mut bytes = room(snapshot.size())?;
        snapshot.write(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes a snapshot beside `path` and renames it into place, so that a crash leaves the old one.
    ///
    /// # Errors
    /// [`Error::Io`] as the operating system gives it, [`Error::Interrupted`] if the call is
    /// cancelled ([`crate::Cancel`]).
    pub fn save(&self, path: &Path) -> Result<()> {
        let (folder, name) = Folder::of(path)?;
        Snapshot::of(self, None)?.save(&folder, name, || Ok(()))?;
        Ok(folder.sync(".")?)
    }
}
