"""Embedders: lists of texts in, arrays ``(n, d)`` float32 out. The code is in `sharpwave.text`."""

from sharpwave.text.embedders import (
    CallableEmbedder,
    Contrast,
    Embedder,
    EmbeddingCache,
    Fluency,
    HiddenStates,
    Joined,
    SentenceTransformer,
    agree,
    as_embedder,
    fingerprint,
    from_config,
)
from sharpwave.text.packages import minilm_path, smollm2_path

__all__ = [
    "CallableEmbedder",
    "Contrast",
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
    "minilm_path",
    "smollm2_path",
]
