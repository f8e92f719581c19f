//! Where the bytes of a snapshot are: in memory, or in a file that is read piece by piece.
//!
//! A file is never in memory as a whole. A store of gigabytes would be there twice while it is restored, and memory
//! that the system has to find can take longer than reading does.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use safetensors::tensor::Dtype;

use crate::base::{cancel, room};
use crate::error::{Error, Result};
use crate::storage::snapshot::sections::Sink;

/// Bytes read at a time: what the second cache of a core holds beside the rest.
const BYTES_PER_READ: usize = 1 << 18;

/// The bytes of a snapshot, from any thread.
pub(crate) enum Source<'a> {
    Memory(&'a [u8]),
    File { file: fs::File, length: usize },
}

/// One array of a snapshot: where it lies, and as what.
pub(crate) struct Tensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
}

impl Source<'_> {
    pub(crate) fn file(path: &Path) -> Result<Self> {
        Self::of(fs::File::open(path)?)
    }

    pub(crate) fn of(file: fs::File) -> Result<Self> {
        let length = usize::try_from(file.metadata()?.len())
            .map_err(|error| Error::Io(std::io::Error::other(error)))?;
        Ok(Self::File { file, length })
    }

    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File { length, .. } => *length,
        }
    }

    /// The bytes of a range that lies within the length, in memory.
    pub(crate) fn bytes(&self, range: Range<usize>) -> Result<Vec<u8>> {
        let mut bytes = room(range.len())?;
        self.pour(range, 1, &mut |piece| {
            cancel::check()?;
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Gives a range that lies within the length to `sink`, in pieces of whole elements of so many bytes.
    pub(crate) fn pour(&self, range: Range<usize>, element: usize, sink: Sink<'_>) -> Result<()> {
        let piece = (BYTES_PER_READ / element.max(1)).max(1) * element.max(1);
        match self {
            Self::Memory(bytes) => bytes[range].chunks(piece).try_for_each(sink),
            Self::File { file, .. } => {
                let mut buffer = vec![0; piece.min(range.len())];
                for at in range.clone().step_by(piece) {
                    let part = &mut buffer[..piece.min(range.end - at)];
                    file.read_exact_at(part, at as u64)?;
                    sink(part)?;
                }
                Ok(())
            }
        }
    }
}
