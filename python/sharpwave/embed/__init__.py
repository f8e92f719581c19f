"""Embedders: lists of texts in, arrays ``(n, d)`` float32 out.

An embedder is anything callable like that (`Embedder`); a bare function is one. What a store
needs beside the call is a stable name, so that it can refuse vectors of another model:
`fingerprint`.

protocol.py      `Embedder`, `as_embedder`, `fingerprint`
names.py         what a fingerprint holds, and `agree`, which compares two
cache.py         `EmbeddingCache`: content hashes to vectors, in memory and on disk
sentence.py      `SentenceTransformer`
hidden.py        `HiddenStates`: a transformers model's own pooled hidden states
fluency.py       `Fluency`: how likely a language model finds a text
host.py          to a device and back without waiting
joined.py        `Joined`: several embedders side by side
"""

from __future__ import annotations

from sharpwave.embed.cache import EmbeddingCache
from sharpwave.embed.fluency import Fluency
from sharpwave.embed.hidden import HiddenStates
from sharpwave.embed.joined import Joined
from sharpwave.embed.names import agree
from sharpwave.embed.protocol import (
    CallableEmbedder,
    Embedder,
    as_embedder,
    fingerprint,
    from_config,
)
from sharpwave.embed.sentence import SentenceTransformer

__all__ = [
    "CallableEmbedder",
    "Embedder",
    "EmbeddingCache",
    "Fluency",
    "HiddenStates",
    "Joined",
    "SentenceTransformer",
    "agree",
    "as_embedder",
    "fingerprint",
    "from_config",
]
