"""docs/study-samples.md: what the policies wrote at their ends, the same opening side by side."""

from __future__ import annotations

from collections.abc import Sequence

from examples.study.compare import After
from examples.study.tables import by_arm, table
from examples.study.verdict import Record

OPENINGS = ("Nobody in the town knew that", "When the train arrived at the station,")
"""The two that every run's last step continues."""
SEEDS = (0, 1, 2)


def samples(records: Sequence[Record], afters: Sequence[After]) -> str:
    """A table for each opening: a row an arm, a column a seed, in each the first completion of the run's last step."""
    parts = []
    for opening in OPENINGS:
        rows = _after_rows(afters, opening)
        for arm, runs in by_arm([r for r in records if r.finished]).items():
            rows.append([f"**{arm}**", *(_cell(_told(runs, seed), opening) for seed in SEEDS)])
        parts.append(f"## {opening} …\n\n" + table(["arm", *(f"seed {seed}" for seed in SEEDS)], rows))
    return "\n\n".join(parts)


def _told(runs: Sequence[Record], seed: int) -> list[str]:
    """All completions of the last step that ``seed``'s run has them of."""
    for r in runs:
        if r.seed == seed:
            return next(s["samples"] for s in reversed(r.steps) if "gold" in s)
    return []


def _after_rows(afters: Sequence[After], opening: str) -> list[list[str]]:
    """The base, and what the two remedies after a run make of the judge's."""
    runs = {a.header["seed"]: a for a in afters if a.header["arm"] == "judge"}
    rows = []
    for kind, title in (("base", "the base"), ("stopped", "judge, stopped early"), ("blended", "judge, blended")):
        told = {s: a.checkpoints[0] if kind == "base" else a.chosen[kind] for s, a in runs.items()}
        cells = [_cell(told[s]["samples"] if s in told else [], opening) for s in SEEDS]
        if any(c != "–" for c in cells):
            rows.append([f"**{title}**", *cells])
    return rows


def _cell(texts: Sequence[str], opening: str) -> str:
    """The first of ``texts`` that continues ``opening``, without it, as literal text of a Markdown table."""
    text = next((t for t in texts if t.startswith(opening)), None)
    if text is None:
        return "–"
    words = " ".join(text[len(opening) :].split())
    return "`… " + words.replace("`", "'").replace("|", "¦") + "`"
