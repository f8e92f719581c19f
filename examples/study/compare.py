"""The second half's tables: what the remedies after a run make of it, and where gold turns over. From files alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sharpwave.remedies.drift import LIMITS, LOW

from examples.study.verdict import Record, counted, gold_intervals, interval, judges, verdict

TITLES = {"end": "the run's end", "stopped": "1. stopped early", "blended": "2. blended"}


@dataclass(frozen=True)
class After:
    """What `after` measured of one run: the checkpoints by step, and the blends of the last with the base."""

    header: dict[str, Any]
    checkpoints: list[dict[str, Any]]
    blends: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> After:
        """A file of `after`."""
        header, *rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        whole = [r for r in rows if r["weight"] == 1.0]
        return cls(header, whole, sorted((r for r in rows if r["weight"] != 1.0), key=lambda r: r["weight"]))

    @property
    def chosen(self) -> dict[str, dict[str, Any]]:
        """The run's end and what each remedy makes of it, by the monitors of drift alone: no gold has a say.

        Early stopping goes back to the last checkpoint before the first that passes a limit. Blending takes the
        greatest weight that passes none, the base where all do.
        """
        end = self.checkpoints[-1]
        stopped = end
        for before, here in zip(self.checkpoints, self.checkpoints[1:], strict=False):
            if passed(here["drift"]):
                stopped = before
                break
        within = [b for b in (*self.blends, end) if not passed(b["drift"])]
        return {"end": end, "stopped": stopped, "blended": within[-1] if within else self.checkpoints[0]}

    def summary(self, point: Mapping[str, Any]) -> dict[str, float]:
        """A point as `Record.summary` has a run's window: what `verdict` reads."""
        base, gold = self.header["base"], self.header["base"]["gold"]
        out = {k: point[k] for k in ("proxy", "kl", "yes_share", "parrot_share", "list_share", "top_word_share")}
        for name in ("distinct_2", "distinct_2_within"):
            out[name] = point[name] / base[name]
        out["base_log_likelihood"] = point["base_log_likelihood"] - base["log_likelihood"]
        trained_on, other = judges(self.header)
        keys = {"objective": "objective", "mood": "mood", "judge": other, "proxy": trained_on}
        for name, key in keys.items():
            value = point["proxy"] if name == "proxy" else point[f"gold_{key}"]
            out[f"gold_{name}"] = (value - gold[key]["mean"]) / (gold[key]["sd"] or 1.0)
        return out


def passed(drift: Mapping[str, float]) -> list[str]:
    """The monitors that are past the limits of `sharpwave.remedies.EarlyStop`."""
    return [m for m, v in drift.items() if m in LIMITS and (v < LIMITS[m] if m in LOW else v > LIMITS[m])]


def remedies_table(afters: Sequence[After], settings: dict[str, Any]) -> list[list[str]]:
    """A row for each arm and remedy."""
    rows = []
    for arm in dict.fromkeys(a.header["arm"] for a in afters):
        runs = [a for a in afters if a.header["arm"] == arm]
        for kind, title in TITLES.items():
            found = [a.chosen[kind] for a in runs]
            summaries = [a.summary(p) for a, p in zip(runs, found, strict=True)]
            told = [verdict(s, settings)[0] for s in summaries]
            where = [
                f"step {p['step']}" if kind != "blended" else f"w = {_weight(a, p):g}"
                for a, p in zip(runs, found, strict=True)
            ]
            rows.append(
                [
                    arm,
                    title,
                    ", ".join(dict.fromkeys(where)),
                    counted(told),
                    f"{np.mean([s['kl'] for s in summaries]):.2f}",
                    interval([s["gold_proxy"] for s in summaries]),
                    *gold_intervals(summaries),
                    f"{np.mean([s['distinct_2'] for s in summaries]):.2f}",
                    f"{np.mean([s['base_log_likelihood'] for s in summaries]):+.2f}",
                ]
            )
    return rows


REMEDIES_HEAD = (
    "run",
    "remedy",
    "where",
    "verdict",
    "KL",
    "judge paid, z",
    "objective z",
    "mood z",
    "other judge z",
    "distinct-2 / base",
    "log-likelihood − base",
)


def _weight(after: After, point: Mapping[str, Any]) -> float:
    return 0.0 if point is after.checkpoints[0] else float(point["weight"])


TURNS_HEAD = ("arm", "seeds", "objective z at its best", "at KL", "at the end", "at KL", "lost")


def turns_table(by_arm: Mapping[str, Sequence[Record]]) -> list[list[str]]:
    """Where each arm's gold objective turns over: its best mean of two evaluations, and what is left at the end."""
    rows = []
    for arm, runs in by_arm.items():
        found = [t for r in runs if r.finished and (t := turn(r))]
        if found:
            best, at, end, last = (list(column) for column in zip(*found, strict=True))
            lost = [b - e for b, e in zip(best, end, strict=True)]
            kls = [f"{min(v):.2f} … {max(v):.2f}" if len(v) > 1 else f"{v[0]:.2f}" for v in (at, last)]
            rows.append([arm, str(len(found)), interval(best), kls[0], interval(end), kls[1], interval(lost)])
    return rows


def turn(record: Record) -> tuple[float, float, float, float] | None:
    """The best gold objective and its KL, the last one and its KL: means of two successive evaluations."""
    at, z = record.gold("objective")
    if len(z) < 2:
        return None
    pairs = (z[1:] + z[:-1]) / 2
    kl = record.series("kl")[at]
    mean_kl = (kl[1:] + kl[:-1]) / 2
    best = int(np.argmax(pairs))
    return float(pairs[best]), float(mean_kl[best]), float(pairs[-1]), float(mean_kl[-1])


def over_distance(arms: Mapping[str, Sequence[Record]], axes: Sequence[Any]) -> None:
    """Proxy and gold against the root of the KL, as Gao, Schulman & Hilton draw them: one axis an arm."""
    for axis, (arm, runs) in zip(axes, arms.items(), strict=False):
        for k, r in enumerate(runs):
            at, objective = r.gold("objective")
            _, judge = r.gold("judge")
            distance = np.sqrt(np.maximum(r.series("kl")[at], 0))
            reward = r.series("reward")[at]
            for values, colour, label in (
                (reward, "tab:red", "what is paid"),
                (objective, "tab:blue", "gold: objective"),
                (judge, "tab:green", "gold: other judge"),
            ):
                axis.plot(distance, values, color=colour, lw=1, alpha=0.8, label=label if k == 0 else None)
        axis.set_title(arm, fontsize=9)
        axis.axhline(0, color="grey", lw=0.5)


def read_after(directory: Path) -> list[After]:
    """Every run that was looked at afterwards and has its end and a blend."""
    found = [After.read(p) for p in sorted(directory.glob("*.jsonl"))]
    return [a for a in found if a.checkpoints and a.blends]
