"""Credit assignment at a million memories and sixteen million associations, eight channels.

    python -m benches.python.replay        three minutes; benches/results/replay.json

* A full sweep, an association and channel, beside scipy's CSR product with one vector at a time, both one thread, in
  turns. Ours is the slope between a sleep of one sweep and one of nine, so that what a sleep costs once is left out;
  with it, it is "nine sweeps".
* A sleep after one new episode of 16 steps, pushed and in full sweeps, in two stores that live the same.
* How long a reader waits for a store that sleeps: the time `len(store)` takes, asked every half millisecond.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import sharpwave as sw

from benches.python import large, timing

MEMORIES, DEGREE, CHANNELS = 1_000_000, 16, 8
RESULTS = Path("benches/results/replay.json")


def sweeping(rounds: int = 7) -> dict[str, Any]:
    """Nanoseconds an association and channel."""
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

    def sleep(sweeps: int, threads: int = 1) -> float:
        def call() -> None:
            report = store.replay(sweeps * MEMORIES, tol=0, order="full", num_threads=threads)
            assert report.backups == sweeps * MEMORIES

        return seconds(call)

    found: dict[str, list[float]] = {"scipy CSR, one vector": [], "sweep": [], "nine sweeps": []}
    sleep(1)
    for _ in range(rounds):
        found["scipy CSR, one vector"].append(seconds(lambda: np.maximum(r, 0.95 * (P @ v))) / edges)
        one, nine = sleep(1), sleep(9)
        found["sweep"].append((nine - one) / 8 / edges / CHANNELS)
        found["nine sweeps"].append(nine / 9 / edges / CHANNELS)
    return {name: timing.summary([1e9 * s for s in samples]) for name, samples in found.items()}


def sleeping(tol: float, rounds: int = 7) -> dict[str, Any]:
    """Seconds of a sleep after one episode."""
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
    found: dict[str, Any] = {order: timing.summary(some) for order, some in samples.items()}
    return {**found, "ratio": float(np.median(samples["full"]) / np.median(samples["prioritized"])), "pushes": backups}


def waiting(seconds: float = 20.0) -> dict[str, Any]:
    """Milliseconds that a reader waits while sleep follows sleep."""
    store = large.store(MEMORIES, DEGREE, CHANNELS)
    waits, over = list[float](), threading.Event()

    def sleeper() -> None:
        sleeps = 0
        while not over.is_set():  # each has a little more to do than the one before
            store.replay(tol=0.1 * 0.8**sleeps, order="full" if sleeps % 2 else "prioritized", num_threads=1)
            sleeps += 1

    thread = threading.Thread(target=sleeper)
    thread.start()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        len(store)
        waits.append(1e3 * (time.perf_counter() - begun))
        time.sleep(0.0005)
    over.set()
    thread.join()
    found = np.percentile(waits, [50, 99, 99.9])
    return {"p50": found[0], "p99": found[1], "p99.9": found[2], "most": max(waits), "samples": len(waits)}


def main() -> None:
    found = {
        "machine": timing.machine(),
        "version": sw.__version__,
        "memories": MEMORIES,
        "ns an association and channel": sweeping(),
        "sleep after an episode, s": {f"tol {tol:g}": sleeping(tol) for tol in (1e-2, 1e-4)},
        "ms a reader waits": waiting(),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"rows": {}, "replay": found, "machine": found["machine"]}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
