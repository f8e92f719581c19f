//! The digest: equal if and only if the logical state is bit-identical.
//!
//! Memories and episodes are named by rank, so a store that forgot an episode has the digest of one
//! that never saw it. Counters that only hand out names, and the archive, are left out.

use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::memory::Kind;
use crate::storage::snapshot::sections::{Role, sections};
use crate::store::Store;

impl Store {
    /// SHA-256 of the logical state, in hex.
    ///
    /// # Panics
    ///
    #[must_use]
    pub fn digest(&self) -> String {
        self.checked_digest().expect("nobody may interrupt it")
    }

    /// [`Store::digest`], if the call is cancelled ([`crate::Cancel`]).
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`] if it gave up.
    pub fn checked_digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let mut text = |name: &str, value: &str| {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update((value.len() as u64).to_le_bytes());
            hash.update(value);
        };
        text("config", &json(self.config()));
        text("embedder", self.embedder().unwrap_or(""));
        text("clock", &self.clock.to_string());
        for channel in self.channels() {
            let mut channel = channel.clone();
            if let Kind::Terminal { memory } = &mut channel.kind {
                *memory = self.ids().partition_point(|id| id < memory) as i64;
            }
            text("channel", &json(&channel));
        }
        for proposal in &self.proposals {
            for (name, numbers) in [("steps", &proposal.steps), ("drives", &proposal.drives)] {
                let bits: Vec<String> = numbers.iter().map(|x| x.to_bits().to_string()).collect();
                text(name, &bits.join(" "));
            }
            text("texts", &proposal.texts.join("\0"));
            text("positions", &format!("{:?}", proposal.positions));
        }
        for (role, section) in sections(self) {
            if role == Role::Names {
                continue;
            }
            hash.update((section.name.len() as u64).to_le_bytes());
            hash.update(section.name);
            for length in &section.shape {
                hash.update((*length as u64).to_le_bytes());
            }
            section.pour(&mut |piece| {
                hash.update(piece);
                Ok(())
            })?;
        }
        Ok(hex(&hash.finalize()))
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data has a JSON form")
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
