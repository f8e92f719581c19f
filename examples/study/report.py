"""``python -m examples.study.report``: every table and plot of docs/study.md, from study/results alone."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.study import gold
from examples.study.compare import (
    REMEDIES_HEAD,
    TURNS_HEAD,
    over_distance,
    read_after,
    remedies_table,
    turns_table,
)
from examples.study.run import HEADLINE, REMEDIES, plan
from examples.study.verdict import GOLD, Floats, Record, counted, interval, moving, read_all, verdict

DOCUMENT = Path("docs/study.md")
IMAGES = Path("docs/img")
KLS = (0.1, 0.2, 0.4, 0.8)
PANELS = (
    ("reward", "reward (z against base)"),
    ("kl", "KL from base, nats a token"),
    ("yes_share", "“yes”, share of the words"),
    ("distinct_2", "distinct-2 of 16 completions"),
    ("base_log_likelihood", "base log-likelihood, nats a token"),
    ("coverage", "coverage, as the frozen store sees it"),
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


def verdicts(records: Sequence[Record], settings: dict[str, Any]) -> str:
    """Which arms collapsed and which did not: finished runs only."""
    steps = settings["window"]["last_steps"]
    judges = {r.seed: r for r in records if r.arm == "judge" and r.finished}
    rows = []
    for arm, runs in by_arm([r for r in records if r.finished]).items():
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

        def mean(key: str, of: Sequence[dict[str, float]] = summaries) -> float:
            return float(np.mean([s[key] for s in of]))

        why = sorted({name for _, names in told for name in names})
        rows.append(
            [
                arm,
                str(len(runs)),
                counted([kind for kind, _ in told]),
                ", ".join(why) or "–",
                f"{mean('yes_share'):.1%}",
                f"{mean('distinct_2'):.2f}",
                f"{mean('base_log_likelihood'):+.2f}",
                f"{mean('parrot_share'):.1%} / {mean('list_share'):.1%}",
                f"{mean('kl'):.2f}",
                *(interval([s[f"gold_{m}"] for s in summaries]) for m in GOLD),
                " · ".join(as_good),
            ]
        )
    head = [
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
    ]
    return table(head, rows) if rows else "No run is finished yet."


def same_kl(records: Sequence[Record]) -> str:
    """Gold and variety of each arm when it is equally far from the base."""
    rows = []
    for arm, runs in by_arm(records).items():
        for kl in KLS:
            hits = [(r, step) for r in runs if (step := r.at_kl(kl)) is not None]
            if not hits:
                continue
            cells: list[list[float]] = [[] for _ in range(len(GOLD) + 2)]
            for r, step in hits:
                for n, measure in enumerate(GOLD):
                    at, z = r.gold(measure)
                    cells[n].append(float(np.interp(step, at, z)))
                cells[-2].append(float(moving(r.series("distinct_2"), 5)[step]) / r.header["base"]["distinct_2"])
                cells[-1].append(float(moving(r.series("yes_share"), 5)[step]) * 100)
            steps = "–".join(dict.fromkeys(str(f(s for _, s in hits)) for f in (min, max)))
            rows.append([arm, f"{kl:g}", f"{len(hits)}/{len(runs)}", steps, *(interval(c) for c in cells)])
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


def progress(records: Sequence[Record]) -> str:
    """What ran, what is under way, what was not run."""
    there = {(r.arm, r.seed): r for r in records}
    done = [f"{a} {s}" for a, s in plan() if (a, s) in there and there[a, s].finished]
    under_way = [f"{r.arm} {r.seed} ({len(r.steps)} of {r.planned} steps)" for r in records if not r.finished]
    missing = [f"{a} {s}" for a, s in plan() if (a, s) not in there]
    parts = (("Finished", done), ("Under way", under_way), ("Not run", missing))
    return "\n\n".join(f"{title} ({len(names)}): {', '.join(names) or 'none'}." for title, names in parts)


def samples(records: Sequence[Record], each: int = 3) -> str:
    """The last completions of each run, to read."""
    out = []
    for r in records:
        last = next((s for s in reversed(r.steps) if "gold" in s), r.steps[-1])
        stride = max(1, len(last["samples"]) // each)
        texts = [" ".join(t.split()) for t in last["samples"][::stride][:each]]
        out.append(
            f"* **{r.arm}**, seed {r.seed}, step {last['step']}:\n" + "\n".join(f"    * {_plain(t)}" for t in texts)
        )
    return "\n".join(out)


def _plain(text: str) -> str:
    """Model output as literal text of a Markdown page."""
    return "`" + text.replace("`", "'") + "`"


def curves(records: Sequence[Record], path: Path) -> None:
    """Proxy, gold and text measures over optimisation; a band is the range over seeds."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "sharpwave"
    import matplotlib.pyplot as plt

    arms = by_arm(records)
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def distances(records: Sequence[Record], path: Path) -> None:
    """Proxy and gold over the distance from the base, an arm a panel."""
    import matplotlib.pyplot as plt

    arms = by_arm(records)
    shown = [arm for arm in HEADLINE + REMEDIES if arm in arms]
    lines = -(-len(shown) // 4)
    figure, axes = plt.subplots(
        lines, 4, figsize=(13, 2.8 * lines), sharex=True, sharey=True, squeeze=False, constrained_layout=True
    )
    over_distance(arms, shown, list(axes.flat))
    for axis in list(axes.flat)[len(shown) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("√KL, nats a token", fontsize=8)
    axes[0, 0].legend(fontsize=6)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _band(axis: Any, series: list[Floats], colour: Any, label: str) -> None:
    length = min(len(s) for s in series)
    stacked = np.stack([s[:length] for s in series])
    axis.plot(stacked.mean(0), color=colour, lw=1, label=label)
    if len(series) > 1:
        axis.fill_between(range(length), stacked.min(0), stacked.max(0), color=colour, alpha=0.2, lw=0)


def fill(document: str, name: str, content: str) -> str:
    """``document`` with what stands between the markers of ``name`` replaced."""
    pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(document):
        raise ValueError(f"the document has no markers for {name!r}")
    return pattern.sub(lambda m: f"{m[1]}\n{content}\n\n{m[2]}", document)


def write(results: Path, document: Path, images: Path, settings: dict[str, Any]) -> None:
    """All of it."""
    records = read_all(results)
    text = document.read_text("utf-8")
    parts: dict[str, Callable[[], str]] = {
        "verdicts": lambda: verdicts(records, settings),
        "same-kl": lambda: same_kl(records),
        "progress": lambda: progress(records),
        "samples": lambda: samples(records),
        "turns": lambda: table(TURNS_HEAD, turns_table(by_arm(records))),
        "remedies": lambda: table(REMEDIES_HEAD, remedies_table(read_after(results / "after"), settings)),
    }
    for name, make in parts.items():
        text = fill(text, name, make())
    if records:
        curves(records, images / "study-curves.svg")
        distances(records, images / "study-distance.svg")
    document.write_text(text, "utf-8")


def main() -> None:
    """Write the document's tables and plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("study/results"))
    options = parser.parse_args()
    write(options.results, DOCUMENT, IMAGES, gold.read())


if __name__ == "__main__":
    main()
