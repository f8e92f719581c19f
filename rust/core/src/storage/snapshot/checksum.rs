//! What a snapshot says of its own bytes, so that damage is found and told.

use std::collections::BTreeMap;

use safetensors::tensor::Dtype;
use sha2::{Digest, Sha256};

use crate::storage::digest::hex;
use crate::storage::snapshot::state::VERSION;

/// SHA-256 over version, state and every tensor by name, each part with its length before it; and a CRC-32 of the
/// state and of each tensor, so that a repair knows which of them is damaged.
pub(crate) struct Checksum {
    all: Sha256,
    part: crc32fast::Hasher,
    name: String,
    sums: BTreeMap<String, u32>,
}

impl Checksum {
    pub(crate) fn new(state: &str) -> Self {
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
    pub(crate) fn tensor(&mut self, name: &str, dtype: Dtype, shape: &[usize], size: usize) {
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

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.all.update(bytes);
        self.part.update(bytes);
    }

    /// The metadata `checksum` and `sums`.
    pub(crate) fn finish(mut self) -> (String, String) {
        self.end_part("");
        let sums = serde_json::to_string(&self.sums).expect("names and numbers have a JSON form");
        (hex(&self.all.finalize()), sums)
    }
}
