"""`study/claim.toml`: the settings of both optimisers, the matrix of runs in its order, the thresholds."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from examples.study.setting import of_device

PATH = Path("study/claim.toml")
RESULTS = Path("study/results/claim")
WORK = Path("runs/study/claim")
ATTEMPTS = "attempts"
OPTIMISERS = ("distill", "reinforce", "grpo")


class Unavailable(RuntimeError):
    """A run that cannot be made yet: the queue leaves it out and says so."""


@dataclass(frozen=True)
class Distill:
    """How filtered distillation is done; completions are of each opening.

    Attributes:
        copies: sampled a round.
        keep: kept of all rounds so far.
        max_cosine: of a kept completion to every other kept one of its opening.
        base: of the base's own, taken as they came, that are tuned on beside those that are kept.
        batch: completions of all openings an update.
        gold: of the sampled, those that gold is measured on.
    """

    copies: int = 96
    keep: int = 16
    max_cosine: float = 0.7
    base: int = 0
    epochs: int = 3
    batch: int = 16
    learning_rate: float = 1e-3
    tokens: int = 40
    temperature: float = 0.8
    gold: int = 32


@dataclass(frozen=True)
class Gradient:
    """How the policy gradient is done.

    Attributes:
        groups, copies: openings a step, and completions of each.
        gold_every: steps between two evaluations.
        gold: fresh completions of each opening at an evaluation.
    """

    groups: int = 2
    copies: int = 8
    tokens: int = 40
    temperature: float = 0.8
    learning_rate: float = 1e-3
    max_norm: float = 1.0
    gold_every: int = 50
    checkpoint_every: int = 5
    gold: int = 32


@dataclass(frozen=True)
class Planned:
    """One run of the matrix, up to ``length`` rounds or steps.

    Attributes:
        minutes: an estimate, on one idle core.
        attempt: one of ``[attempts]``, whose settings it has; "" for a run of the matrix.
    """

    optimiser: str
    arm: str
    objective: str
    seed: int
    length: int
    minutes: float
    policy: str = "smollm2"
    attempt: str = ""

    @property
    def name(self) -> str:
        """Of its files: without the length, since a longer run goes on from a shorter one."""
        policy = "" if self.policy == "smollm2" else f"{self.policy}-"
        attempt = f"-{self.attempt}" if self.attempt else ""
        return f"{self.optimiser}-{policy}{self.arm}{attempt}-{self.objective}-{self.seed}"

    def results(self, device: str = "cpu", root: Path = RESULTS) -> Path:
        """The file of its lines."""
        return of_device(root / ATTEMPTS if self.attempt else root, device) / f"{self.name}.jsonl"


@dataclass(frozen=True)
class Attempt:
    """Other settings of distillation, tried after results were seen: no part of the claim.

    Attributes:
        title: what differs.
        distill: the settings that do.
    """

    title: str
    distill: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The whole of `study/claim.toml` that is not an arm."""

    distill: Distill
    gradient: Gradient
    thresholds: dict[str, Any]
    claims: dict[str, dict[str, Any]]
    matrix: tuple[Planned, ...]
    attempts: dict[str, Attempt] = field(default_factory=dict)

    def distillation(self, attempt: str = "") -> Distill:
        """Its settings.

        Raises:
            KeyError: no such attempt.
        """
        if not attempt:
            return self.distill
        if attempt not in self.attempts:
            raise KeyError(f"no attempt {attempt!r}, there are {list(self.attempts)}")
        return replace(self.distill, **self.attempts[attempt].distill)


def read(path: Path = PATH) -> Plan:
    """The committed plan, checked.

    Raises:
        ValueError: an unknown key, optimiser, or a run that stands twice.
    """
    data = tomllib.loads(path.read_text("utf-8"))
    matrix = tuple(run for block in data["matrix"] for run in _expanded(block, path))
    seen: set[tuple[str, int]] = set()
    for run in matrix:
        if (run.name, run.length) in seen:
            raise ValueError(f"{path}: {run.name} to {run.length} stands twice in the matrix")
        seen.add((run.name, run.length))
    return Plan(
        _settings(Distill, data["distill"], path),
        _settings(Gradient, data["gradient"], path),
        data["thresholds"],
        data["claims"],
        matrix,
        {name: _attempt(row, path) for name, row in data.get("attempts", {}).items()},
    )


def _attempt(row: Mapping[str, Any], path: Path) -> Attempt:
    _settings(Distill, row["distill"], path)
    return Attempt(row["title"], dict(row["distill"]))


def _settings(kind: type[Any], own: Mapping[str, Any], path: Path) -> Any:
    unknown = sorted(set(own) - {f.name for f in fields(kind)})
    if unknown:
        raise ValueError(f"{path}: unknown key {unknown[0]!r} of {kind.__name__.lower()}")
    return kind(**own)


def _expanded(block: Mapping[str, Any], path: Path) -> list[Planned]:
    unknown = sorted(set(block) - {"optimiser", "arms", "seeds", "objectives", "length", "minutes", "policy"})
    if unknown:
        raise ValueError(f"{path}: unknown key {unknown[0]!r} of a block of the matrix")
    if block["optimiser"] not in OPTIMISERS:
        raise ValueError(f"{path}: optimiser must be one of {OPTIMISERS}, got {block['optimiser']!r}")
    policy = block.get("policy", "smollm2")
    return [
        Planned(block["optimiser"], arm, objective, seed, block["length"], block["minutes"], policy)
        for seed in block["seeds"]
        for objective in block["objectives"]
        for arm in block["arms"]
    ]
