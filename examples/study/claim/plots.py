"""The plots of the third part: gold against KL, and gold, typicality and diversity against rounds or steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from examples.study.claim.tables import Point, Record
from examples.study.plots import plt, save

PANELS: tuple[tuple[str, str], ...] = (
    ("gold", "gold: base 0, base asked for the objective 1"),
    ("rise", "reward, sd of the base's"),
    ("gate", "typicality T"),
    ("distinct_2", "distinct-2 / base"),
)


def pareto(records: Mapping[str, Record], titles: Mapping[str, str], path: Path) -> None:
    """Gold over the distance from the base, a line a run."""
    figure, axis = plt.subplots(figsize=(8, 5), constrained_layout=True)
    _lines(axis, records, titles, lambda p: p.kl, "gold")
    axis.axhline(1, color="grey", lw=0.8, ls=":")
    axis.set_xlabel("KL from the base, nats a token")
    axis.set_ylabel("gold: base 0, base asked for the objective 1")
    axis.legend(fontsize=7)
    save(figure, path)


def curves(records: Mapping[str, Record], titles: Mapping[str, str], unit: str, path: Path) -> None:
    """Each measure over rounds or steps."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), constrained_layout=True)
    for axis, (name, title) in zip(axes.flat, PANELS, strict=True):
        _lines(axis, records, titles, lambda p: p.at, name)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(unit, fontsize=8)
    axes[0, 0].legend(fontsize=6)
    save(figure, path)


def _lines(
    axis: Any, records: Mapping[str, Record], titles: Mapping[str, str], x: Callable[[Point], float], name: str
) -> None:
    arms = list(dict.fromkeys(r.header["arm"] for r in records.values()))
    shown: set[str] = set()
    for record in records.values():
        arm = record.header["arm"]
        axis.plot(
            [x(p) for p in record.points],
            [getattr(p, name) for p in record.points],
            color=plt.get_cmap("tab20")(arms.index(arm) % 20),
            marker="o",
            ms=3,
            lw=1,
            label=None if arm in shown else titles.get(arm, arm),
        )
        shown.add(arm)
