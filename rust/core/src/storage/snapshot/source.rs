//! Where the bytes of a snapshot are: in memory, or in a file that is read piece by piece.
//!
//! A file is never in memory as a whole. A store of gigabytes would be there twice while it is restored, and memory
//! that the system has to find can take longer than reading does.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use safetensors::tensor::Dtype;

use crate::base::alloc::room;
use crate::base::cancel;
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
    ///
    /// # Errors
    /// [`Error::Io`], and what `sink` returns.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_memory_is() {
        let bytes: Vec<u8> = (0..3 * BYTES_PER_READ + 77)
            .map(|at| (at % 251) as u8)
            .collect();
        let path = std::env::temp_dir().join(format!("sharpwave-source-{}", std::process::id()));
        fs::write(&path, &bytes).unwrap();
        let (file, memory) = (Source::file(&path).unwrap(), Source::Memory(&bytes));
        fs::remove_file(&path).unwrap();
        for source in [&file, &memory] {
            assert_eq!(source.length(), bytes.len());
            for (range, element) in [
                (0..bytes.len(), 1),
                (5..5 + 12 * 60_001, 12),
                (9..9, 4),
                (8..16, 8),
            ] {
                assert_eq!(source.bytes(range.clone()).unwrap(), &bytes[range.clone()]);
                let mut poured = Vec::new();
                let whole = source.pour(range.clone(), element, &mut |piece| {
                    assert_eq!(piece.len() % element, 0);
                    poured.extend_from_slice(piece);
                    Ok(())
                });
                whole.unwrap();
                assert_eq!(poured, &bytes[range]);
            }
        }
        assert!(file.pour(0..bytes.len() + 1, 1, &mut |_| Ok(())).is_err());
    }
}
