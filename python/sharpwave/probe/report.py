"""``report.json`` to ``report.html`` and plots: nothing here computes a number of the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from sharpwave import viz
from sharpwave._lazy import require
from sharpwave.probe import claims
from sharpwave.probe.columns import DEFAULT

Section = Callable[[Mapping[str, Any], Path], str]  # what was found, and where plots belong → HTML

SCHEMA = 1
_COLD, _WARM = (42, 95, 158), (178, 58, 40)  # z below and above the base mean


def load(path: Path | str) -> dict[str, Any]:
    """A ``report.json`` (or the directory that holds one).

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a report, or of another version.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "report.json"
    try:
        report = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a report of schema {SCHEMA}")
    return report


def write(report: Mapping[str, Any], out: Path, training: Section | None = None) -> Path:
    """``report.html`` and the plots of ``report`` into ``out``; returns the page's path.

    ``training`` makes the page's section about a training run, where the report has one.
    """
    plots(report, out / "plots")
    section = training(report["train"], out / "plots") if training and report.get("train") else None
    page = out / "report.html"
    page.write_text(html(report, section), encoding="utf-8")
    return page


def plots(report: Mapping[str, Any], out: Path) -> list[Path]:
    """Value map (one an objective too), support histogram and heat maps, as PNG files."""
    made: list[Path] = []
    if report.get("map", {}).get("values"):
        made.append(viz.value_map(report["map"], out / "value-map.png"))
        made += [
            viz.value_map(report["map"], out / f"value-map-{group}.png", group) for group in report["map"]["values"]
        ]
    if report.get("support"):
        made.append(viz.support_histogram(report["support"], out / "support.png"))
    titles = [c["title"] for c in report["columns"]]
    for o in report["objectives"]:
        z = [[_nan(row["z"].get(c["id"])) for c in report["columns"]] for row in o["rows"]]
        names = [row["name"] for row in o["rows"]]
        label = f"{o['name']}: z against base {report['base'].get('kind', 'stories')}"
        made.append(viz.table_heatmap(names, titles, np.array(z), out / f"table-{o['name']}.png", label))
    return made


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def html(report: Mapping[str, Any], training: str | None = None) -> str:
    """The page: one file, no links out of it. ``training`` is its section about a training run, as HTML."""
    jinja2 = require("jinja2", "demo")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"signed": signed, "shade": shade, "number": plain}
    template = (resources.files("sharpwave.probe") / "report.html.j2").read_text("utf-8")
    every = claims.of_report(report)
    return environment.from_string(template).render(
        r=report,
        claims=claims.shown(report["claims"]),
        summary=list(claims.summary(every)) if every else [],
        failed=claims.failed(every),
        default=DEFAULT,
        map=map_svg(report["map"]) if report.get("map") else None,
        histogram=histogram_svg(report["support"]) if report.get("support") else None,
        off=off_matrix(report),
        train=training,
    )


def signed(value: float | None) -> str:
    """``+1.2``; a dash where there is none."""
    return "–" if value is None else f"{value:+.1f}"


def plain(value: float | None) -> str:
    """``0.93``; a dash where there is none."""
    return "–" if value is None else f"{value:.2f}"


def shade(z: float | None) -> str:
    """The background of a cell with z-score ``z``: blue below the base mean, red above."""
    if z is None:
        return "transparent"
    r, g, b = _WARM if z > 0 else _COLD
    return f"rgba({r},{g},{b},{min(abs(z) / 8.0, 0.75):.2f})"


def off_matrix(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row an objective's stories: its z under each objective's weights."""
    names = [o["name"] for o in report["objectives"]]
    cell = {(e["stories"], e["under"]): e["z"] for e in report["off_objective"]}
    return [{"stories": s, "cells": [cell.get((s, u), {}).get(DEFAULT) for u in names]} for s in names]


def map_svg(data: Mapping[str, Any]) -> dict[str, Any]:
    """Circles and lines of the value map in a box of 900 by 560, for the template to draw."""
    width, height, margin = 900.0, 560.0, 20.0
    x, y = _scaled(data["x"], width, margin), _scaled(data["y"], height, margin)
    groups = data["values"]
    top = {g: max(max(v), 1e-9) for g, v in groups.items()}
    dots = []
    for n in range(len(x)):
        share = {g: round(v[n] / top[g], 3) for g, v in groups.items()}
        dots.append(
            {
                "x": x[n],
                "y": y[n],
                "text": data["text"][n],
                "terminal": data["terminal"][n],
                "r": round(2.4 + min(data["count"][n], 16) ** 0.5, 1),
                "share": share,
                "best": max(share.values(), default=0.0),
                "values": {g: v[n] for g, v in groups.items()},
            }
        )
    dots.sort(key=lambda d: (d["terminal"], d["best"]))
    lines = [{"x1": x[s], "y1": y[s], "x2": x[t], "y2": y[t], "w": w} for s, t, w in data["edges"]]
    return {"width": width, "height": height, "dots": dots, "lines": lines, "groups": list(groups)}


def histogram_svg(data: Mapping[str, Any]) -> dict[str, Any]:
    """Step lines of the support histogram in a box of 900 by 240: cumulative shares."""
    width, height = 900.0, 240.0
    lines = []
    for name, shares in data["shares"].items():
        total = np.cumsum(shares)
        points = []
        for left, right, value in zip(data["edges"], data["edges"][1:], total, strict=False):
            h = height - float(value) * (height - 10)
            points += [f"{left * width:.1f},{h:.1f}", f"{right * width:.1f},{h:.1f}"]
        lines.append({"name": name, "points": " ".join(points)})
    return {"width": width, "height": height, "lines": lines}


def _scaled(values: Sequence[float], size: float, margin: float) -> list[float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    span = max(high - low, 1e-9)
    return [round(margin + (v - low) / span * (size - 2 * margin), 1) for v in values]
