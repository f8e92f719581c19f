"""What became of a run, by the thresholds of ``study/gold.toml``: from its file of results alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
GOLD = ("objective", "mood", "judge")


@dataclass(frozen=True)
class Record:
    """One run's file: its header and its steps."""

    header: dict[str, Any]
    steps: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Record:
        """A file of results; a torn last line is left out."""
        rows = []
        for line in path.read_text("utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return cls(rows[0], rows[1:])

    @property
    def arm(self) -> str:
        """Its arm's name."""
        return self.header["arm"]

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.header["seed"]

    @property
    def planned(self) -> int:
        """How many steps it is to have."""
        return self.header["config"]["train"]["steps"]

    @property
    def finished(self) -> bool:
        """Whether it has them."""
        return len(self.steps) >= self.planned

    def series(self, name: str) -> Floats:
        """(n,) a number of every step; NaN where it is missing."""
        return np.array([_number(s.get(name, s["measures"].get(name))) for s in self.steps])

    def gold(self, measure: str) -> tuple[NDArray[np.int64], Floats]:
        """Steps at which gold was measured, and the z-scores against the base's completions."""
        key = self.gold_key(measure)
        at = [s for s in self.steps if "gold" in s]
        base = self.header["base"]["gold"][key]
        values = np.array([_number(s["gold"][key]) for s in at])
        return np.array([s["step"] for s in at], np.int64), (values - base["mean"]) / (base["sd"] or 1.0)

    def gold_key(self, measure: str) -> str:
        """The gold judge is the format that the arm is not trained on."""
        return judges(self.header)[1] if measure == "judge" else measure

    def window(self, steps: int) -> Record:
        """Its last steps."""
        return Record(self.header, self.steps[-steps:])

    def summary(self, steps: int) -> dict[str, float]:
        """Means over the last ``steps``; distinct as shares of the base's, the log-likelihood less the base's."""
        last = self.window(steps)
        base = self.header["base"]
        out = {
            name: float(np.nanmean(last.series(name)))
            for name in (
                "reward",
                "kl",
                "yes_share",
                "parrot_share",
                "list_share",
                "top_word_share",
                "coverage",
                "cosine",
            )
        }
        for name in ("distinct_2", "distinct_2_within"):
            out[name] = float(np.nanmean(last.series(name))) / base[name]
        out["base_log_likelihood"] = float(np.nanmean(last.series("base_log_likelihood"))) - base["log_likelihood"]
        for measure in GOLD:
            _, z = last.gold(measure)
            out[f"gold_{measure}"] = float(z.mean()) if len(z) else float("nan")
        return out

    def best(self, measure: str) -> float:
        """The greatest mean of two successive gold evaluations."""
        _, z = self.gold(measure)
        return float(np.max((z[1:] + z[:-1]) / 2)) if len(z) > 1 else float("nan")

    def at_kl(self, kl: float, width: int = 5) -> int | None:
        """The first step at which the mean KL of ``width`` steps is ``kl``; None where it never is."""
        smooth = moving(self.series("kl"), width)
        reached = np.flatnonzero(smooth >= kl)
        return int(reached[0]) if len(reached) else None


def judges(header: Mapping[str, Any]) -> tuple[str, str]:
    """The measures of the judge's format that a run is trained on, and of the other, which is gold."""
    trained_on = header["config"]["options"].get("format", "dialogue")
    both = "judge_dialogue", "judge_fewshot"
    return both[::-1] if trained_on == "fewshot" else both


LEAST = ("distinct_2", "distinct_2_within", "base_log_likelihood")


def broken(summary: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
    """The names of the limits that a summary breaks."""
    return [k for k, v in limits.items() if (summary[k] < v if k in LEAST else summary[k] > v)]


def verdict(summary: Mapping[str, float], gold: Mapping[str, Any]) -> tuple[str, list[str]]:
    """ "collapsed", "degrades" or "resists", and what it is for."""
    if why := broken(summary, gold["collapse"]):
        return "collapsed", why
    if why := broken(summary, gold["resist"]):
        return "degrades", why
    return "resists", []


def counted(kinds: Sequence[str]) -> str:
    """How many runs collapsed, degrade and resist, in words."""
    return ", ".join(f"{kinds.count(k)} {k}" for k in ("collapsed", "degrades", "resists") if k in kinds)


def moving(values: Floats, width: int) -> Floats:
    """Means of the last ``width`` values, of fewer at the beginning."""
    return np.array([float(np.nanmean(values[max(0, n - width + 1) : n + 1])) for n in range(len(values))], np.float64)


def read_all(directory: Path) -> list[Record]:
    """Every run that has a step, by arm and seed."""
    records = [Record.read(p) for p in sorted(directory.glob("*.jsonl"))]
    return sorted((r for r in records if r.steps), key=lambda r: (r.arm, r.seed))


def interval(values: Sequence[float]) -> str:
    """Mean and range, and of how many."""
    v = np.array([x for x in values if np.isfinite(x)])
    if not len(v):
        return "–"
    return f"{v.mean():+.2f}" if len(v) == 1 else f"{v.mean():+.2f} ({v.min():+.2f} … {v.max():+.2f})"


def gold_intervals(summaries: Sequence[Mapping[str, float]]) -> list[str]:
    """Mean and range of each gold measure over runs."""
    return [interval([s[f"gold_{m}"] for s in summaries]) for m in GOLD]


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
