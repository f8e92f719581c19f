"""Small random worlds for the property tests: a few directions, episodes that wander among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sharpwave as sw
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)


def one_hot(path: Sequence[int], dim: int) -> np.ndarray:
    """Steps along the axes."""
    return np.eye(dim, dtype=np.float32)[list(path)]


def wander(seed: int, sizes: Sequence[int], dim: int = 8, noise: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Episodes of these lengths around 2·dim fixed directions; the same directions for every seed."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(dim).normal(size=(2 * dim, dim))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    n = int(offsets[-1])
    steps = centres[rng.integers(len(centres), size=n)] + noise * rng.normal(size=(n, dim))
    return steps.astype(np.float32), offsets


def lived(seed: int, episodes: int = 6, **numbers: Any) -> sw.ValueStore:
    """A store with two terminals and a scalar channel that has observed some episodes, and slept."""
    numbers = {"dim": 8, "k": 5, "min_novelty": 0.6} | numbers
    store = sw.ValueStore(sw.Config(**numbers))
    rng = np.random.default_rng(seed)
    for name in ("a", "b"):
        store.add_terminal(name, rng.normal(size=store.dim))
    store.add_channel("s")
    steps, offsets = wander(seed, rng.integers(2, 9, size=episodes).tolist(), store.dim)
    store.observe(steps, offsets, drives=rng.random((len(steps), 1)))
    store.replay(tol=1e-6)
    return store


def matrix(store: Any) -> np.ndarray:
    """P, dense, rows and columns in the order of `ids`."""
    place = {i: n for n, i in enumerate(store.ids.tolist())}
    P = np.zeros((len(store), len(store)))
    for i, j, p in zip(*store.edges(), strict=True):
        P[place[int(i)], place[int(j)]] = p
    return P


def rotation(seed: int, dim: int) -> np.ndarray:
    """A random orthogonal matrix."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]
