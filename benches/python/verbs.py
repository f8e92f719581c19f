"""Scoring and writing, as ratios to the search alone, and how fast memories are appended.

The store holds about 100,000 memories that were observed as 6,350 episodes of 16 mixed sentences, so that it has the
associations that edge support walks along (up to 32 a memory), and two terminals. With ν = 0.1 a step is merged if its
cosine to a memory is above 0.96: repeated sentences are, mixtures with noise are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import sharpwave as sw

from benches.python.data import DIM, KEPT, REAL, Rows, embedded, episodes, memories
from benches.python.exact import K, filled
from benches.python.timing import interleaved

MEMORIES = 100_000
EPISODES, LENGTH = 6_350, 16
SCORED = 256
"""Episodes in a score: 4,096 steps."""
OBSERVED = 16
"""Episodes in a batch of observations: 256 steps."""


def lived() -> sw.ValueStore:
    """The store, kept in a file by the first to need it."""
    path = KEPT / f"lived-{sw.__version__}.safetensors"
    if path.exists():
        try:
            return sw.ValueStore.load(path)
        except sw.FormatError:  # of another version
            path.unlink()
    store = sw.ValueStore(sw.Config(dim=DIM, keep_episodes=False, min_novelty=0.1))
    for name, key in zip(("a", "b"), embedded()[REAL : REAL + 2], strict=True):
        store.add_terminal(name, key, 0.2, 0.7)
    store.observe(*episodes(EPISODES, LENGTH))
    store.replay()
    KEPT.mkdir(parents=True, exist_ok=True)
    store.save(path)
    return store


def scoring(budget: float) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Search, value and score of the same 4,096 steps."""
    store = lived()
    steps, offsets = episodes(SCORED, LENGTH, seed=4)
    calls: dict[str, Callable[[], Any]] = {
        "search": lambda: store.search(steps, K, num_threads=1),
        "value": lambda: store.value(steps, num_threads=1),
        "score": lambda: store.score(steps, offsets, num_threads=1),
    }
    scores = store.score(steps, offsets)
    associations = len(store.edges()[0])
    about = {
        "memories": len(store),
        "associations": associations,
        "mean support": float(scores.support.mean()),
        "mean edge support": float(scores.edge.mean()),
    }
    return interleaved(calls, count=1, budget=budget), about


def observing(budget: float) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Search of a batch of 256 steps, and its observation; half of the steps repeat a memory nearly, half are new.

    No batch is observed twice, so each round has one of its own; searched and observed in turns.
    """
    store = lived()
    keys = store.keys
    samples: dict[str, list[float]] = {"search": [], "observe": []}
    merged, total, end = 0, 0, time.perf_counter() + budget
    for round_ in range(400):
        steps, offsets = _batch(keys, 100 + round_)
        order = ("search", "observe") if round_ % 2 else ("observe", "search")
        for name in order:
            begun = time.process_time()
            if name == "search":
                store.search(steps, K, num_threads=1)
            else:
                report = store.observe(steps, offsets)
                merged, total = merged + report.counts["merged"], total + len(steps)
            taken = time.process_time() - begun
            if round_ > 1:  # warm
                samples[name].append(taken)
        if time.perf_counter() > end and round_ > 10:
            break
    return samples, {"memories": len(store), "merged": merged / total}


def appending(budget: float) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds a memory: inserted at once, in batches of 256, and added to a faiss Flat index."""
    rows = memories("minilm", MEMORIES)

    def in_batches() -> None:
        store = sw.ValueStore(sw.Config(dim=DIM, keep_episodes=False))
        for first in range(0, len(rows), 256):
            store.insert(rows[first : first + 256])

    def by_faiss() -> None:
        faiss.IndexFlatIP(DIM).add(rows)

    calls: dict[str, Callable[[], Any]] = {
        "insert": lambda: filled(rows),
        "insert 256": in_batches,
        "faiss add": by_faiss,
    }
    samples = interleaved(calls, count=1, budget=budget)
    return {name: [taken / len(rows) for taken in some] for name, some in samples.items()}, {"memories": MEMORIES}


def _batch(keys: Rows, seed: int) -> tuple[Rows, Any]:
    rng = np.random.default_rng(seed)
    steps, offsets = episodes(OBSERVED, LENGTH, seed=seed)
    again = rng.permutation(len(steps))[: len(steps) // 2]
    noise = rng.standard_normal((len(again), DIM), np.float32) * np.float32(0.05 / DIM**0.5)
    steps[again] = keys[rng.integers(len(keys), size=len(again))] + noise
    return steps, offsets
