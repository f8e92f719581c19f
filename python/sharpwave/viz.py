"""Pictures of a store: the value map, the support of steps, the exploit table as a heat map.

The data of a picture is plain (`map_data`, `histogram_data`), so that a report can keep it; the
drawing functions take that data and write a file (matplotlib, extra ``viz``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._lazy import require

if TYPE_CHECKING:
    from sharpwave.view import View

INK = "#1b2330"
ACCENT = "#b3541e"


def principal_axes(keys: NDArray[np.float32], axes: int = 2) -> NDArray[np.float64]:
    """``(n, axes)`` coordinates of ``keys`` along their directions of most variance (PCA).

    The sign of an axis is fixed so that its largest coordinate is positive.
    """
    centred = np.asarray(keys, np.float64) - np.mean(keys, axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)
    out = centred @ directions[:, ::-1][:, :axes]
    peak = out[np.argmax(np.abs(out), axis=0), np.arange(out.shape[1])]
    return out * np.where(peak < 0, -1.0, 1.0)


def map_data(
    store: View,
    groups: Mapping[str, Sequence[str]] | None = None,
    memories: int = 700,
    associations: int = 250,
) -> dict[str, Any]:
    """The value map as plain data: memories in two dimensions, and the strongest associations.

    Args:
        store: a store or a frozen view.
        groups: channels whose mean value is one colouring, by name; default: each channel.
        memories: how many to show: all terminals, and of the rest half the most valuable of any
            group, half evenly strided.
        associations: how many edges between shown memories, the largest ``P·v(target)`` first.

    Returns:
        ``x, y, text, terminal, count`` a memory, ``values`` by group, ``edges`` as
        ``[source, target, P]`` in the numbering of the shown memories.
    """
    names = store.channels
    groups = groups or {name: [name] for name in names}
    value = {
        group: store.values[:, [names.index(c) for c in channels]].mean(axis=1) for group, channels in groups.items()
    }
    if not len(store):
        return {"x": [], "y": [], "text": [], "terminal": [], "values": {}, "edges": []}
    best: NDArray[np.float32] = np.max([*value.values()], axis=0) if value else np.zeros(len(store), np.float32)
    terminal = store.is_terminal
    shown = _selection(best, terminal, memories)
    place = {int(store.ids[n]): i for i, n in enumerate(shown)}
    where = principal_axes(store.keys)[shown]
    texts = store.texts
    source, target, weight = store.edges()
    rank = [
        (float(w) * float(best[shown[place[int(t)]]]), place[int(s)], place[int(t)], float(w))
        for s, t, w in zip(source, target, weight, strict=True)
        if int(s) in place and int(t) in place
    ]
    rank.sort(key=lambda edge: (-edge[0], edge[1], edge[2]))
    return {
        "x": [round(float(v), 4) for v in where[:, 0]],
        "y": [round(float(v), 4) for v in where[:, 1]],
        "text": [texts[n] or "" for n in shown],
        "terminal": [bool(terminal[n]) for n in shown],
        "count": [int(store.counts[n]) for n in shown],
        "values": {g: [round(float(v[n]), 4) for n in shown] for g, v in value.items()},
        "edges": [[s, t, round(w, 4)] for _, s, t, w in rank[:associations]],
    }


def _selection(best: NDArray[np.float32], terminal: NDArray[np.bool_], memories: int) -> NDArray[np.int64]:
    if len(best) <= memories:
        return np.arange(len(best))
    means = np.flatnonzero(~terminal)
    top = means[np.argsort(-best[means], kind="stable")[: memories // 2]]
    spread = means[np.linspace(0, len(means) - 1, memories - len(top)).astype(np.int64)]
    return np.unique(np.concatenate([np.flatnonzero(terminal), top, spread]))


def histogram_data(samples: Mapping[str, NDArray[np.float32]], bins: int = 40) -> dict[str, Any]:
    """Shares of each sample's support σ in equal bins over [0, 1]: ``edges`` and ``shares``."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    return {
        "edges": [round(float(e), 4) for e in edges],
        "shares": {
            name: [round(float(v), 5) for v in np.histogram(np.clip(s, 0, 1), edges)[0] / max(len(s), 1)]
            for name, s in samples.items()
        },
    }


def _figure(width: float, height: float) -> tuple[Any, Any, Any]:
    matplotlib = require("matplotlib", "viz")
    matplotlib.use("Agg")
    pyplot = require("matplotlib.pyplot", "viz")
    figure, axis = pyplot.subplots(figsize=(width, height), layout="constrained")
    return pyplot, figure, axis


def _save(pyplot: Any, figure: Any, path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=150)
    pyplot.close(figure)
    return target


def value_map(data: Mapping[str, Any], path: str | os.PathLike[str], group: str | None = None) -> Path:
    """Draw `map_data`, coloured by the value of ``group`` (default: the largest of any)."""
    pyplot, figure, axis = _figure(9, 6.5)
    values = data["values"]
    colour = np.asarray(values[group] if group else np.max(list(values.values()), axis=0))
    x, y = np.asarray(data["x"]), np.asarray(data["y"])
    for s, t, w in data["edges"]:
        axis.annotate(
            "",
            (x[t], y[t]),
            (x[s], y[s]),
            arrowprops={
                "arrowstyle": "-|>",
                "color": INK,
                "alpha": min(0.6, 0.1 + float(w)),
                "lw": 0.6,
                "shrinkA": 2,
                "shrinkB": 2,
                "connectionstyle": "arc3,rad=0.12",
            },
        )
    order = np.argsort(colour, kind="stable")
    terminal = np.asarray(data["terminal"], bool)
    dots = axis.scatter(x[order], y[order], c=colour[order], s=16, cmap="YlOrRd", edgecolors=INK, linewidths=0.2)
    axis.scatter(x[terminal], y[terminal], marker="*", s=130, c=ACCENT, edgecolors="white")
    figure.colorbar(dots, ax=axis, label="value v", shrink=0.7)
    axis.set_title(f"value map{f': {group}' if group else ''}  (★ terminals, arrows: associations)")
    axis.set_xticks([])
    axis.set_yticks([])
    return _save(pyplot, figure, path)


def support_histogram(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Draw `histogram_data`: how much the store knows about the steps of each kind of text."""
    pyplot, figure, axis = _figure(8, 4)
    edges = np.asarray(data["edges"])
    for name, shares in data["shares"].items():
        axis.stairs(shares, edges, label=name, lw=1.6)
    axis.set_xlabel("support σ of a step")
    axis.set_ylabel("share of the steps")
    axis.set_yscale("symlog", linthresh=0.01)
    axis.legend(frameon=False)
    return _save(pyplot, figure, path)


def table_heatmap(
    rows: Sequence[str],
    columns: Sequence[str],
    z: NDArray[np.float64],
    path: str | os.PathLike[str],
    title: str = "",
) -> Path:
    """Draw z-scores ``(rows, columns)`` as a heat map, the numbers written in it."""
    pyplot, figure, axis = _figure(1.1 * len(columns) + 3, 0.28 * len(rows) + 1.2)
    axis.imshow(z, cmap="RdBu_r", vmin=-6, vmax=6, aspect="auto")
    axis.set_xticks(range(len(columns)), columns, rotation=30, ha="left")
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(rows)), rows)
    for r in range(len(rows)):
        for c in range(len(columns)):
            if np.isfinite(z[r, c]):
                white = abs(z[r, c]) > 4
                axis.text(
                    c, r, f"{z[r, c]:+.1f}", ha="center", va="center", fontsize=8,
                    color="white" if white else INK,
                )  # fmt: skip
    axis.set_xlabel(title)
    return _save(pyplot, figure, path)


def curves(data: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Draw numbers over the steps of a run, each curve in a box of its own: ``title, steps, values``."""
    matplotlib = require("matplotlib", "viz")
    matplotlib.use("Agg")
    pyplot = require("matplotlib.pyplot", "viz")
    columns = min(3, max(1, len(data)))
    rows = max(1, -(-len(data) // columns))
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4 * columns, 2.6 * rows), layout="constrained", squeeze=False
    )
    for axis, curve in zip(axes.flat, data, strict=False):
        values = np.asarray(curve["values"], np.float64)
        smooth = [values[max(0, n - 4) : n + 1].mean() for n in range(len(values))]
        axis.plot(curve["steps"], values, color=INK, alpha=0.35, lw=1)
        axis.plot(curve["steps"], smooth, color=ACCENT, lw=2)
        axis.set_title(curve["title"], fontsize=10)
        axis.set_xlabel("step", fontsize=9)
    for axis in axes.flat[len(data) :]:
        axis.set_axis_off()
    return _save(pyplot, figure, path)
