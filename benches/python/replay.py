"""Credit assignment at a million memories and sixteen million associations, eight channels.

* `replay-sweep`: a full sweep, an association and channel, beside scipy's CSR product with one vector at a time, both
  one thread, in turns. Ours is the slope between a sleep of one sweep and one of nine, so that what a sleep costs once
  is left out; with it, it is "nine sweeps". And the same of associations to the 255 memories just after: what an order
  by locality could gain at most.
* `replay-sleep`: a sleep after one new episode of 16 steps, pushed and in full sweeps, in two stores that live alike.
* `replay-wait`: how long a reader waits for a store that sleeps: the time that `len(store)` takes, asked every half
  millisecond, and that the score of one step takes, while it sleeps and while it does not.
* `replay-veto`: see veto.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import sharpwave as sw

from benches.python import large, timing, veto

MEMORIES, DEGREE, CHANNELS = 1_000_000, 16, 8
TOLERANCES = (1e-2, 1e-4)


def measured(what: str) -> dict[str, Any]:
    """The rows of a cell, in seconds."""
    return {"sweep": sweeping, "sleep": sleeping, "wait": waiting, "veto": veto.measured}[what]()


def sweeping(rounds: int = 7) -> dict[str, Any]:
    """Seconds an association and channel."""
    store = large.store(MEMORIES, DEGREE, CHANNELS, gamma=0.95)
    source, target, weight = store.edges()
    P = scipy.sparse.csr_matrix((weight, (source, target)), shape=(MEMORIES, MEMORIES))
    r, v = np.ascontiguousarray(store.drives[:, 0].astype(np.float64)), np.random.default_rng(0).random(MEMORIES)
    edges = len(weight)
    del source, target

    def seconds(call: Any) -> float:
        begun = time.process_time()
        call()
        return time.process_time() - begun

    def sleep(sweeps: int, store: sw.ValueStore) -> float:
        def call() -> None:
            report = store.replay(sweeps * MEMORIES, tol=0, order="full", num_threads=1)
            assert report.backups == sweeps * MEMORIES

        return seconds(call)

    ordered = large.store(MEMORIES, DEGREE, CHANNELS, gamma=0.95, local=True)
    names = ("scipy CSR, one vector", "sweep", "nine sweeps", "sweep, successors side by side")
    found: dict[str, list[float]] = {name: [] for name in names}
    near = len(ordered.edges()[0])
    sleep(1, store)
    sleep(1, ordered)
    for _ in range(rounds):
        found["scipy CSR, one vector"].append(seconds(lambda: np.maximum(r, 0.95 * (P @ v))) / edges)
        one, nine = sleep(1, store), sleep(9, store)
        found["sweep"].append((nine - one) / 8 / edges / CHANNELS)
        found["nine sweeps"].append(nine / 9 / edges / CHANNELS)
        one, nine = sleep(1, ordered), sleep(9, ordered)
        found["sweep, successors side by side"].append((nine - one) / 8 / near / CHANNELS)
    return {"rows": {name: timing.summary(samples) for name, samples in found.items()}, "clock": "process"}


def sleeping(rounds: int = 7) -> dict[str, Any]:
    """Seconds of a sleep after one episode."""
    rows, about = dict[str, Any](), dict[str, Any]()
    for tol in TOLERANCES:
        samples, backups = after_an_episode(tol, rounds)
        rows |= {f"{order}, tol {tol:g}": timing.summary(some) for order, some in samples.items()}
        about[f"pushes, tol {tol:g}"] = backups
    return {"rows": rows, "about": about, "clock": "process"}


def after_an_episode(tol: float, rounds: int) -> tuple[dict[str, list[float]], list[int]]:
    """Seconds of each sleep by its order, and how many backups the pushes were."""
    stores = {order: large.store(MEMORIES, DEGREE, CHANNELS) for order in ("prioritized", "full")}
    for store in stores.values():
        store.replay(tol=tol, order="full")
    rng, samples, backups = np.random.default_rng(1), {order: [] for order in stores}, []
    keys = stores["full"].keys
    for _ in range(rounds):
        steps, drives = keys[rng.integers(0, MEMORIES, 16)], np.full((16, CHANNELS), np.nan)
        drives[-1] = 1.0
        for order, store in stores.items():
            store.observe(steps, drives=drives)
            begun = time.process_time()
            report = store.replay(tol=tol, order=order, num_threads=1)
            samples[order].append(time.process_time() - begun)
            assert report.converged
            backups += [report.backups] if order == "prioritized" else []
    return samples, backups


def waiting(seconds: float = 15.0) -> dict[str, Any]:
    """Seconds that a reader waits while sleep follows sleep, and that a score takes then and otherwise."""
    store = large.store(MEMORIES, DEGREE, CHANNELS)
    step, over = store.keys[:1], threading.Event()
    rows = {"score, awake": _percentiles(_asked(lambda: store.score(step, [0, 1], num_threads=1), seconds))}

    def sleeper() -> None:
        sleeps = 0
        while not over.is_set():  # each has a little more to do than the one before
            store.replay(tol=0.1 * 0.8**sleeps, order="full" if sleeps % 2 else "prioritized", num_threads=1)
            sleeps += 1

    thread = threading.Thread(target=sleeper)
    thread.start()
    rows["len, asleep"] = _percentiles(_asked(lambda: len(store), seconds))
    rows["score, asleep"] = _percentiles(_asked(lambda: store.score(step, [0, 1], num_threads=1), seconds))
    over.set()
    thread.join()
    return {"rows": rows, "clock": "wall"}


def _asked(call: Callable[[], Any], seconds: float) -> list[float]:
    samples, end = list[float](), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        call()
        samples.append(time.perf_counter() - begun)
        time.sleep(0.0005)
    return samples


def _percentiles(samples: list[float]) -> dict[str, float | int]:
    return {**timing.summary(samples), "p99": float(np.percentile(samples, 99)), "most": max(samples)}
