"""How long it takes to open a store of a million memories, until the first score, beside reading its file.

The file (1.6 GB) is read whole into memory that the system has to find first, as opening has to. Each is measured when
the system has the file in memory already, and when it has to fetch it from the disk: it is told to forget it before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sharpwave as sw

from benches.python import timing
from benches.python.data import DIM, KEPT, memories, queries

MEMORIES = 1_000_000


def measured(rounds: int = 7) -> dict[str, Any]:
    """Wall time of each, in seconds, in turns."""
    path, query = _snapshot(), queries("minilm", 1)
    calls: dict[str, Callable[[], Any]] = {
        "read": lambda: np.fromfile(path, np.uint8),
        "open": lambda: sw.ValueStore.load(path).score(query, [0, 1]),
    }
    found: dict[str, list[float]] = {f"{name}, {where}": [] for where in ("cached", "from disk") for name in calls}
    for _ in range(rounds):
        for where in ("cached", "from disk"):
            for name, call in calls.items():
                _forget(path) if where == "from disk" else calls["read"]()
                begun = time.perf_counter()
                call()
                found[f"{name}, {where}"].append(time.perf_counter() - begun)
    return {"rows": {name: timing.summary(some) for name, some in found.items()}, "clock": "wall"}


def _snapshot() -> Path:
    path = KEPT / f"open-{sw.__version__}-{MEMORIES}.safetensors"
    if not path.exists():
        store = sw.ValueStore(sw.Config(dim=DIM, keep_episodes=False))
        store.add_channel("value")
        store.insert(memories("minilm", MEMORIES))
        store.save(path)
    return path


def _forget(path: Path) -> None:
    """Has the system let go of a file's pages."""
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
