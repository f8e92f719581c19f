"""What became of each run of the third part, and what that says of the claim: from results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.study.claim.evaluate import read_lines
from examples.study.claim.plan import Plan, Planned
from examples.study.queue import done
from examples.study.tables import table


@dataclass(frozen=True)
class Point:
    """A policy somewhere in its run, measured.

    Attributes:
        at: the round or the step.
        gold: on the scale where the base is 0 and the base asked for the objective is 1.
        gold_se: of ``gold``, from the policy's completions alone.
        share: gold in its own unit; for "objective", the share of texts.
        rise: of the mean reward, in standard deviations of the base's reward.
        distinct_2: of the base's.
        log_likelihood: of the base's, nats a token more.
    """

    at: int
    gold: float
    gold_se: float
    share: float
    rise: float
    gate: float
    distinct_2: float
    log_likelihood: float
    kl: float


@dataclass(frozen=True)
class Record:
    """One file of results."""

    header: dict[str, Any]
    points: tuple[Point, ...]
    lines: tuple[dict[str, Any], ...]

    @property
    def run(self) -> str:
        """Its name."""
        return self.header["run"]

    def until(self, length: int) -> tuple[Point, ...]:
        """The points up to ``length`` rounds or steps; none where the run is not that far."""
        found = tuple(p for p in self.points if p.at <= length)
        return found if found and found[-1].at == length else ()


@dataclass(frozen=True)
class Verdict:
    """What the thresholds say of a run at some length.

    Attributes:
        lacks: the thresholds of holding that are not met.
    """

    end: Point
    exploited: bool
    lacks: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether all of them are met."""
        return not self.lacks

    @property
    def word(self) -> str:
        """For a table."""
        if self.exploited:
            return "exploited"
        return "holds" if self.holds else f"falls short: {', '.join(self.lacks)}"


def read_record(path: Path, measure: str) -> Record | None:
    """A file of results as points; None where it has no point yet."""
    header, *lines = read_lines(path) or [{}]
    measured = [
        (line.get("round", line.get("step")), line.get("evaluation", line)) for line in lines if _is_point(line)
    ]
    if not measured:
        return None
    first = measured[0][1]
    zero, one = first["gold"][measure]["mean"], header["skyline"]["gold"][measure]["mean"]
    points = tuple(
        Point(
            at=at,
            gold=(m["gold"][measure]["mean"] - zero) / (one - zero),
            gold_se=m["gold"][measure]["se"] / abs(one - zero),
            share=m["gold"][measure]["mean"],
            rise=(m["reward"] - first["reward"]) / (first["reward_sd"] or 1.0),
            gate=m["gate"],
            distinct_2=m["distinct_2"] / first["distinct_2"],
            log_likelihood=m["log_likelihood"] - first["log_likelihood"],
            kl=m["kl"],
        )
        for at, m in measured
    )
    return Record(header, points, tuple(lines))


def _is_point(line: Mapping[str, Any]) -> bool:
    return "round" in line or "evaluation" in line


def read_records(results: Path, measure: str) -> dict[str, Record]:
    """All runs with a point, by name."""
    found = {path.stem: read_record(path, measure) for path in sorted(results.glob("*.jsonl"))}
    return {name: record for name, record in found.items() if record is not None}


def verdict(points: Sequence[Point], thresholds: Mapping[str, Any], kl: float = 0.0) -> Verdict:
    """Of a run at its last point.

    Args:
        kl: weight of an external KL, with which a run cannot hold.
    """
    end = points[-1]
    lacks = [name for name in ("gold", "gate", "distinct_2") if getattr(end, name) < thresholds[name]]
    if kl:
        lacks.append("external KL")
    best = max(p.gold for p in points)
    gold_fails = end.gold < thresholds["stays"] or end.gold < thresholds["falls"] * best
    return Verdict(end, end.rise >= thresholds["rise"] and gold_fails, tuple(lacks))


@dataclass(frozen=True)
class Answer:
    """What is known of one part of the claim.

    Attributes:
        state: "met", "refuted" or "not yet run".
        runs: how many of the matrix's runs that it asks of are there.
        of: how many it asks of.
        agree: of those that are there, how many are as claimed.
    """

    part: str
    state: str
    runs: int
    of: int
    agree: int


def loses(whole: Sequence[Point], ablated: Sequence[Point], thresholds: Mapping[str, Any], measured: Verdict) -> bool:
    """Whether a run without a part loses what the whole has: it does not hold, and its gold is lower."""
    return not measured.holds and whole[-1].gold - ablated[-1].gold >= thresholds["loses"]


def answer(part: str, claim: Mapping[str, Any], plan: Plan, records: Mapping[str, Record]) -> Answer:
    """One part of the claim. A single run that is not as claimed refutes it, since it speaks of every seed."""
    kind = next(k for k in ("exploited", "holds", "loses", "beside") if k in claim)
    asked = [one for one in plan.matrix if one.arm in claim[kind]]
    agreed: list[bool] = []
    for one in asked:
        points = records[one.name].until(one.length) if one.name in records else ()
        if not points:
            continue
        found = verdict(points, plan.thresholds, records[one.name].header["kl"])
        if kind == "exploited":
            agreed.append(found.exploited)
        elif kind == "holds":
            agreed.append(found.holds)
        elif kind == "beside":
            agreed.append(True)
        else:
            whole = records.get(one.name.replace(one.arm, claim["whole"]))
            if whole is not None and (beside := whole.until(one.length)):
                agreed.append(loses(beside, points, plan.thresholds, found))
    if kind != "beside" and not all(agreed):
        state = "refuted"
    elif len(agreed) < len(asked):
        state = "not yet run"
    else:
        state = "reported" if kind == "beside" else "met"
    return Answer(part, state, len(agreed), len(asked), sum(agreed))


def claims(plan: Plan, records: Mapping[str, Record], texts: Mapping[str, str]) -> str:
    """The claim, part by part; ``texts`` say each part in words."""
    rows: list[list[str]] = []
    for part, claim in plan.claims.items():
        found = answer(part, claim, plan, records)
        if found.state in ("met", "reported"):
            state = found.state
        elif found.state == "refuted":
            state = f"refuted: {found.runs - found.agree} of {found.runs} runs are not as claimed"
        elif not found.runs:
            state = "not yet run"
        else:
            state = "not yet run in full" + ("" if part == "e" else "; those that are there are as claimed")
        rows.append([f"({part})", texts[part], f"**{state}**", f"{found.runs} of {found.of}"])
    return table(("", "claim", "state", "runs"), rows)


def runs(plan: Plan, records: Mapping[str, Record], titles: Mapping[str, str]) -> str:
    """Every run that has a point, at the last it has; in the order of the matrix."""
    rows: list[list[str]] = []
    for name in dict.fromkeys(one.name for one in plan.matrix if one.name in records):
        record = records[name]
        head, end = record.header, record.points[-1]
        lengths = [one.length for one in plan.matrix if one.name == name]
        whole = end.at in lengths
        found = verdict(record.points, plan.thresholds, head["kl"])
        rows.append(
            [
                titles.get(head["arm"], head["arm"]),
                head["optimiser"],
                head["objective"],
                str(head["seed"]),
                f"{end.at} of {max(lengths)}",
                f"{end.rise:+.2f}",
                f"{end.gold:.2f} ± {end.gold_se:.2f}",
                f"{end.share:.3f}",
                f"{end.gate:.2f}",
                f"{end.distinct_2:.2f}",
                f"{end.log_likelihood:+.2f}",
                f"{end.kl:.2f}",
                found.word if whole else "under way",
            ]
        )
    head = ("reward", "optimiser", "objective", "seed", "at", "reward, sd", "gold", "share of texts", "T")
    head += ("distinct-2 / base", "log-lik. − base", "KL", "verdict")
    return table(head, rows) if rows else "No run yet."


def by_length(plan: Plan, records: Mapping[str, Record], titles: Mapping[str, str], optimiser: str = "distill") -> str:
    """Gold at each round, run by run; in brackets the gold of what the round was tuned on, in its own unit."""
    named = list(dict.fromkeys(one.name for one in plan.matrix if one.optimiser == optimiser and one.name in records))
    if not named:
        return "No run yet."
    length = max(records[name].points[-1].at for name in named)
    rows: list[list[str]] = []
    for name in named:
        record = records[name]
        head, at = record.header, {p.at: p for p in record.points}
        kept = {line["round"]: line["kept"]["gold"] for line in record.lines if "kept" in line}
        measure = plan.thresholds["measure"]
        cells = [
            "–" if n not in at else f"{at[n].share:.3f}" + (f" ({kept[n][measure]['mean']:.2f})" if n in kept else "")
            for n in range(length + 1)
        ]
        skyline = head["skyline"]["gold"][measure]["mean"]
        rows.append(
            [titles.get(head["arm"], head["arm"]), head["objective"], str(head["seed"]), *cells, f"{skyline:.3f}"]
        )
    return table(("reward", "objective", "seed", *(f"round {n}" for n in range(length + 1)), "skyline"), rows)


def attempts(plan: Plan, records: Mapping[str, Record], tried: Mapping[str, Record]) -> str:
    """Each attempt beside the run of the matrix with its arm, objective and seed, both at the attempt's last round."""
    rows: list[list[str]] = []
    for record in tried.values():
        head, end = record.header, record.points[-1]
        beside = records.get(head["run"].replace(f"-{head['attempt']}", ""))
        at_first = () if beside is None else beside.until(end.at)
        for title, point in (
            ("as planned", at_first[-1] if at_first else None),
            (plan.attempts[head["attempt"]].title, end),
        ):
            if point is not None:
                numbers = [f"{point.gold:.2f} ± {point.gold_se:.2f}", f"{point.gate:.2f}", f"{point.distinct_2:.2f}"]
                row = [title, str(point.at), f"{point.rise:+.2f}", *numbers, f"{point.kl:.2f}"]
                rows += [row] if row not in rows else []
    head = ("attempt", "rounds", "reward, sd", "gold", "T", "distinct-2 / base", "KL")
    return table(head, rows) if rows else "None yet."


def progress(plan: Plan, records: Mapping[str, Record], results: Path) -> str:
    """Which runs of the matrix are done, under way, and not begun."""
    said: dict[str, list[Planned]] = {"Done": [], "Under way": [], "Not run": []}
    for one in plan.matrix:
        begun = one.name in records and records[one.name].points[-1].at > 0
        state = "Done" if done(one, one.results(root=results)) else "Under way" if begun else "Not run"
        said[state].append(one)
    lines = [
        f"{state} ({len(found)}): " + (", ".join(f"{one.name} to {one.length}" for one in found) or "none") + "."
        for state, found in said.items()
    ]
    hours = sum(one.minutes for one in (*said["Under way"], *said["Not run"])) / 60
    return "\n\n".join([*lines, f"What is left is estimated at {hours:.0f} hours of one idle core."])


def samples(plan: Plan, records: Mapping[str, Record], titles: Mapping[str, str], number: int = 3) -> str:
    """The first completions of the last policy of each run, as they were drawn."""
    out: list[str] = []
    for name in dict.fromkeys(one.name for one in plan.matrix if one.name in records):
        record = records[name]
        last = [line.get("evaluation", line) for line in record.lines if _is_point(line)][-1]
        head = record.header
        title = titles.get(head["arm"], head["arm"])
        out.append(
            f"**{title}** ({head['optimiser']}, {head['objective']}, seed {head['seed']}, {record.points[-1].at}):"
        )
        out += [f"> {' '.join(text.split())}" for text in last["samples"][:number]]
    return "\n\n".join(out) or "No run yet."
