"""The plots of docs/study-first.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "sharpwave"
import matplotlib.pyplot as plt  # noqa: E402

from examples.study.compare import over_distance  # noqa: E402
from examples.study.verdict import GOLD, Floats, Record, moving  # noqa: E402

PANELS = (
    ("reward", "reward (z against base)"),
    ("kl", "KL from base, nats a token"),
    ("yes_share", "“yes”, share of the words"),
    ("distinct_2", "distinct-2 of 16 completions"),
    ("base_log_likelihood", "base log-likelihood, nats a token"),
    ("coverage", "coverage, as the frozen store sees it"),
)


def curves(arms: Mapping[str, Sequence[Record]], path: Path) -> None:
    """Proxy, gold and text measures over optimisation; a band is the range over seeds."""
    figure, axes = plt.subplots(3, 3, figsize=(13, 10), constrained_layout=True)
    colours = [plt.get_cmap("tab20")(n) for n in range(20)]
    for n, (arm, runs) in enumerate(arms.items()):
        for axis, (name, title) in zip(axes.flat, PANELS, strict=False):
            _band(axis, [moving(r.series(name), 5) for r in runs], colours[n % 20], arm)
            axis.set_title(title, fontsize=9)
        for axis, measure in zip(axes[2], GOLD, strict=True):
            for k, r in enumerate(runs):
                at, z = r.gold(measure)
                axis.plot(at, z, color=colours[n % 20], lw=1, label=arm if k == 0 else None)
            axis.set_title(f"gold: {measure} (z)", fontsize=9)
    axes[0, 0].legend(fontsize=6)
    for axis in axes[-1]:
        axis.set_xlabel("step", fontsize=8)
    save(figure, path)


def distances(arms: Mapping[str, Sequence[Record]], path: Path) -> None:
    """Proxy and gold over the distance from the base, an arm a panel."""
    lines = -(-len(arms) // 4)
    figure, axes = plt.subplots(
        lines, 4, figsize=(13, 2.8 * lines), sharex=True, sharey=True, squeeze=False, constrained_layout=True
    )
    over_distance(arms, list(axes.flat))
    for axis in list(axes.flat)[len(arms) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("√KL, nats a token", fontsize=8)
    axes[0, 0].legend(fontsize=6)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """The figure as a file without a date, so that the same data make the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _band(axis: Any, series: list[Floats], colour: Any, label: str) -> None:
    length = min(len(s) for s in series)
    stacked = np.stack([s[:length] for s in series])
    axis.plot(stacked.mean(0), color=colour, lw=1, label=label)
    if len(series) > 1:
        axis.fill_between(range(length), stacked.min(0), stacked.max(0), color=colour, alpha=0.2, lw=0)
