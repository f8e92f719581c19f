"""``python -m examples.study.report``: every table and plot of the study's pages, from study/results alone."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples.study import gold, plots
from examples.study.claim import report as claim
from examples.study.compare import REMEDIES_HEAD, TURNS_HEAD, read_after, remedies_table, turns_table
from examples.study.run import ABLATIONS, HEADLINE, KNOCKED_OUT, OTHERS, REMEDIES
from examples.study.samples import samples
from examples.study.tables import ablations, by_arm, fill, progress, replicated, same_kl, side_by_side, table, verdicts
from examples.study.verdict import read_all

DOCUMENTS = (Path("docs/study-first.md"), Path("docs/study-samples.md"))
IMAGES = Path("docs/img")
FIGURES = {
    "study-curves": HEADLINE,
    "study-others": (*OTHERS, *REMEDIES),
    "study-ablations": ("instrumental", *KNOCKED_OUT),
}


def write(results: Path, document: Path, told: Path, settings: dict[str, Any]) -> None:
    """The tables of ``document`` and the completions of ``told``."""
    records, afters = read_all(results), read_after(results / "after")
    parts: dict[str, Callable[[], str]] = {
        "progress": lambda: progress(records),
        "verdicts": lambda: verdicts(records, settings, HEADLINE),
        "verdicts-others": lambda: verdicts(records, settings, (*OTHERS, *REMEDIES, *ABLATIONS)),
        "same-kl": lambda: same_kl(records),
        "side-by-side": lambda: side_by_side(records, afters, settings),
        "turns": lambda: table(TURNS_HEAD, turns_table(by_arm(records))),
        "remedies": lambda: table(REMEDIES_HEAD, remedies_table(afters, settings)),
        "ablations": lambda: ablations(records, settings, KNOCKED_OUT),
        "replicated": lambda: replicated(records, read_all(results / "cuda"), settings),
    }
    text = document.read_text("utf-8")
    for name, make in parts.items():
        text = fill(text, name, make())
    document.write_text(text, "utf-8")
    told.write_text(fill(told.read_text("utf-8"), "samples", samples(records, afters)), "utf-8")


def draw(results: Path, images: Path) -> None:
    """The plots, of those arms that have begun."""
    arms = by_arm(read_all(results))
    for name, shown in FIGURES.items():
        if found := {arm: arms[arm] for arm in shown if arm in arms}:
            plots.curves(found, images / f"{name}.svg")
    if found := {arm: arms[arm] for arm in (*HEADLINE, *REMEDIES) if arm in arms}:
        plots.distances(found, images / "study-distance.svg")


def main() -> None:
    """Write the documents' tables and plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("study/results"))
    options = parser.parse_args()
    write(options.results, *DOCUMENTS, gold.read())
    draw(options.results, IMAGES)
    claim.write(options.results / "claim", claim.DOCUMENT)
    claim.draw(options.results / "claim", IMAGES)


if __name__ == "__main__":
    main()
