"""Claims: a number of the report, the interval around it, the limit it is held to, and what follows.

A claim holds where its whole 95 % interval keeps the limit, fails where its whole interval misses it, and is undecided
where the limit lies inside: then another sample of stories could say otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Claim = dict[str, Any]

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
MARKS = {HOLDS: "✓", FAILS: "✗", UNDECIDED: "?"}
RESAMPLES = 1000


def interval(resampled: NDArray[np.float64]) -> list[float] | None:
    """The middle 95 % of a bootstrap's values; None where one of them is not finite."""
    if not np.isfinite(resampled).all():
        return None
    low, high = np.quantile(resampled, [0.025, 0.975])
    return [float(low), float(high)]


def verdict(around: Sequence[float] | None, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """What an interval says about one limit; without an interval nothing is decided."""
    if (at_least is None) == (at_most is None):
        raise ValueError("exactly one of at_least and at_most")
    if around is None:
        return UNDECIDED
    # Both cases are that of a least value.
    limit = at_least if at_least is not None else -float(at_most or 0.0)
    low, high = around if at_least is not None else (-around[1], -around[0])
    return HOLDS if low >= limit else FAILS if high < limit else UNDECIDED


def claim(
    name: str,
    text: str,
    value: float | None,
    around: Sequence[float] | None,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    held_out: bool = False,
) -> Claim:
    """A claim as plain data. ``value`` is None where there is no number; ``around`` is its 95 % interval."""
    if value is None or not math.isfinite(value):
        value = around = None
    said = verdict(around, at_least=at_least, at_most=at_most)
    return {
        "id": name,
        "text": text,
        "value": value,
        "interval": None if around is None else [round(float(v), 4) for v in around],
        "verdict": said,
        "ok": said == HOLDS,
        "held_out": held_out,
    }


def said(claim: Mapping[str, Any]) -> str:
    """The verdict; of a report from before there were intervals, what its mark said."""
    return str(claim.get("verdict") or (HOLDS if claim["ok"] else FAILS))


def number(claim: Mapping[str, Any]) -> str:
    """``-0.50 (-0.62 … -0.38)``; a dash where there is no number."""
    value, around = claim["value"], claim.get("interval")
    if value is None:
        return "–"
    # Shares are small numbers, margins are not.
    decimals = 4 if max(abs(v) for v in (value, *(around or ()))) < 0.1 else 2
    text = f"{value:+.{decimals}f}"
    return text if around is None else f"{text} ({around[0]:+.{decimals}f} … {around[1]:+.{decimals}f})"


def of_report(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every claim of a report, those of its training included."""
    return [*report.get("claims", ()), *(report.get("train") or {}).get("claims", ())]


def line(claim: Mapping[str, Any]) -> str:
    """One claim for a terminal."""
    verdict = said(claim)
    text = f"{MARKS[verdict]} {claim['text']}: {number(claim)}"
    return text if verdict == HOLDS else f"{text}: {verdict}"


def shown(claims: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The claims as a page's template wants them."""
    return [
        {"text": c["text"], "verdict": said(c), "number": number(c), "held_out": c.get("held_out", False)}
        for c in claims
    ]


def summary(claims: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How many claims hold, fail and are undecided, and then those that do not hold, a line each."""
    counts = {v: sum(said(c) == v for c in claims) for v in (HOLDS, FAILS, UNDECIDED)}
    yield (
        f"{len(claims)} claims: {counts[HOLDS]} hold, {counts[FAILS]} fail, {counts[UNDECIDED]} undecided "
        "(95 % intervals)"
    )
    for c in sorted(claims, key=said):
        if said(c) != HOLDS:
            yield line(c)


def failed(claims: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a claim fails."""
    return any(said(c) == FAILS for c in claims)
