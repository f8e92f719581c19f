"""Embedders: lists of texts in, arrays ``(n, d)`` float32 out.

An embedder is anything callable like that (`Embedder`); a bare function is one. What a store
needs beside the call is a stable name, so that it can refuse vectors of another model:
`fingerprint`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sharpwave._embedder import (
    CallableEmbedder,
    Embedder,
    as_embedder,
    fingerprint,
)
from sharpwave._names import agree
from sharpwave.text.cache import EmbeddingCache
from sharpwave.text.contrast import Contrast
from sharpwave.text.fluency import Fluency
from sharpwave.text.hidden import HiddenStates
from sharpwave.text.joined import Joined
from sharpwave.text.sentence import SentenceTransformer

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
]


def from_config(config: Mapping[str, Any] | str) -> Embedder:
    """An embedder from plain data: ``{"kind": "sentence-transformers", "path": …, …}``.

    A bare string is the path of a sentence-transformers model. Kinds: ``sentence-transformers``,
    ``hidden-states``, ``fluency``, ``joined`` with ``parts`` and ``weights``, and ``contrast`` with an ``embedder``.
    """
    if isinstance(config, str):
        return SentenceTransformer(config)
    options = dict(config)
    kind = options.pop("kind", "sentence-transformers")
    kinds: dict[str, Callable[..., Embedder]] = {
        "sentence-transformers": SentenceTransformer,
        "hidden-states": HiddenStates,
        "fluency": Fluency,
    }
    if kind == "joined":
        return Joined([from_config(part) for part in options.pop("parts", ())], **options)
    if kind == "contrast":
        return Contrast(from_config(options.pop("embedder", {})), **options)
    if kind not in kinds:
        raise ValueError(f"embedder kind must be one of {[*sorted(kinds), 'joined', 'contrast']}, got {kind!r}")
    if "path" not in options:
        raise ValueError(f"an embedder of kind {kind!r} needs a path")
    return kinds[kind](options.pop("path"), **options)
