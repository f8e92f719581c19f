//! Reading a snapshot. A file is untrusted input: every length, id and number is checked before it is used.

use std::collections::BTreeMap;

use safetensors::tensor::Metadata;

use crate::base::{cancel, threads};
use crate::error::{Error, Result, damaged_if};
use crate::storage::snapshot::checksum::Checksum;
use crate::storage::snapshot::source::{Source, Tensor};
use crate::storage::snapshot::state::{FORMAT, State, VERSION};
use crate::store::Store;

/// Bytes from which a thread of its own is worth it for the checksum.
const MIN_PARALLEL_BYTES: usize = 1 << 22;

/// A store that was read, and what its file says about itself.
pub(crate) struct Loaded {
    pub(crate) store: Store,
    pub(crate) checksum: String,
    pub(crate) journal: Option<u64>,
}

/// A snapshot file taken apart, nothing of it believed yet.
pub(crate) struct File<'a> {
    pub(super) source: Source<'a>,
    state: String,
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// What the file says of itself: checksum and sums.
    pub(crate) declared: (String, String),
}

impl<'a> File<'a> {
    pub(crate) fn open(source: Source<'a>) -> Result<Self> {
        let (header, begin) = header(&source)?;
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
        let foreign = entry("format")? != FORMAT;
        damaged_if!(foreign, "format", "not a sharpwave snapshot");
        let version = entry("version")?;
        damaged_if!(
            version != VERSION,
            "version",
            "{version:?} is not known to this version of sharpwave"
        );
        Ok(Self {
            state: entry("state")?,
            declared: (entry("checksum")?, entry("sums")?),
            tensors: header
                .tensors()
                .into_iter()
                .map(|(name, info)| {
                    let (from, to) = info.data_offsets;
                    let tensor = Tensor {
                        dtype: info.dtype,
                        shape: info.shape.clone(),
                        range: begin + from..begin + to,
                    };
                    (name, tensor)
                })
                .collect(),
            source,
        })
    }

    /// What is true of the bytes, to be compared with what the file says.
    fn computed(&self) -> Result<(String, String)> {
        let mut sum = Checksum::new(&self.state);
        for (name, tensor) in &self.tensors {
            sum.tensor(name, tensor.dtype, &tensor.shape, tensor.range.len());
            self.source.pour(tensor.range.clone(), 1, &mut |piece| {
                cancel::check()?;
                sum.bytes(piece);
                Ok(())
            })?;
        }
        Ok(sum.finish())
    }

    /// Whether its checksum is right.
    pub(crate) fn is_sound(&self) -> Result<bool> {
        // A fuzzer would never guess a checksum, and find nothing behind it.
        Ok(cfg!(fuzzing) || self.computed()? == self.declared)
    }

    /// The names of the damaged parts, `state` and sections; none if the file is sound.
    pub(crate) fn damaged(&self) -> Result<Vec<String>> {
        let found = self.computed()?;
        if cfg!(fuzzing) || found == self.declared {
            return Ok(Vec::new());
        }
        let sums = |json: &str| serde_json::from_str(json).unwrap_or_default();
        let (found, declared): (BTreeMap<String, u32>, BTreeMap<String, u32>) =
            (sums(&found.1), sums(&self.declared.1));
        let wrong = |(name, sum): &(String, u32)| declared.get(name) != Some(sum);
        Ok(found
            .into_iter()
            .filter(wrong)
            .map(|(name, _)| name)
            .collect())
    }

    pub(crate) fn state(&self) -> Result<State<'static>> {
        serde_json::from_str(&self.state).map_err(|error| Error::format("state", error.to_string()))
    }
}

/// The header of a safetensors file, checked, and where the tensors begin.
///
/// The library wants the whole file in memory and refuses headers of more than 100 MB, which the texts of some million
/// archived steps exceed.
fn header(source: &Source<'_>) -> Result<(Metadata, usize)> {
    let foreign = |why: String| Error::format("header", format!("not a safetensors file: {why}"));
    let length = source.length();
    if length < 8 {
        return Err(foreign("too small for a header".into()));
    }
    let size = source.bytes(0..8)?;
    let size = u64::from_le_bytes(*size.first_chunk().expect("eight bytes"));
    let begin = usize::try_from(size)
        .ok()
        .and_then(|size| size.checked_add(8))
        .filter(|&begin| begin <= length)
        .ok_or_else(|| foreign("the header is longer than the file".into()))?;
    let json = source.bytes(8..begin)?;
    let header: Metadata =
        serde_json::from_slice(&json).map_err(|error| foreign(error.to_string()))?;
    // The tensors lie one after the other without gaps: that was checked as the header was read.
    if begin.checked_add(header.data_len()) != Some(length) {
        return Err(foreign("the tensors do not fill the file".into()));
    }
    Ok((header, begin))
}

/// Reads a snapshot, with what a directory needs to know of it.
pub(crate) fn read(source: Source<'_>) -> Result<Loaded> {
    let file = File::open(source)?;
    let sound = || file.is_sound();
    let store = || -> Result<(Store, Option<u64>)> {
        let mut state = file.state()?;
        let journal = state.journal;
        state.unpool(&file.archive()?)?;
        Ok((file.store(state)?, journal))
    };
    // The store is read while the checksum is computed, and used only if that is right: reading checks everything.
    let (sound, read) = if file.source.length() < MIN_PARALLEL_BYTES {
        (sound(), store())
    } else {
        threads::both(sound, store)
    };
    damaged_if!(!sound?, "checksum", "the file is damaged");
    let (store, journal) = read?;
    Ok(Loaded {
        store,
        checksum: file.declared.0,
        journal,
    })
}
