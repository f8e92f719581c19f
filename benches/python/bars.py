"""The bars: what the project demands of its speed, each against what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from benches.python.data import DIM

Results = Mapping[str, Mapping[str, Any]]
"""What each cell's file holds, by the cell's name."""

FAISS = ("faiss", "faiss-blas")


class Bar(NamedTuple):
    """One demand."""

    demand: str
    wanted: float
    found: float | None
    """None where the cell was not measured."""
    unit: str = "×"
    least: bool = True
    """Whether more is better."""

    @property
    def holds(self) -> bool:
        """Whether what was measured suffices."""
        return self.found is not None and (self.found >= self.wanted if self.least else self.found <= self.wanted)

    @property
    def verdict(self) -> str:
        """In words."""
        if self.found is None:
            return "not measured"
        if self.holds:
            return "holds"
        short = abs(self.found - self.wanted) / self.wanted
        return f"missed by {short:.0%}" if short >= 0.01 else f"missed by {short:.1%}"


def median(results: Results, cell: str, row: str) -> float | None:
    """Seconds of a contestant in a cell."""
    found = results.get(cell, {}).get("rows", {}).get(row)
    return None if found is None else found["median"]


def best_faiss(results: Results, cell: str) -> tuple[str, float] | None:
    """The mode of faiss that is faster in this cell, and its seconds."""
    rows = results.get(cell, {}).get("rows", {})
    modes = [(rows[name]["median"], name) for name in FAISS if name in rows]
    return (min(modes)[1], min(modes)[0]) if modes else None


def ratio(results: Results, cell: str) -> float | None:
    """How many times as fast as the faster mode of faiss."""
    ours, theirs = median(results, cell, "sharpwave"), best_faiss(results, cell)
    return None if ours is None or theirs is None else theirs[1] / ours


def against_all(results: Results, cell: str) -> float | None:
    """How many times as fast as the fastest of the exact peers, whichever it is."""
    rows = results.get(cell, {}).get("rows", {})
    others = [row["median"] for name, row in rows.items() if name != "sharpwave"]
    return min(others) / rows["sharpwave"]["median"] if others and "sharpwave" in rows else None


def share_of_peak(results: Results, cell: str) -> float | None:
    """The share of the int8 peak, if every code was multiplied once: 2·B·N·d operations."""
    ours, found = median(results, cell, "sharpwave"), results.get(cell, {})
    peak = found.get("peak", {}).get("int8_1")
    if ours is None or peak is None:
        return None
    return 2 * found["cell"]["batch"] * found["cell"]["n"] * DIM / ours / (1e9 * peak)


def bars(results: Results) -> Iterator[Bar]:
    """All of search, score, observe, append and replay."""
    for n, batch, wanted in (
        (10_000, 32, 2.5),
        (10_000, 256, 2.5),
        (100_000, 1, 3.3),
        (100_000, 32, 6.0),
        (100_000, 256, 3.5),
        (100_000, 1024, 3.5),
        (1_000_000, 1, 2.6),
        (1_000_000, 256, 3.5),
    ):
        found = ratio(results, f"search-minilm-{n}-{batch}-1")
        yield Bar(f"exact search, {n:,} memories, batches of {batch}, against the better faiss Flat", wanted, found)
    for n, batch in ((100_000, 256), (1_000_000, 256)):
        cell = f"threads-minilm-{n}-{batch}"
        one, two = median(results, cell, "sharpwave 1"), median(results, cell, "sharpwave 2")
        found = None if one is None or two is None else one / two
        yield Bar(f"the same on two threads, {n:,} × {batch}, against its own one", 1.8, found)
    for n, batch in ((100_000, 256), (100_000, 1024), (1_000_000, 256)):
        found = share_of_peak(results, f"search-minilm-{n}-{batch}-1")
        yield Bar(f"share of the int8 peak, {n:,} × {batch}", 70.0, None if found is None else 100 * found, unit=" %")
    for recall in (0.95, 0.99):
        for peer, wanted in (("scann", 1.5), ("faiss-hnsw", 4.0)):
            cell = "approximate-minilm-300000"
            ours = median(results, cell, f"sharpwave-partitioned @ {recall}")
            theirs = median(results, cell, f"{peer} @ {recall}")
            found = None if ours is None or theirs is None else theirs / ours
            yield Bar(f"partitioned search, 300,000 × 1024, recall {recall}, against {peer}", wanted, found)
    for verb, wanted in (("score", 1.25), ("observe", 2.0)):
        alone, whole = median(results, verb, "search"), median(results, verb, verb)
        found = None if alone is None or whole is None else whole / alone
        what = "4,096 steps" if verb == "score" else "256 steps, half of them merging,"
        yield Bar(f"{verb} {what} at 100,000 memories, over the search alone", wanted, found, least=False)
    taken = median(results, "append", "insert")
    yield Bar("append without gating, thousand memories per second", 200.0, None if taken is None else 1e-3 / taken, "")
    alone, swept = median(results, "replay-sweep", "scipy CSR, one vector"), median(results, "replay-sweep", "sweep")
    found = None if alone is None or swept is None else alone / swept
    yield Bar("full sweep of 8 channels, per association and channel, against scipy's one vector", 4.0, found)
    for tol, wanted in ((1e-2, 20.0), (1e-4, 1.0)):
        pushed = median(results, "replay-sleep", f"prioritized, tol {tol:g}")
        full = median(results, "replay-sleep", f"full, tol {tol:g}")
        found = None if pushed is None or full is None else full / pushed
        yield Bar(f"sleep after an episode at 1,000,000 memories, tol {tol:g}, against full sweeps", wanted, found)
    waits = results.get("replay-wait", {}).get("rows", {}).get("len, asleep")
    found = None if waits is None else 1e3 * waits["p99"]
    yield Bar("a reader's wait for a store of 1,000,000 that sleeps, p99", 5.0, found, unit=" ms", least=False)
    for where, what in (("from disk", "from the disk"), ("cached", "from the system's memory")):
        alone, whole = (median(results, "open-1000000", f"{name}, {where}") for name in ("read", "open"))
        found = None if alone is None or whole is None else whole / alone
        demand = f"open 1,000,000 memories until the first score, over reading the file {what}"
        yield Bar(demand, 1.2, found, least=False)
