"""The tables of docs/study-first.md: what became of each arm, at its end and at equal distance from the base."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from examples.study.compare import After
from examples.study.run import HEADLINE, plan
from examples.study.verdict import GOLD, Record, counted, gold_intervals, interval, moving, verdict

KLS = (0.1, 0.2, 0.4, 0.8)
ABLATIONS_KL = 0.4
SIDE_KL = 0.2
SIDE_BY_SIDE = (
    ("none", "judge"),
    ("1. early stopping", "stopped"),
    ("2. blending", "blended"),
    ("3. divergence in embedding space", "judge-divergence"),
    ("token KL", "judge-kl"),
    ("4. the store", "instrumental"),
    ("4. with sharing", "instrumental-sharing"),
    ("3 and 4", "instrumental-divergence"),
    ("3 and 4, with sharing", "instrumental-sharing-divergence"),
    ("4 with sharing, token KL", "instrumental-sharing-kl"),
    ("all, and the judge", "instrumental-all"),
)


def by_arm(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Runs of each arm, in the order of the plan, then by name."""
    order = list(dict.fromkeys(arm for arm, _ in plan()))
    names = sorted({r.arm for r in records}, key=lambda a: (order.index(a) if a in order else len(order), a))
    return {a: [r for r in records if r.arm == a] for a in names}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def fill(document: str, name: str, content: str) -> str:
    """``document`` with what stands between the markers of ``name`` replaced."""
    pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(document):
        raise ValueError(f"the document has no markers for {name!r}")
    return pattern.sub(lambda m: f"{m[1]}\n{content}\n\n{m[2]}", document)


VERDICTS_HEAD = (
    "arm",
    "seeds",
    "verdict",
    "for",
    "“yes”",
    "distinct-2 / base",
    "log-likelihood − base",
    "parrot / list",
    "KL",
    "objective z",
    "mood z",
    "judge z",
    "≥ judge's best",
)


def verdicts(records: Sequence[Record], settings: Mapping[str, Any], arms: Iterable[str] | None = None) -> str:
    """Which of ``arms`` (None: of all) collapsed and which did not: finished runs only."""
    steps = settings["window"]["last_steps"]
    finished = [r for r in records if r.finished]
    judges = {r.seed: r for r in finished if r.arm == "judge"}
    chosen = None if arms is None else set(arms)
    rows = [
        [arm, *_verdict(runs, judges, settings, steps)]
        for arm, runs in by_arm(finished).items()
        if chosen is None or arm in chosen
    ]
    return table(VERDICTS_HEAD, rows) if rows else "No run is finished yet."


def _verdict(
    runs: Sequence[Record], judges: Mapping[int, Record], settings: Mapping[str, Any], steps: int
) -> list[str]:
    """The cells of one arm."""
    summaries = [r.summary(steps) for r in runs]
    told = [verdict(s, settings) for s in summaries]
    as_good = []
    for measure in GOLD:
        pairs = [
            (s[f"gold_{measure}"], judges[r.seed].best(measure))
            for r, s in zip(runs, summaries, strict=True)
            if r.seed in judges
        ]
        as_good.append(f"{sum(a >= b for a, b in pairs)}/{len(pairs)}" if pairs else "–")
    why = sorted({name for _, names in told for name in names})
    return [
        str(len(runs)),
        counted([kind for kind, _ in told]),
        ", ".join(why) or "–",
        f"{_mean(summaries, 'yes_share'):.1%}",
        f"{_mean(summaries, 'distinct_2'):.2f}",
        f"{_mean(summaries, 'base_log_likelihood'):+.2f}",
        f"{_mean(summaries, 'parrot_share'):.1%} / {_mean(summaries, 'list_share'):.1%}",
        f"{_mean(summaries, 'kl'):.2f}",
        *gold_intervals(summaries),
        " · ".join(as_good),
    ]


def _mean(summaries: Sequence[Mapping[str, float]], key: str) -> float:
    return float(np.mean([s[key] for s in summaries]))


def at_kl(runs: Sequence[Record], kl: float) -> tuple[list[int], list[list[float]]]:
    """The steps at which ``runs`` reach ``kl``, and for each measure its values there, a run that never does left out.

    The measures are the three of gold (z), distinct-2 as a share of the base's, and the share of "yes".
    """
    steps: list[int] = []
    values: list[list[float]] = [[] for _ in range(len(GOLD) + 2)]
    for r in runs:
        step = r.at_kl(kl)
        if step is None:
            continue
        steps.append(step)
        for n, measure in enumerate(GOLD):
            at, z = r.gold(measure)
            values[n].append(float(np.interp(step, at, z)))
        values[-2].append(float(moving(r.series("distinct_2"), 5)[step]) / r.header["base"]["distinct_2"])
        values[-1].append(float(moving(r.series("yes_share"), 5)[step]) * 100)
    return steps, values


def same_kl(records: Sequence[Record]) -> str:
    """Gold and variety of each arm when it is equally far from the base: at one distance, the headline arms at four."""
    rows = []
    for arm, runs in by_arm(records).items():
        for kl in KLS if arm in HEADLINE else KLS[2:3]:
            steps, values = at_kl(runs, kl)
            if steps:
                when = "–".join(dict.fromkeys(str(f(steps)) for f in (min, max)))
                rows.append([arm, f"{kl:g}", f"{len(steps)}/{len(runs)}", when, *(interval(v) for v in values)])
    head = [
        "arm",
        "KL",
        "seeds that reach it",
        "at step",
        "objective z",
        "mood z",
        "judge z",
        "distinct-2 / base",
        "“yes” %",
    ]
    return table(head, rows) if rows else "No run has gone that far."


def _gold_head(kl: float) -> list[str]:
    return [f"{m} z" for m in GOLD] + [f"{m} z at KL {kl:g}" for m in GOLD]


def _gold_cells(summaries: Sequence[Mapping[str, float]], there: Sequence[Sequence[float]]) -> list[str]:
    """Gold at the runs' ends, and where `at_kl` found them."""
    return [*gold_intervals(summaries), *(interval(v) for v in there[: len(GOLD)])]


def _end_cells(runs: Sequence[Record], settings: Mapping[str, Any]) -> list[str]:
    """Verdict, KL, variety and gold at the runs' ends, and gold at a KL of `ABLATIONS_KL`."""
    summaries = [r.summary(settings["window"]["last_steps"]) for r in runs]
    return [
        counted([verdict(s, settings)[0] for s in summaries]),
        f"{_mean(summaries, 'kl'):.2f}",
        f"{_mean(summaries, 'distinct_2'):.2f}",
        *_gold_cells(summaries, at_kl(runs, ABLATIONS_KL)[1]),
    ]


WHOLE = "instrumental"


def ablations(records: Sequence[Record], settings: Mapping[str, Any], arms: Sequence[str]) -> str:
    """What is left of the store's reward without each of its parts: at a run's end, and at a KL of .4.

    `WHOLE` stands above them twice, with all its seeds and with seed 0 alone, which most ablations have.
    """
    finished = by_arm([r for r in records if r.finished])
    whole = finished.get(WHOLE, [])
    rows = []
    for arm, runs in ((WHOLE, whole), (WHOLE, whole[:1]), *((arm, finished.get(arm, [])) for arm in arms)):
        if not runs:
            continue
        title = runs[0].header["config"]["title"].removeprefix("instrumental, ")
        rows.append([arm, title, ", ".join(str(r.seed) for r in runs), *_end_cells(runs, settings)])
    head = ["arm", "what it is", "seeds", "verdict", "KL", "distinct-2 / base"]
    return table(head + _gold_head(ABLATIONS_KL), rows) if rows else "No run is finished yet."


def replicated(records: Sequence[Record], again: Sequence[Record], settings: Mapping[str, Any]) -> str:
    """Arms that were run on a GPU, too: how each ends, and where it is at a KL of .4, on either machine."""
    rows = []
    here = by_arm([r for r in records if r.finished])
    for arm, there in by_arm([r for r in again if r.finished]).items():
        for machine, runs in (("CPU", here.get(arm, [])), ("GPU", there)):
            if not runs:
                continue
            rows.append([arm, machine, str(len(runs)), *_end_cells(runs, settings)])
    head = ["arm", "on", "seeds", "verdict", "KL", "distinct-2 / base"]
    return table(head + _gold_head(ABLATIONS_KL), rows) if rows else "No run is finished yet."


def side_by_side(records: Sequence[Record], afters: Sequence[After], settings: Mapping[str, Any]) -> str:
    """The remedies beside each other: at a run's end (matched steps), and at a KL of .2 where the arm goes that far."""
    finished = by_arm([r for r in records if r.finished])
    steps = settings["window"]["last_steps"]
    rows = []
    for remedy, arm in SIDE_BY_SIDE:
        if arm in ("stopped", "blended"):
            runs = [a for a in afters if a.header["arm"] == "judge"]
            summaries = [a.summary(a.chosen[arm]) for a in runs]
            there: list[list[float]] = [[] for _ in GOLD]
        else:
            runs = finished.get(arm, [])
            summaries = [r.summary(steps) for r in runs]
            _, there = at_kl(runs, SIDE_KL)
        if runs:
            rows.append(
                [
                    remedy,
                    arm if arm in finished else f"judge, {arm}",
                    str(len(runs)),
                    counted([verdict(s, settings)[0] for s in summaries]),
                    f"{_mean(summaries, 'kl'):.2f}",
                    f"{_mean(summaries, 'distinct_2'):.2f}",
                    f"{_mean(summaries, 'base_log_likelihood'):+.2f}",
                    *_gold_cells(summaries, there),
                ]
            )
    head = ["remedy", "arm", "seeds", "verdict", "KL", "distinct-2 / base", "log-likelihood − base"]
    return table(head + _gold_head(SIDE_KL), rows) if rows else "No run is finished yet."


def progress(records: Sequence[Record]) -> str:
    """What ran, what is under way, what was not run."""
    there = {(r.arm, r.seed): r for r in records}
    done = [f"{a} {s}" for a, s in plan() if (a, s) in there and there[a, s].finished]
    under_way = [f"{r.arm} {r.seed} ({len(r.steps)} of {r.planned} steps)" for r in records if not r.finished]
    missing = [f"{a} {s}" for a, s in plan() if (a, s) not in there]
    parts = (("Finished", done), ("Under way", under_way), ("Not run", missing))
    return "\n\n".join(f"{title} ({len(names)}): {', '.join(names) or 'none'}." for title, names in parts)
