//! One operation in a journal: what it was, as JSON, and its numbers, bit for bit.
//!
//! A payload is the length of the JSON in 8 bytes, the JSON `{"did": …, "pooled": [lengths]}`, and the f32 of the
//! operation's arrays one after the other, all little-endian.

use serde::{Deserialize, Serialize};

use crate::archive::{Operation, Record};
use crate::base::{cancel, room};
use crate::error::{Error, Result};
use crate::store::Store;
use crate::values::Need;

/// Numbers written between two looks at the token.
const NUMBERS_PER_CHECK: usize = 1 << 18;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload<R> {
    did: R,
    pooled: Vec<usize>,
}

impl Record<'_> {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let arrays = match self {
            Self::Operation(operation) => operation.arrays(),
            _ => Vec::new(),
        };
        let pooled: Vec<usize> = arrays.iter().map(|array| array.len()).collect();
        let numbers: usize = pooled.iter().sum();
        let json = serde_json::to_vec(&Payload { did: self, pooled })
            .map_err(|error| Error::format("journal", error.to_string()))?;
        let mut payload = room(8 + json.len() + 4 * numbers)?;
        payload.extend_from_slice(&(json.len() as u64).to_le_bytes());
        payload.extend_from_slice(&json);
        for part in arrays
            .iter()
            .flat_map(|array| array.chunks(NUMBERS_PER_CHECK))
        {
            cancel::check()?;
            payload.extend(part.iter().flat_map(|x| x.to_le_bytes()));
        }
        Ok(payload)
    }

    /// Reads a payload: untrusted.
    pub(crate) fn decode(payload: &[u8]) -> Result<Record<'static>> {
        let bad = |message: &str| Error::format("journal", message);
        let (length, rest) = payload
            .split_first_chunk::<8>()
            .ok_or_else(|| bad("a record is too short"))?;
        let (json, numbers) = usize::try_from(u64::from_le_bytes(*length))
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .ok_or_else(|| bad("a record is shorter than its JSON"))?;
        let Payload::<Record> { mut did, pooled } = serde_json::from_slice(json)
            .map_err(|error| Error::format("journal", error.to_string()))?;
        let (numbers, odd) = numbers.as_chunks::<4>();
        let mut arrays = match &mut did {
            Record::Operation(operation) => operation.to_mut().arrays_mut(),
            _ => Vec::new(),
        };
        let total = pooled.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
        if !odd.is_empty() || arrays.len() != pooled.len() || total != Some(numbers.len()) {
            return Err(bad("a record's arrays do not fit"));
        }
        let mut at = 0;
        for (array, length) in arrays.iter_mut().zip(pooled) {
            array.extend(
                numbers[at..at + length]
                    .iter()
                    .map(|x| f32::from_le_bytes(*x)),
            );
            at += length;
        }
        Ok(did)
    }

    /// Does it again.
    /// If it fails, or does not fit the store, the store is as it was.
    pub(crate) fn apply(self, store: &mut Store) -> Result<()> {
        match self {
            Self::Operation(operation) => {
                let operation = operation.into_owned();
                operation.check(store)?;
                operation.apply(store)
            }
            Self::VetoEpisode(id) => store.veto_episodes(vec![id]),
            Self::VetoEpisodes(ids) => store.veto_episodes(ids.into_owned()),
            Self::VetoMemory(id) => store.veto_memory(id),
            Self::BindEmbedder(name) => store.bind_embedder(&name),
        }
    }

    /// Whether it names memories by ids, which mean others once an earlier record is missing.
    pub(crate) fn names_memories(&self) -> bool {
        match self {
            Self::VetoMemory(_) => true,
            Self::Operation(operation) => {
                matches!(operation.as_ref(), Operation::Replay(request) if matches!(request.need, Need::From(_)))
            }
            Self::VetoEpisode(_) | Self::VetoEpisodes(_) | Self::BindEmbedder(_) => false,
        }
    }
}
