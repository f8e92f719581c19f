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

use crate::base::alloc::room;
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
    ///
    /// # Errors
    /// [`Error::Format`] naming the offset of a damaged record, [`Error::Io`] as the system gives it.
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
    use std::io::Cursor;

    use super::*;

    fn framed(number: u64, payload: &[u8]) -> Vec<u8> {
        let header = header(number, payload.len(), crc32fast::hash(payload));
        [&header[..], payload].concat()
    }

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        payloads
            .iter()
            .zip(0..)
            .flat_map(|(payload, number)| framed(number, payload))
            .collect()
    }

    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Result<Next>) {
        let mut frames = Frames::new(Cursor::new(bytes), 0, bytes.len() as u64, 0);
        let mut payloads = Vec::new();
        loop {
            match frames.next() {
                Ok(Next::Payload(payload)) => payloads.push(payload),
                last => return (payloads, last),
            }
        }
    }

    #[test]
    fn records_come_back_and_every_cut_is_torn() {
        let payloads: [&[u8]; 3] = [b"first", b"", b"the third one"];
        let bytes = file(&payloads);
        let ends = [29, 53, 90];
        for cut in 0..=bytes.len() {
            let (read, last) = read(&bytes[..cut]);
            let whole = ends.iter().filter(|&&end| end <= cut).count();
            assert_eq!(read, payloads[..whole].to_vec(), "{cut}");
            let clean = cut == 0 || ends.contains(&cut);
            assert_eq!(last.unwrap(), if clean { Next::End } else { Next::Torn });
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let bytes = file(&[b"first", b"the second"]);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let (read, last) = read(&damaged);
                assert_eq!(read.len(), usize::from(at >= 29));
                assert!(last.unwrap_err().to_string().contains("damaged"));
            }
        }
    }

    #[test]
    fn a_record_in_another_place_is_found() {
        let swapped = [framed(1, b"b"), framed(0, b"a")].concat();
        assert!(read(&swapped).1.is_err());
        let twice = [framed(0, b"a"), framed(0, b"a")].concat();
        assert!(read(&twice).1.is_err());
    }

    #[test]
    fn zeros_behind_the_last_record_are_torn() {
        let mut bytes = file(&[b"first"]);
        bytes.extend([0; 10_000]);
        assert_eq!(read(&bytes).1.unwrap(), Next::Torn);
        *bytes.last_mut().unwrap() = 1;
        assert!(read(&bytes).1.is_err());
    }

    #[test]
    fn lengths_beyond_4_gib_and_beyond_u64_are_torn_and_allocate_nothing() {
        for length in [1 << 32, (1 << 32) + 5, u64::MAX - 23, u64::MAX] {
            let mut record = framed(0, b"");
            record[..8].copy_from_slice(&length.to_le_bytes());
            let sum = crc32fast::hash(&record[..20]);
            record[20..].copy_from_slice(&sum.to_le_bytes());
            assert_eq!(read(&record).1.unwrap(), Next::Torn, "{length}");
        }
    }

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
        let record = framed(7, b"far away");
        let end = BEGIN + record.len() as u64;
        let mut frames = Frames::new(Far(0, record), BEGIN, end, 7);
        assert_eq!(frames.next().unwrap(), Next::Payload(b"far away".to_vec()));
        assert_eq!((frames.at, frames.next().unwrap()), (end, Next::End));
    }

    #[test]
    fn reading_resumes_behind_a_damage() {
        let mut bytes = file(&[b"first", b"the second", b"third"]);
        bytes[40] ^= 1;
        let mut frames = Frames::new(Cursor::new(&bytes), 0, bytes.len() as u64, 0);
        assert!(matches!(frames.next(), Ok(Next::Payload(_))));
        assert!(frames.next().is_err());
        assert!(frames.resume().unwrap());
        assert_eq!(frames.number, 2);
        assert_eq!(frames.next().unwrap(), Next::Payload(b"third".to_vec()));
    }
}
