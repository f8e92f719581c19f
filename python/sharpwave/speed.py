"""How fast a store is on this machine: ``sharpwave bench``. The comparison with other libraries is in benches/."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sharpwave as sw
from sharpwave.store import ValueStore

Rows = NDArray[np.float32]
Progress = Callable[[str, int, int], None]

LENGTH = 16
"""Steps of an episode."""
BATCHES = (1, 32, 256)
ROUNDS = (5, 200)


@dataclass(frozen=True)
class Speed:
    """One verb: seconds of a call as median and quartiles, and how many steps a call has."""

    verb: str
    steps: int
    median: float
    low: float
    high: float
    calls: int

    @property
    def rate(self) -> float:
        """Steps a second."""
        return self.steps / self.median


def measure(
    store: ValueStore, seconds: float = 2.0, seed: int = 0, progress: Progress = lambda *_: None
) -> list[Speed]:
    """Search, value, score, observe and sleep on a copy of ``store``, about ``seconds`` each, wall time.

    What is asked for lies near memories, as real steps do: a key and noise a third as long. The copy lives in memory;
    ``store`` is only read.

    Raises:
        ValueError: the store is empty, or ``seconds`` is not positive.
    """
    if not len(store):
        raise ValueError("the store is empty: there is nothing to measure")
    check(seconds)
    copy = ValueStore.from_bytes(store.to_bytes())
    rng, keys = np.random.default_rng(seed), copy.keys
    drives = len(copy.channels) - int(copy.is_terminal.sum())  # the scalar channels

    def asked(count: int) -> Rows:
        return near(keys[rng.integers(len(keys), size=count)], rng)

    def observe(steps: Rows) -> Any:
        offsets = np.arange(0, len(steps) + 1, LENGTH)
        told = rng.random((len(steps), drives), np.float32) if drives else None
        return copy.observe(steps, offsets, drives=told)

    def score(steps: Rows) -> Any:
        return copy.score(steps, np.arange(0, len(steps) + 1, LENGTH))

    jobs: list[tuple[str, int, Callable[[Rows], Any]]] = [
        *(("search", batch, copy.search) for batch in BATCHES),
        ("value", 256, copy.value),
        ("score", 256, score),
        ("observe", 256, observe),
        ("observe, replay", 256, lambda steps: (observe(steps), copy.replay())),
    ]
    found: list[Speed] = []
    for number, (verb, batch, call) in enumerate(jobs):
        progress("measuring", number, len(jobs))
        found.append(timed(verb, batch, call, asked, seconds))
    progress("measuring", len(jobs), len(jobs))
    return found


def check(seconds: float) -> None:
    """How long to measure must be positive: a ValueError otherwise."""
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, got {seconds:g}")


def timed(verb: str, batch: int, call: Callable[[Rows], Any], asked: Callable[[int], Rows], seconds: float) -> Speed:
    """Times ``call`` on fresh steps until ``seconds`` are over, at least five times; the first one does not count."""
    call(asked(batch))
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < ROUNDS[0] or (time.perf_counter() < end and len(samples) < ROUNDS[1]):
        steps = asked(batch)
        begun = time.perf_counter()
        call(steps)
        samples.append(time.perf_counter() - begun)
    low, median, high = np.percentile(samples, [25, 50, 75])
    return Speed(verb, batch, float(median), float(low), float(high), len(samples))


def made(memories: int, dim: int, seed: int = 0, progress: Progress = lambda *_: None) -> ValueStore:
    """A store of clustered random directions, in episodes of 16 steps, with two terminals; it stands for no real text.

    Raises:
        ValueError: fewer memories than an episode has steps, or a dimension below 2.
    """
    if memories < LENGTH:
        raise ValueError(f"--memories must be at least {LENGTH}, got {memories}")
    if dim < 2:
        raise ValueError(f"--dim must be at least 2, got {dim}")
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(2, memories // 256), dim), np.float32)
    store = sw.ValueStore(sw.Config(dim=dim, min_novelty=0.0, keep_episodes=False))
    for name, key in zip(("a", "b"), centres, strict=False):
        store.add_terminal(name, key)
    block = 256 * LENGTH
    for first in range(0, memories // LENGTH * LENGTH, block):
        count = min(block, memories // LENGTH * LENGTH - first)
        rows = centres[rng.integers(len(centres), size=count)] + rng.standard_normal((count, dim), np.float32)
        store.observe(rows, np.arange(0, count + 1, LENGTH))
        progress("filling", first + count, memories // LENGTH * LENGTH)
    store.replay()
    return store


def near(keys: Rows, rng: np.random.Generator) -> Rows:
    """Unit keys (n, d), each with noise a third as long."""
    noise = rng.standard_normal(keys.shape, np.float32)
    return np.asarray(keys + noise / np.float32(3 * keys.shape[1] ** 0.5), np.float32)
