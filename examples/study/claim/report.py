"""The tables and plots of docs/study.md, from ``study/results/claim`` alone; part of ``make study-report``."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

from examples.study.claim import plan, plots, tables
from examples.study.tables import fill

DOCUMENT = Path("docs/study.md")
IMAGES = Path("docs/img")

CLAIM = {
    "a": "bare rewards, and judges with a KL, are exploited: pay rises, gold stays or falls",
    "b": "cosine × store with the protections reaches .8 of the skyline, T ≥ .8 and .9 of the base's distinct-2, "
    "with no KL, after 5 rounds, after 10 and after 400 steps",
    "c": "the same protections without the store leave the judge exploited",
    "d": "with v ≡ 1 or permuted v the gain is lost",
    "e": "beside the probe: where is the store better, and where not",
}


def titles(path: Path = plan.PATH) -> dict[str, str]:
    """How tables name each arm."""
    return {name: row["title"] for name, row in tomllib.loads(path.read_text("utf-8")).get("arms", {}).items()}


def write(results: Path, document: Path, committed: Path = plan.PATH) -> None:
    """The tables of ``document``."""
    whole, named = plan.read(committed), titles(committed)
    records = tables.read_records(results, whole.thresholds["measure"])
    parts: dict[str, Callable[[], str]] = {
        "claims": lambda: tables.claims(whole, records, CLAIM),
        "claim-runs": lambda: tables.runs(whole, records, named),
        "claim-rounds": lambda: tables.by_length(whole, records, named),
        "claim-progress": lambda: tables.progress(whole, records, results),
        "claim-attempts": lambda: tables.attempts(
            whole, records, tables.read_records(results / plan.ATTEMPTS, whole.thresholds["measure"])
        ),
        "claim-samples": lambda: tables.samples(whole, records, named),
    }
    text = document.read_text("utf-8")
    for name, make in parts.items():
        text = fill(text, name, make())
    document.write_text(text, "utf-8")


def draw(results: Path, images: Path, committed: Path = plan.PATH) -> None:
    """The plots, of the runs that have begun, in the order of the matrix."""
    whole, named = plan.read(committed), titles(committed)
    found = tables.read_records(results, whole.thresholds["measure"])
    ordered = {one.name: found[one.name] for one in whole.matrix if one.name in found}
    by_unit = {
        "round": {n: r for n, r in ordered.items() if r.header["optimiser"] == "distill"},
        "step": {n: r for n, r in ordered.items() if r.header["optimiser"] != "distill"},
    }
    if ordered:
        plots.pareto(ordered, named, images / "claim-pareto.svg")
    for unit, records in by_unit.items():
        if records:
            plots.curves(records, named, unit, images / f"claim-{unit}s.svg")
