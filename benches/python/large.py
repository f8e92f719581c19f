"""Stores of a million memories and sixteen million associations, which nobody has the time to live through.

They are snapshots: the state of a small store, with the columns of a large one put in its place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sharpwave as sw

from examples.snapshot import read, written


def store(
    memories: int, degree: int, channels: int, *, seed: int = 0, dim: int = 4, local: bool = False, **config: Any
) -> sw.ValueStore:
    """Memories with `degree` associations each, to random others or (`local`) to those just after, and drives at one in
    a hundred. Nothing is dirty and no value is known: the first sleep has everything to do once a channel is added."""
    rng = np.random.default_rng(seed)
    small = sw.ValueStore(sw.Config(dim=dim, keep_episodes=False, **config))
    for q in range(channels):
        small.add_channel(f"q{q}")
    parts, state = read(small.to_bytes())
    n = memories
    keys = rng.normal(size=(n, dim)).astype(np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    if local:
        targets = (np.arange(n)[:, None] + rng.integers(1, 256, size=(n, degree))) % n
    else:
        targets = rng.integers(0, n, size=(n, degree))
    targets.sort(axis=1)
    keep = np.ones_like(targets, bool)
    keep[:, 1:] = targets[:, 1:] != targets[:, :-1]
    keep &= targets != np.arange(n)[:, None]
    lengths = keep.sum(1)
    sums = rng.random(int(lengths.sum())) + 0.1
    mass = np.add.reduceat(sums, np.concatenate([[0], np.cumsum(lengths)[:-1]])) * 1.02
    drives = np.where(rng.random((n, channels)) < 0.01, rng.random((n, channels)), 0.0).astype(np.float32)
    parts |= {
        "keys": keys,
        "values": drives,
        "merged": np.ones(n, np.uint64),
        "mass": mass,
        "written": np.zeros(n, np.uint64),
        "terminal": np.zeros(n, np.uint8),
        "dirty": np.ones(n, np.uint8),
        "drive_sums": drives.astype(np.float64),
        "drive_counts": np.ones((n, channels), np.uint32),
        "row_lengths": lengths.astype(np.uint64),
        "edge_targets": targets[keep].astype(np.uint32),
        "edge_sums": sums,
        "provenance_lengths": np.zeros(n, np.uint64),
        "text_lengths": np.zeros(n, np.uint64),
        "ids": np.arange(n, dtype=np.int64),
    }
    state["next_memory"] = n
    return sw.ValueStore.from_bytes(written(parts, state))
