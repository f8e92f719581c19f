"""Check a demo's report, for continuous integration.

``python -m examples.demo.check runs/demo/report.json [--strict]`` prints one line a check and exits 1 where one fails.
What is measured has a 95 % interval: a check fails where the whole interval misses the limit, and is undecided where
the limit lies inside. Undecided checks are counted in the last line and do not fail, so that chance fails nothing;
with ``--strict`` every claim of the report must hold.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from sharpwave.probe.claims import FAILS, HOLDS, UNDECIDED, number, said, verdict
from sharpwave.probe.columns import BASELINE, COLUMNS, DEFAULT
from sharpwave.probe.report import load
from sharpwave.probe.summary import AUC_AT_LEAST

Check = tuple[str, str]  # a sentence, and whether it holds, fails or is undecided
MARKS = {HOLDS: "ok  ", FAILS: "FAIL", UNDECIDED: "open"}


def checks(report: Mapping[str, Any], strict: bool = False) -> Iterator[Check]:
    """Each check as a sentence, and what it comes to."""
    for text, ok in _form(report):
        yield text, HOLDS if ok else FAILS
    for o in report["objectives"]:
        if o["held_out"]:
            continue
        stories = [r["range"][DEFAULT] for r in o["rows"] if r["kind"] == "story"]
        nonsense = [r["range"][DEFAULT] for r in o["rows"] if r["name"].startswith(("spam", "flattery", "source"))]
        yield f"{o['name']}: the stories lie above the base mean", verdict(_ends(stories, min), at_least=0.0)
        yield (
            f"{o['name']}: spam, flattery and code lie below the base mean",
            verdict(_ends(nonsense, max), at_most=0.0),
        )
        yield f"{o['name']}: plain cosine is exploited", verdict(o["margin_interval"][BASELINE], at_most=0.0)
        yield (
            f"{o['name']}: the default's margin is better than plain cosine's",
            verdict(o["gain_interval"], at_least=0.0),
        )
    tuned, around = report["auc"]["tuned"], report["auc"]["interval"]
    yield f"on/off AUC {tuned[DEFAULT]} is at least {AUC_AT_LEAST}", verdict(around["tuned"], at_least=AUC_AT_LEAST)
    yield f"and better than with v ≡ 1 ({tuned['ones']})", verdict(around["over ones"], at_least=0.0)
    if report.get("train"):
        yield from _training(report["train"], strict)
    if strict:
        for claim in report["claims"]:
            if not claim["held_out"]:
                yield _claim("", claim)


def _ends(ranges: list[list[float]], most: Any) -> list[float] | None:
    """From the ranges of several z-scores that of their least or largest."""
    return [most(low for low, _ in ranges), most(high for _, high in ranges)] if ranges else None


def _claim(of: str, claim: Mapping[str, Any]) -> Check:
    return f"{of}{claim['text']}: {number(claim)}", said(claim)


def _form(report: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    columns = {c["id"] for c in report["columns"]}
    yield "every column is there", columns == {c.id for c in COLUMNS}
    objectives = report["objectives"]
    yield (
        "four tuned objectives and one held out",
        sorted(o["held_out"] for o in objectives) == [False, False, False, False, True],
    )
    for o in objectives:
        kinds = [r["kind"] for r in o["rows"]]
        yield (
            f"{o['name']}: base, five stories, unrelated, exploits, splice",
            kinds.count("story") == 5
            and kinds.count("exploit") >= 12
            and {"base", "unrelated", "splice"} <= set(kinds),
        )
        yield (
            f"{o['name']}: every cell has a number",
            all(
                isinstance(r["z"].get(c), int | float) and math.isfinite(r["z"][c]) for r in o["rows"] for c in columns
            ),
        )
    yield (
        "the store has memories and associations",
        (report["store"]["memories"] > 0 and report["store"]["associations"] > 0),
    )
    yield "the value map has dots and edges", bool(report["map"]["x"] and report["map"]["edges"])


def _training(found: Mapping[str, Any], strict: bool) -> Iterator[Check]:
    around = all(c["interval"][0] <= c["change"] <= c["interval"][1] for c in found["measures"].values())
    yield "training: every measure has an interval around its change", HOLDS if around else FAILS
    whole = len(found["steps"]) == found["settings"]["steps"]
    yield "training: a line for every step", HOLDS if whole else FAILS
    for claim in found["claims"]:
        if strict or claim["id"] != "gain":
            yield _claim("training: ", claim)


def main(arguments: list[str] | None = None) -> int:
    """Print the checks of a report; 0 if none fails, 1 if one does, 2 if there is no report."""
    parser = argparse.ArgumentParser(prog="examples.demo.check", description=__doc__)
    parser.add_argument("report", help="report.json, or the directory that holds it")
    parser.add_argument("--strict", action="store_true", help="every claim must hold: an undecided one fails")
    options = parser.parse_args(arguments)
    try:
        report = load(options.report)
        results = list(checks(report, options.strict))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyError, TypeError) as error:
        print(f"error: {options.report} lacks {error}", file=sys.stderr)
        return 1
    for text, result in results:
        print(f"{MARKS[result]} {text}")
    counts = {v: sum(result == v for _, result in results) for v in MARKS}
    print(f"{len(results)} checks: {counts[HOLDS]} hold, {counts[FAILS]} fail, {counts[UNDECIDED]} undecided")
    return 1 if counts[FAILS] or (options.strict and counts[UNDECIDED]) else 0


if __name__ == "__main__":
    sys.exit(main())
