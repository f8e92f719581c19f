"""Check a demo's report, for continuous integration.

``python -m sharpwave.demo.check runs/demo/report.json [--strict]`` prints one line a check and
exits 1 where one fails. The form of the report and the claims that hold for any healthy build are
always checked; ``--strict`` also wants every claim of the report to hold.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from sharpwave.demo.columns import BASELINE, COLUMNS, DEFAULT
from sharpwave.demo.report import load
from sharpwave.demo.summary import AUC_AT_LEAST

Check = tuple[str, bool]


def checks(report: Mapping[str, Any], strict: bool = False) -> Iterator[Check]:
    """Each check as a sentence, and whether it holds."""
    yield from _form(report)
    for o in report["objectives"]:
        if o["held_out"]:
            continue
        z = {r["name"]: r["z"] for r in o["rows"]}
        stories = [r["z"][DEFAULT] for r in o["rows"] if r["kind"] == "story"]
        nonsense = [v[DEFAULT] for n, v in z.items() if n.startswith(("spam", "flattery", "source"))]
        yield f"{o['name']}: the stories lie above the base mean", min(stories) > 0
        yield (
            f"{o['name']}: spam, flattery and code lie below the base mean",
            max(nonsense, default=-1.0) < 0,
        )
        yield f"{o['name']}: plain cosine is exploited", o["margin"][BASELINE] < 0
        yield (
            f"{o['name']}: the default's margin is better than plain cosine's",
            o["margin"][DEFAULT] > o["margin"][BASELINE],
        )
    tuned = report["auc"]["tuned"]
    yield f"on/off AUC {tuned[DEFAULT]} is at least {AUC_AT_LEAST}", tuned[DEFAULT] >= AUC_AT_LEAST
    yield f"and better than with v ≡ 1 ({tuned['ones']})", tuned[DEFAULT] > tuned["ones"]
    if report.get("train"):
        yield from _training(report["train"], strict)
    if strict:
        for claim in report["claims"]:
            if not claim["held_out"]:
                yield f"{claim['text']}: {claim['value']}", claim["ok"]


def _form(report: Mapping[str, Any]) -> Iterator[Check]:
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
    yield (
        "training: every measure has an interval around its change",
        all(c["interval"][0] <= c["change"] <= c["interval"][1] for c in found["measures"].values()),
    )
    yield "training: a line for every step", len(found["steps"]) == found["settings"]["steps"]
    for claim in found["claims"]:
        if strict or claim["id"] != "gain":
            yield f"training: {claim['text']}: {claim['value']:.4f}", claim["ok"]


def main(arguments: list[str] | None = None) -> int:
    """Print the checks of a report; 0 if all hold, 1 if one fails, 2 if there is no report."""
    parser = argparse.ArgumentParser(prog="sharpwave.demo.check", description=__doc__)
    parser.add_argument("report", help="report.json, or the directory that holds it")
    parser.add_argument("--strict", action="store_true", help="every claim must hold")
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
    for text, ok in results:
        print(f"{'ok  ' if ok else 'FAIL'} {text}")
    return 0 if all(ok for _, ok in results) else 1


if __name__ == "__main__":
    sys.exit(main())
