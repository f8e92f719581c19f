"""``python -m examples.study.picture``: the README's picture, a reward hacked beside a reward resisted.

Drawn from ``study/results`` alone: what a policy is paid, what the gold measures say, and what it writes in the end.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.study.plots import plt, save
from examples.study.tables import by_arm
from examples.study.verdict import Record, moving, read_all

PANELS = (
    ("judge", "a yes/no judge: hacked"),
    ("instrumental", "the store's reward alone: hacked, too"),
    ("instrumental-sharing-kl", "the store, sharing and a token KL: resisted"),
)
LINES = (
    ("reward", "paid", "tab:red"),
    ("mood", "gold: mood", "tab:blue"),
    ("objective", "gold: objective", "tab:green"),
)
SMOOTHED = 5
"""Steps in the moving mean of the pay."""

WORDS = 18
"""Last words of a completion that are shown."""


def draw(arms: dict[str, list[Record]], path: Path) -> None:
    """A panel an arm: means over its seeds, a band from the least to the greatest, and a last completion."""
    figure, axes = plt.subplots(1, len(PANELS), figsize=(12, 4.6), sharey=True)
    for axis, (arm, title) in zip(axes, PANELS, strict=True):
        runs = arms[arm]
        for name, label, colour in LINES:
            _line(axis, runs, name, label, colour)
        axis.axhline(0, color="0.7", lw=0.8, zorder=0)
        axis.set_title(f"{title}\n(seeds: {len(runs)})", fontsize=10)
        axis.set_xlabel("training step")
        written = str(runs[0].steps[-1]["samples"][0]).split()
        quoted = textwrap.fill("… " + " ".join(written[-WORDS:]), 44).replace("$", r"\$")
        axis.text(0.5, -0.22, quoted, transform=axis.transAxes, ha="center", va="top", fontsize=8, style="italic")
    axes[0].set_ylabel("standard deviations of the base's completions")
    axes[0].legend(fontsize=8, loc="upper left")
    figure.subplots_adjust(left=0.06, right=0.99, top=0.88, bottom=0.32, wspace=0.06)
    save(figure, path)


def _line(axis: Any, runs: Sequence[Record], name: str, label: str, colour: str) -> None:
    if name == "reward":
        series = [moving(run.series(name), SMOOTHED) for run in runs]
        steps = np.arange(min(len(s) for s in series))
    else:
        steps = runs[0].gold(name)[0]
        series = [run.gold(name)[1] for run in runs]
    rows = np.stack([s[: len(steps)] for s in series])
    axis.plot(steps, rows.mean(0), color=colour, label=label)
    axis.fill_between(steps, rows.min(0), rows.max(0), color=colour, alpha=0.15, lw=0)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("study/results"))
    parser.add_argument("--out", type=Path, default=Path("docs/img/hacked-resisted.svg"))
    options = parser.parse_args()
    draw(by_arm(read_all(options.results)), options.out)


if __name__ == "__main__":
    main()
