//! Records in a journal file: a length, a number and checksums before the bytes themselves.
//!
//! | offset | size | |
//! |---|---|---|
//! | 0 | 8 | n, the length of the payload |
//! | 8 | 8 | the number of the record in its journal, from 0 |
//! | 16 | 4 | CRC-32 of the payload |
//! | 20 | 4 | CRC-32 of the 20 bytes before |
//! | 24 | n | the payload |
//!
//! Numbers are little-endian. The header has a checksum of its own, so that a length is believed before it is used:
//! a record whose header is sound but whose bytes are missing was being written when the writer died, and a record
//! whose bytes are all there but wrong was damaged.

use std::io::{Read, Seek, SeekFrom};

use crate::base::room;
use crate::error::{Error, Result};

/// Bytes before a payload.
pub(crate) const HEADER: usize = 24;

/// What stands before a payload of `length` bytes with that CRC-32.
pub(crate) fn header(number: u64, length: usize, sum: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&(length as u64).to_le_bytes());
    header[8..16].copy_from_slice(&number.to_le_bytes());
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    let own = crc32fast::hash(&header[..20]);
    header[20..].copy_from_slice(&own.to_le_bytes());
    header
}

/// A sound header.
struct Head {
    length: u64,
    number: u64,
    checksum: u32,
}

impl Head {
    /// `None` if its checksum is wrong.
    fn parse(header: &[u8; HEADER]) -> Option<Self> {
        let (body, checksum) = header.split_at(20);
        if crc32fast::hash(body).to_le_bytes() != checksum && !cfg!(fuzzing) {
            return None;
        }
        Some(Self {
            length: u64::from_le_bytes(header[..8].try_into().ok()?),
            number: u64::from_le_bytes(header[8..16].try_into().ok()?),
            checksum: u32::from_le_bytes(header[16..20].try_into().ok()?),
        })
    }
}

/// What is next in a file of records.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// A sound record.
    Payload(Vec<u8>),
    /// Nothing: the file ends behind the last record.
    End,
    /// The beginning of a record that was never finished.
    Torn,
}

/// Reads records one after the other.
pub(crate) struct Frames<R> {
    input: R,
    /// Where the next record begins.
    pub(crate) at: u64,
    pub(crate) end: u64,
    /// The number the next record must have.
    pub(crate) number: u64,
}

impl<R: Read + Seek> Frames<R> {
    /// Records from offset `at` to offset `end`, the first of them with the given number.
    pub(crate) fn new(input: R, at: u64, end: u64, number: u64) -> Self {
        Self {
            input,
            at,
            end,
            number,
        }
    }

    /// Where a payload of `length` bytes ends, if it does within the file.
    fn payload_end(&self, length: u64) -> Option<u64> {
        self.at
            .checked_add(HEADER as u64)?
            .checked_add(length)
            .filter(|&end| end <= self.end)
    }

    /// The next record. After [`Next::Torn`] and after an error `at` is where it would have begun.
    pub(crate) fn next(&mut self) -> Result<Next> {
        if self.at >= self.end {
            return Ok(Next::End);
        }
        let Some(after_header) = self.payload_end(0) else {
            return Ok(Next::Torn);
        };
        self.input.seek(SeekFrom::Start(self.at))?;
        let mut header = [0; HEADER];
        self.input.read_exact(&mut header)?;
        let Some(head) = Head::parse(&header) else {
            // After a power cut a file may be longer than what was written to it: zeros follow.
            if header == [0; HEADER] && self.only_zeros(after_header)? {
                return Ok(Next::Torn);
            }
            return Err(self.damage("its header has a wrong checksum"));
        };
        if head.number != self.number {
            return Err(self.damage(&format!(
                "it is record {} where record {} is expected",
                head.number, self.number
            )));
        }
        let Some(end) = self.payload_end(head.length) else {
            return Ok(Next::Torn);
        };
        let payload = self.payload(&head)?;
        if crc32fast::hash(&payload) != head.checksum && !cfg!(fuzzing) {
            return Err(self.damage("its checksum is wrong"));
        }
        self.at = end;
        self.number += 1;
        Ok(Next::Payload(payload))
    }

    /// Goes on behind a damage: to the next sound record of a higher number. `false` if there is none.
    pub(crate) fn resume(&mut self) -> Result<bool> {
        let mut rest = Vec::new();
        self.input.seek(SeekFrom::Start(self.at))?;
        (&mut self.input)
            .take(self.end - self.at)
            .read_to_end(&mut rest)?;
        for (skipped, header) in rest.windows(HEADER).enumerate() {
            let Some(head) = header.try_into().ok().and_then(Head::parse) else {
                continue;
            };
            let payload = usize::try_from(head.length)
                .ok()
                .and_then(|length| rest[skipped + HEADER..].get(..length));
            let sound = payload.is_some_and(|payload| crc32fast::hash(payload) == head.checksum);
            if sound && head.number >= self.number {
                self.at += skipped as u64;
                self.number = head.number;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The file's length, which no record exceeds, bounds what is allocated.
    fn payload(&mut self, head: &Head) -> Result<Vec<u8>> {
        let mut payload = room(head.length as usize)?;
        (&mut self.input)
            .take(head.length)
            .read_to_end(&mut payload)?;
        if payload.len() as u64 == head.length {
            Ok(payload)
        } else {
            Err(Error::Io(std::io::ErrorKind::UnexpectedEof.into()))
        }
    }

    fn only_zeros(&mut self, from: u64) -> Result<bool> {
        self.input.seek(SeekFrom::Start(from))?;
        let mut left = self.end - from;
        let mut piece = [0; 4096];
        while left > 0 {
            let n = left.min(piece.len() as u64) as usize;
            self.input.read_exact(&mut piece[..n])?;
            if piece[..n].iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            left -= n as u64;
        }
        Ok(true)
    }

    fn damage(&self, what: &str) -> Error {
        Error::format(
            "journal",
            format!("the record at byte {} is damaged: {what}", self.at),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_beyond_4_gib_are_found() {
        /// A file of zeros up to 5 GiB, then one record.
        struct Far(u64, Vec<u8>);
        const BEGIN: u64 = 5 << 30;
        impl Read for Far {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                let from = (self.0 - BEGIN) as usize;
                let n = (&self.1[from..]).read(out)?;
                self.0 += n as u64;
                Ok(n)
            }
        }
        impl Seek for Far {
            fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
                let SeekFrom::Start(at) = to else {
                    unreachable!()
                };
                self.0 = at;
                Ok(at)
            }
        }
        let payload = b"far away";
        let header = header(7, payload.len(), crc32fast::hash(payload));
        let record = [&header[..], payload].concat();
        let end = BEGIN + record.len() as u64;
        let mut frames = Frames::new(Far(0, record), BEGIN, end, 7);
        assert_eq!(frames.next().unwrap(), Next::Payload(b"far away".to_vec()));
        assert_eq!((frames.at, frames.next().unwrap()), (end, Next::End));
    }
}
