"""Embedders: lists of texts in, arrays ``(n, d)`` float32 out.

An embedder is anything callable like that (`Embedder`); a bare function is one. What a store
needs beside the call is a stable name, so that it can refuse vectors of another model:
`fingerprint`.

protocol.py      `Embedder`, `as_embedder`, `fingerprint`
cache.py         `EmbeddingCache`: content hashes to vectors, in memory and on disk
sentence.py      `SentenceTransformer`
hidden.py        `HiddenStates`: a transformers model's own pooled hidden states
"""

from __future__ import annotations

from sharpwave.embed.cache import EmbeddingCache
from sharpwave.embed.hidden import HiddenStates
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
    "HiddenStates",
    "SentenceTransformer",
    "as_embedder",
    "fingerprint",
    "from_config",
]
