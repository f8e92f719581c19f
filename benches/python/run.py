"""Measures the cells and keeps each in a file of its own.

    python -m benches.python.run quick     the headline: under three minutes (`make bench-quick`)
    python -m benches.python.run full      everything: an hour at most (`make bench`)
    python -m benches.python.run prepare   embeddings and indexes only, which both keep in runs/bench/

A cell whose file is there, measured on this processor, is skipped, so that a run that was stopped goes on; `--force`
measures it again. `--only REGEX` takes the cells whose names match. The tables and the plot are written at the end.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benches.python import blas

if __name__ == "__main__":
    blas.ensure("benches.python.run")

from benches.python import approximate, data, exact, memory, opening, replay, report, timing, verbs
from benches.python.cells import HEADLINE, Cell, everything

RESULTS = Path("benches/results")
BUDGET = {"quick": 4.0, "full": 8.0}
"""Seconds of samples a cell; every contestant has three at least."""
PATIENCE, PROBED, PROBE = 2.5, 50_000_000, 16
"""A peer whose batch would take so many budgets, by a probe of so many queries, is left out of the large cells."""
PACKAGES = ("sharpwave", "faiss-cpu", "numpy", "torch", "usearch", "hnswlib", "scann")


def main() -> None:
    """Measure what is asked for, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extent", choices=["prepare", "quick", "full"])
    parser.add_argument("--only", default="", metavar="REGEX", help="the cells whose names match")
    parser.add_argument("--force", action="store_true", help="measure again what is there")
    parser.add_argument("--minutes", type=float, default=50.0, help="no cell is begun after so long (50)")
    options = parser.parse_args()
    if options.extent == "prepare":
        prepare()
        return
    cells = [
        cell for cell in (HEADLINE if options.extent == "quick" else everything()) if re.search(options.only, cell.name)
    ]
    measure(cells, BUDGET[options.extent], force=options.force, minutes=options.minutes)
    report.write()


def prepare() -> None:
    """Make what takes its time and is kept: embeddings, mixtures, the store that has lived, the indexes."""
    verbs.lived()
    for cell in everything():
        rows = data.memories(cell.data, cell.n) if cell.data == "minilm" else None
        if cell.kind == "approximate" and rows is not None:
            approximate.built(cell.data, rows)


def measure(cells: Iterable[Cell], budget: float, *, force: bool, minutes: float) -> None:
    """Each cell that is not there yet, as long as there is time; at least one."""
    machine, end = timing.machine(), time.perf_counter() + 60 * minutes
    for cell in cells:
        path = RESULTS / f"{cell.name}.json"
        if not force and path.exists() and json.loads(path.read_text())["machine"]["cpu"] == machine["cpu"]:
            continue
        begun = time.perf_counter()
        if begun > end:
            print(f"{minutes:g} minutes are over before {cell.name}: run it again to go on")
            return
        found = MEASURES[cell.kind](cell, budget)
        about = {"cell": cell._asdict(), "date": today(), "machine": machine, "versions": versions()}
        RESULTS.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**about, "blas": blas.kernels(), **found}, indent=1) + "\n")
        taken = time.perf_counter() - begun
        print(f"{cell.name}: {taken:.0f} s", {n: _brief(r) for n, r in found["rows"].items()}, flush=True)


def searching(cell: Cell, budget: float) -> dict[str, Any]:
    """Queries per second of every exact peer."""
    rows, calls, missing = contestants(cell.data, cell.n)
    pool = data.queries(cell.data)
    batches = [pool[first : first + cell.batch] for first in range(0, len(pool) - cell.batch + 1, cell.batch)]
    turns = dict.fromkeys(calls, 0)

    def asked(name: str) -> Callable[[], Any]:
        def call() -> None:
            turns[name] += 1  # another batch every time
            calls[name](batches[turns[name] % len(batches)], cell.threads)

        return call

    peak = peaks()
    with timing.threads(cell.threads):
        for name in [peer for peer in calls if peer != "sharpwave"]:
            if (seconds := probed(calls[name], pool, cell)) > PATIENCE * budget:
                rate = f"{cell.batch / seconds:.0f} queries a second in a probe of {PROBE}"
                missing = {**missing, f"{name}, {cell.n:,} × {cell.batch}": f"left out as too slow, {rate}"}
                calls = {other: call for other, call in calls.items() if other != name}
        samples = timing.interleaved({name: asked(name) for name in calls}, count=cell.threads, budget=budget)
        again = [name for name in calls if name == "sharpwave" or len(samples[name]) > 1]
        answers = {name: calls[name](batches[0], cell.threads) for name in again}
    found = {
        name: {
            **timing.summary(some),
            "queries_per_second": cell.batch / float(np.median(some)),
            **(
                {"agreement": exact.agreement(rows, batches[0], answers["sharpwave"], answers[name])}
                if name in answers
                else {}
            ),
        }
        for name, some in samples.items()
    }
    return {"rows": found, "missing": missing, "peak": peak, "clock": _clock(cell.threads)}


def probed(call: exact.Search, pool: data.Rows, cell: Cell) -> float:
    """About how many seconds the batch will take, from a few queries."""
    if cell.n * cell.batch < PROBED:
        return 0.0
    call(pool[:1], cell.threads)
    begun = time.perf_counter()
    call(pool[:PROBE], cell.threads)
    return (time.perf_counter() - begun) * cell.batch / PROBE


def scaling(cell: Cell, budget: float) -> dict[str, Any]:
    """sharpwave and faiss on one and on two threads, all by the wall clock."""
    _, calls, _ = contestants(cell.data, cell.n)
    queries = data.queries(cell.data, cell.batch)

    def asked(name: str, count: int) -> Callable[[], Any]:
        return lambda: calls[name](queries, count)

    both = {f"{name} {count}": asked(name, count) for name in ("sharpwave", "faiss-blas") for count in (1, 2)}
    samples = timing.interleaved(both, count=2, budget=budget, prepare=lambda name: timing.threads(int(name[-1])))
    return {"rows": {name: timing.summary(some) for name, some in samples.items()}, "clock": _clock(2)}


def approximating(cell: Cell, budget: float) -> dict[str, Any]:
    """Queries per second at a recall, each index at its own setting."""
    rows, queries = data.memories(cell.data, cell.n), data.queries(cell.data)
    indexes, missing = approximate.built(cell.data, rows)
    with timing.threads(1):
        ids = exact.filled(rows).search(queries, exact.K)[0]
        settings = {name: approximate.tuned(index, queries, ids) for name, index in indexes.items()}
        calls: dict[str, Callable[[], Any]] = {}
        about = dict[str, dict[str, Any]]()
        for name, found in settings.items():
            for wanted, (setting, recall) in found.items():
                row = f"{name} @ {wanted}"
                calls[row] = lambda index=indexes[name], setting=setting: index.search(queries, setting)
                about[row] = {"setting": setting, "recall": recall, "build_seconds": indexes[name].seconds}
            for wanted in approximate.RECALLS:
                if wanted not in found:
                    missing[f"{name} @ {wanted}"] = "does not reach it with the settings tried"
        samples = timing.interleaved(calls, count=1, budget=4 * budget)
    rows_ = {
        name: {**timing.summary(some), "queries_per_second": len(queries) / float(np.median(some)), **about[name]}
        for name, some in samples.items()
    }
    return {"rows": rows_, "missing": missing, "clock": _clock(1)}


def remembering(cell: Cell, _: float) -> dict[str, Any]:
    """Bytes a memory at the peak."""
    found = memory.peaks(cell.data, cell.n, 256)
    return {"rows": {name: {"bytes": count} for name, count in found.items()}}


def verb(of: Callable[[float], tuple[dict[str, list[float]], dict[str, Any]]]) -> Callable[..., dict[str, Any]]:
    """Scoring, observing, appending."""

    def measured(_: Cell, budget: float) -> dict[str, Any]:
        with timing.threads(1):
            samples, about = of(2 * budget)
        return {
            "rows": {name: timing.summary(some) for name, some in samples.items()},
            "about": about,
            "clock": _clock(1),
        }

    return measured


MEASURES: dict[str, Callable[[Cell, float], dict[str, Any]]] = {
    "search": searching,
    "threads": scaling,
    "approximate": approximating,
    "memory": remembering,
    "score": verb(verbs.scoring),
    "observe": verb(verbs.observing),
    "append": verb(verbs.appending),
    "replay": lambda cell, _: replay.measured(cell.data),
    "open": lambda *_: opening.measured(),
}


@lru_cache(maxsize=1)
def contestants(kind: str, n: int) -> tuple[data.Rows, dict[str, exact.Search], dict[str, str]]:
    """The exact peers over one set of memories, built once for the cells that follow each other."""
    rows = data.memories(kind, n)
    return rows, *exact.searches(rows)


@lru_cache
def peaks() -> dict[str, float]:
    """What the machine reaches, measured once a run; see benches/rust/peak.rs."""
    command = ["cargo", "bench", "--quiet", "--locked", "-p", "sharpwave-core", "--bench", "peak"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def versions() -> dict[str, str]:
    """Of sharpwave and the peers."""
    return {name: version(name) for name in PACKAGES if _installed(name)}


def today() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


def _installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _clock(threads: int) -> str:
    return "process" if threads == 1 else "wall"


def _brief(row: dict[str, float]) -> str:
    if "queries_per_second" in row:
        return f"{row['queries_per_second']:.0f}/s"
    return f"{row['median']:.3g} s" if "median" in row else f"{row['bytes']:.0f} B"


if __name__ == "__main__":
    main()
