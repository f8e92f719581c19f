"""The rewards of the third part, as ``[arms]`` of `study/claim.toml` declares them.

An arm pays an *outcome* (a judge, the cosine to the terminals, a probe), a *process* (what a value store pays for the
way there), or both in conjunction. Bare, it is the term in standard deviations of the base. Protected, it is

    u = T · (u_outcome · u_process)^½ / crowd,    u_x = clip((x − lo_x)/(hi_x − lo_x), floor, 1)

with lo the .25 quantile of base completions and hi what demonstrations reach (their .75 quantile): the pay of
`sharpwave.InstrumentalReward(combine="conjunction", typicality=, crowd=, demonstrations=)`, whose own code it is. The
terms are measured here, since a store with its values knocked out is no store that a reward would take.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sharpwave.reward.protections import Protections
from sharpwave.reward.weights import Weights

from examples.study.claim.materials import Materials, Texts, World, means

Floats = NDArray[np.float64]
TABLE = Path("study/claim.toml")

OUTCOMES = ("judge", "trained judge", "cosine", "probe", "nearest demonstration")
ABLATIONS = ("", "ones", "permuted", "constant", "drives")


@dataclass(frozen=True)
class Spec:
    """One row of ``[arms]``.

    Attributes:
        title: as tables name it.
        outcome: one of `OUTCOMES`, or "".
        process: "store" or "".
        learned: whether demonstrations are in the store.
        told: whether a scalar channel tells the store which they are.
        ablation: what is knocked out of the store, one of `ABLATIONS`.
        protected: whether pay is saturated, gated by typicality and shared in a crowd.
        kl: weight of the token KL in a policy gradient, nats a token.
    """

    title: str
    outcome: str = ""
    process: str = ""
    learned: bool = True
    told: bool = False
    ablation: str = ""
    protected: bool = False
    kl: float = 0.0

    def __post_init__(self) -> None:
        if self.outcome not in ("", *OUTCOMES):
            raise ValueError(f"{self.title}: outcome must be one of {OUTCOMES} or '', got {self.outcome!r}")
        if self.process not in ("", "store"):
            raise ValueError(f"{self.title}: process must be 'store' or '', got {self.process!r}")
        if self.ablation not in ABLATIONS:
            raise ValueError(f"{self.title}: ablation must be one of {ABLATIONS}, got {self.ablation!r}")
        if not self.outcome and not self.process:
            raise ValueError(f"{self.title}: an arm needs an outcome or a process")
        if self.outcome and self.process and not self.protected:
            raise ValueError(f"{self.title}: outcome and process are paid in conjunction, which is protected")
        if self.ablation and not self.process:
            raise ValueError(f"{self.title}: only a store can have something knocked out")
        if not self.kl >= 0.0:
            raise ValueError(f"{self.title}: kl must be at least 0, got {self.kl}")


@dataclass(frozen=True)
class Paid:
    """What n completions earn.

    Attributes:
        reward: (n,).
        parts: by name, (n,): each term in its own unit, u of each, T, and the crowd.
    """

    reward: Floats
    parts: dict[str, Floats]


def specs(path: Path = TABLE) -> dict[str, Spec]:
    """The declared arms by name.

    Raises:
        ValueError: a key or a value that an arm cannot have.
    """
    declared: dict[str, dict[str, Any]] = tomllib.loads(path.read_text("utf-8"))["arms"]
    known = {f.name for f in fields(Spec)}
    for name, row in declared.items():
        unknown = sorted(set(row) - known)
        if unknown:
            raise ValueError(f"{path}: arms.{name}: unknown key {unknown[0]!r}")
    return {name: Spec(**row) for name, row in declared.items()}


@cache
def _declared() -> dict[str, Spec]:
    return specs()


def names() -> list[str]:
    """Of all arms, in the order of the table."""
    return list(_declared())


def build(name: str, objective: str, world: World, materials: Materials | None = None) -> Arm:
    """The arm ``name`` for an objective; ``materials`` that other arms of the objective were built of are used again.

    Raises:
        KeyError: no such arm.
    """
    if name not in _declared():
        raise KeyError(f"no arm {name!r}, there are {names()}")
    return Arm(_declared()[name], materials or Materials(objective, world))


class Arm:
    """A reward function of openings and completions.

    Attributes:
        kl: weight of the token KL in a policy gradient, nats a token.
    """

    def __init__(self, spec: Spec, materials: Materials) -> None:
        self.spec, self.materials, self.kl = spec, materials, spec.kl
        self.weights = Weights(terminal=float(bool(spec.outcome)), instrumental=float(bool(spec.process)))
        self.protections = Protections("conjunction" if spec.protected else "sum", crowd=spec.protected)
        base = self.measure(materials.reference)
        self.constants = {term: (float(v.mean()), float(v.std()) or 1.0) for term, v in base.items()}
        if spec.protected:
            shown = self.measure(materials.scale)
            for term, values in base.items():
                self.protections.fit(term, values, shown[term])
            self.protections.fit_crowd(
                *((t.openings, materials.vectors(t)) for t in (materials.scale, materials.reference))
            )

    def __call__(self, openings: list[str], completions: list[str], crowd: bool = True) -> Paid:
        """What the completions of one batch earn; without ``crowd`` each as if it were alone."""
        return self.of(Texts(openings, completions), crowd)

    def of(self, texts: Texts, crowd: bool = True) -> Paid:
        """The same of texts that other arms may have measured."""
        raw = self.measure(texts)
        report = self.materials.typical(texts) if self.spec.protected else None
        alike = None
        if self.spec.protected and crowd:
            alike = self.protections.crowding(texts.openings, self.materials.vectors(texts))
        return self.pay(raw, report, alike)

    def measure(self, texts: Texts) -> dict[str, Floats]:
        """By term, (n,) in its own unit."""
        spec, materials = self.spec, self.materials
        terms: dict[str, Floats] = {}
        if spec.outcome:
            terms["terminal"] = materials.once(spec.outcome, texts, lambda: outcome(spec.outcome, materials, texts))
        if spec.process:
            name = f"store {spec.learned} {spec.told} {spec.ablation}"
            terms["instrumental"] = materials.once(name, texts, lambda: coverage(spec, materials, texts))
        return terms

    def pay(self, raw: Mapping[str, Floats], report: Any = None, crowd: Any = None) -> Paid:
        """From the terms, the report of typicality and the crowd."""
        nothing = np.full(len(next(iter(raw.values()))), np.nan)
        every = {term: raw.get(term, nothing) for term in ("terminal", "instrumental", "divergence")}
        paid = self.protections.pay(every, self._standardise, self.weights, list(raw), report, crowd)
        return Paid(paid.reward, {**raw, **paid.factors})

    def _standardise(self, term: str, values: Floats) -> Floats:
        mean, sd = self.constants.get(term, (0.0, 1.0))
        return (values - mean) / sd


def outcome(kind: str, materials: Materials, texts: Texts) -> Floats:
    """(n,) an outcome in its own unit."""
    if kind == "judge":
        return materials.judge(texts)
    if kind == "trained judge":
        return materials.trained_judge(texts)
    if kind == "probe":
        steps = materials.episodes(texts)
        return means(steps, np.asarray(materials.probe.decision_function(steps.steps), np.float64))
    keys = materials.terminal_keys if kind == "cosine" else materials.whole(materials.learned.completions)
    return (materials.whole(texts.completions) @ keys.T).max(1).astype(np.float64)


def coverage(spec: Spec, materials: Materials, texts: Texts) -> Floats:
    """(n,) what the store pays for the way there."""
    steps = materials.episodes(texts)
    view = materials.view(spec.learned, spec.told, spec.ablation)
    weights = materials.channel_weights(materials.store(spec.learned, spec.told))
    scores = view.score(steps.steps, steps.offsets, context=steps.context, weights=weights)
    return np.asarray(scores.total, np.float64)
