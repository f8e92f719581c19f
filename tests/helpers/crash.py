"""A life of random operations, the same in every process; as a program, it lives until it is killed.

``python crash.py DIRECTORY SEED FIRST DURABILITY`` opens the store and does the operations from number FIRST on. Each
is acknowledged by a line on stdout once its call returned.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import sharpwave as sw

DIM = 48
CONFIG = sw.Config(dim=DIM, tau=0.3, min_novelty=0.7, capacity=150, max_out=6)

Act = Callable[[sw.ValueStore], Any]


def rows(rng: np.random.Generator, n: int) -> np.ndarray:
    """Steps around thirty directions, so that some merge."""
    centres = np.random.default_rng(0).normal(size=(30, DIM))
    return (centres[rng.integers(30, size=n)] + 0.4 * rng.normal(size=(n, DIM))).astype(np.float32)


def operation(seed: int, number: int) -> Act:
    """The operation of that number; it is done whole or not at all."""
    rng = np.random.default_rng((seed, number))
    steps = rows(rng, int(rng.integers(1, 12)))
    if number == 0:
        return lambda store: store.calibrate(steps if len(steps) > 1 else rows(rng, 5))
    if number == 1:
        return lambda store: store.add_terminal("goal", steps[0])
    if number == 2:
        return lambda store: store.add_channel("verifier")
    if number == 3:
        return lambda store: store.bind_embedder("an embedder")
    kind = rng.choice(
        ["observe", "propose", "insert", "replay", "consolidate", "veto", "channel", "remove"],
        p=[0.58, 0.08, 0.06, 0.12, 0.06, 0.04, 0.04, 0.02],
    )
    texts = [f"{number}/{t} “x”" for t in range(len(steps))]
    if kind in ("observe", "propose"):
        drive = float(rng.random())

        def observe(store: sw.ValueStore) -> None:
            drives = {"verifier": np.array([drive])}
            store.observe(steps, [0, len(steps)], drives=drives, texts=texts, propose=kind == "propose")

        return observe
    if kind == "insert":
        return lambda store: store.insert(steps[:4], texts=texts[:4]) if len(store) < 120 else None
    if kind == "replay":
        return lambda store: store.replay(budget=int(rng.integers(200)), order="full" if number % 2 else "prioritized")
    if kind == "consolidate":
        return lambda store: store.replay(consolidate=True, max_drift=0.5)
    if kind == "veto":
        pick = int(rng.integers(1 << 30))
        return lambda store: store.veto(memory=_one_of(store, pick)) if store.episodes_observed else None
    name = f"channel {number}"
    if kind == "channel":
        return lambda store: store.add_terminal(name, steps[0]) if len(store.channels) < 6 else None

    def remove(store: sw.ValueStore) -> None:
        if len(store.channels) > 2:
            store.remove_channel(store.channels[-1])

    return remove


def _one_of(store: sw.ValueStore, pick: int) -> int:
    ids = store.ids[~store.is_terminal]
    return int(ids[pick % len(ids)])


def uncrashed(seed: int) -> Iterator[sw.ValueStore]:
    """One store in memory, after 0, 1, 2, … operations."""
    store = sw.ValueStore(CONFIG)
    number = 0
    while True:
        yield store
        operation(seed, number)(store)
        number += 1


def main() -> None:
    directory, seed, first, durability = sys.argv[1:]
    store = sw.ValueStore.open(directory, CONFIG, durability=durability)  # type: ignore[arg-type]
    os.write(1, b"open\n")
    for number in range(int(first), sys.maxsize):
        operation(int(seed), number)(store)
        os.write(1, f"{number}\n".encode())
        if number % 17 == 0:
            store.flush()


if __name__ == "__main__":
    main()
