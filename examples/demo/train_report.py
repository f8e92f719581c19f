"""The second form's part of the report: claims, the page's section, the plot, the lines on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpwave import viz
from sharpwave._lazy import require
from sharpwave.probe.claims import Claim, claim, line, shown

from examples.demo.measures import MEASURES

DISTINCT_AT_LEAST = 0.9  # of the base's
YES_AT_MOST = 0.02
PARROT_AT_MOST = 0.02
NATS_AT_MOST = 0.5  # a token, that the base finds the texts less likely
CURVES = (
    ("reward", "reward", "in standard deviations of the base's texts"),
    ("sharpwave/instrumental_raw", "instrumental part R", "as the learning store pays it"),
    ("sharpwave/support", "support σ", "mean of the steps"),
    ("sharpwave/divergence", "divergence", "MMD to the base's texts, standardised; watched, not paid"),
    ("watch/distinct_2", "distinct-2", "of the step's batch"),
    ("entropy", "entropy", "nats a token"),
)


def claims(found: Mapping[str, Any]) -> list[Claim]:
    """What the run is meant to show, each with its number, its interval and what follows."""
    by = found["measures"]
    gain, distinct, likelihood = by["instrumental"], by["distinct_2"], by["log_likelihood"]
    yes, parrot = by["yes_share"], by["parrot_share"]
    return [
        claim("gain", "the instrumental part rose: the change", gain["change"], gain["interval"], at_least=0.0),
        claim(
            "distinct",
            f"distinct-2 is at least {DISTINCT_AT_LEAST:.0%} of the base's: its share",
            distinct["kept"],
            distinct["kept_interval"],
            at_least=DISTINCT_AT_LEAST,
        ),
        claim(
            "yes",
            f"“yes” is at most {YES_AT_MOST:.0%} of the words: its share",
            yes["after"],
            share_interval(yes, found["texts"]),
            at_most=YES_AT_MOST,
        ),
        claim(
            "parrot",
            f"at most {PARROT_AT_MOST:.0%} of the sentences parrot a terminal: their share",
            parrot["after"],
            share_interval(parrot, found["texts"]),
            at_most=PARROT_AT_MOST,
        ),
        claim(
            "likelihood",
            f"the base finds the texts no more than {NATS_AT_MOST} nats a token less likely: the change",
            likelihood["change"],
            likelihood["interval"],
            at_least=-NATS_AT_MOST,
        ),
    ]


def share_interval(share: Mapping[str, Any], texts: int) -> list[float] | None:
    """The 95 % interval of a share of the words or sentences of ``texts`` texts.

    Where no text has any, a bootstrap has no spread. What so many texts without one leave open is its upper end.
    """
    around: list[float] | None = share["after_interval"]
    return [0.0, 1.0 - 0.025 ** (1.0 / texts)] if around is not None and share["after"] == 0 else around


def curves(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts over the steps, those that were logged: title, about, steps and values."""
    out: list[dict[str, Any]] = []
    for key, title, about in CURVES:
        points = [(line["step"], line[key]) for line in found["steps"] if line.get(key) is not None]
        if points:
            steps, values = zip(*points, strict=True)
            out.append({"title": title, "about": about, "steps": list(steps), "values": list(values)})
    return out


def plot(found: Mapping[str, Any], path: Path) -> Path:
    """The curves as a PNG file."""
    return viz.curves(curves(found), path)


def curve_svg(curve: Mapping[str, Any]) -> dict[str, Any]:
    """One curve in a box of 300 by 110: the points of each step, and of a running mean of five."""
    width, height = 300.0, 110.0
    steps, values = curve["steps"], curve["values"]
    low, high = min(values), max(values)
    span, length = max(high - low, 1e-9), max(steps[-1] - steps[0], 1)

    def points(heights: Sequence[float]) -> str:
        return " ".join(
            f"{(s - steps[0]) / length * width:.1f},{height - (v - low) / span * height:.1f}"
            for s, v in zip(steps, heights, strict=True)
        )

    smooth = [sum(values[max(0, n - 4) : n + 1]) / len(values[max(0, n - 4) : n + 1]) for n in range(len(values))]
    return {**curve, "low": low, "high": high, "points": points(values), "smooth": points(smooth)}


def rows(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """The table of changes, as text."""
    out: list[dict[str, str]] = []
    for m in MEASURES:
        c, d = found["measures"][m.id], m.decimals
        low, high = c["interval"]
        out.append(
            {
                "title": m.title,
                "about": m.about,
                "before": f"{c['before']:.{d}f}",
                "after": f"{c['after']:.{d}f}",
                "change": f"{c['change']:+.{d}f}",
                "interval": f"{low:+.{d}f} … {high:+.{d}f}",
                "verdict": ("rose" if c["change"] > 0 else "fell") if c["distinguishable"] else "not distinguishable",
            }
        )
    return out


def section(found: Mapping[str, Any], plots: Path) -> str:
    """The page's section about the run, and its plot among ``plots``."""
    plot(found, plots / "training.png")
    return html(found)


def html(found: Mapping[str, Any]) -> str:
    """The page's section about the run."""
    jinja2 = require("jinja2", "demo")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = Path(__file__).with_name("train.html.j2").read_text("utf-8")
    return environment.from_string(template).render(
        t=found, claims=shown(found["claims"]), rows=rows(found), curves=[curve_svg(c) for c in curves(found)]
    )


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The changes and claims, for a terminal."""
    s = found["settings"]
    yield (
        f"{found['objective']}: {s['steps']} steps of {s['groups'] * s['copies']} completions; "
        f"{found['texts']} texts before and after, 95 % intervals"
    )
    for row in rows(found):
        yield (
            f"  {row['title']:<22} {row['before']:>8} → {row['after']:>8}   "
            f"{row['change']:>8} ({row['interval']}): {row['verdict']}"
        )
    yield from map(line, found["claims"])
