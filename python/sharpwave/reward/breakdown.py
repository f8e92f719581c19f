"""What one completion earns, and which factor took how much: for a person to read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sharpwave.results import Explanation

GATES = ("z", "entropy", "distinct")
"""The parts of T."""


@dataclass(frozen=True)
class Breakdown:
    """The pay of one completion by its factors. What there is nothing to say of is left out.

    Attributes:
        text: its scored steps.
        reward: None where it cannot be scored.
        factors: by name, as `RewardOutput.factors`.
        parts: by name, what it adds to the reward, sign included; they sum to it.
        costs: by name, how much more the completion would earn if that factor alone were at its best: u = 1, T = 1
            without an excess, no crowd, no divergence. ``typicality_z``, ``_entropy`` and ``_distinct`` are of one
            part of T alone, the excess left out.
    """

    text: str
    reward: float | None
    factors: dict[str, float]
    parts: dict[str, float]
    costs: dict[str, float]

    @property
    def without(self) -> dict[str, float]:
        """By name, what the reward would be if that factor alone were at its best."""
        return {} if self.reward is None else {name: self.reward + cost for name, cost in self.costs.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, `without` included."""
        return {**asdict(self), "without": self.without}

    def __str__(self) -> str:
        """Three lines: the reward and the text, what the reward is made of, and what each factor took."""
        said = self.text if len(self.text) <= 90 else f"{self.text[:89]}…"
        if self.reward is None:
            return f"not scored  “{said}”"
        lines = f"{_short(self.reward)}  “{said}”", f"  made of  {self._made_of()}", f"  lost     {self._lost()}"
        return "\n".join(lines)

    def full(self) -> str:
        """The three lines with the whole text, and under them every factor, part and cost, a line each."""
        head, *rest = str(self).splitlines()
        tables = {"factor": self.factors, "adds": self.parts, "without": self.without}
        numbers = [f"    {kind:8} {n:22} {v:+.4f}" for kind, table in tables.items() for n, v in table.items()]
        return "\n".join([f"{head.partition('  ')[0]}  “{self.text}”", *rest, *numbers])

    def _made_of(self) -> str:
        f, p = self.factors, self.parts
        if "conjunction" in p:
            units = [f"{name[2:]} {_short(value)}" for name, value in f.items() if name.startswith("u_")]
            made = f"{' · '.join(units)} → {_short(p['conjunction'])}"
        else:
            made = " ".join(f"{name} {p[name]:+.2f}" for name in ("terminal", "instrumental") if p.get(name))
        if "typicality" in f:
            made += f"  × T {_short(f['typicality'])}{self._gates()}"
        if "crowd" in f:
            made += f"  ÷ crowd {f['crowd']:.2f}"
            if "alike" in f:
                made += f" (alike {_short(f['alike'])})"
        for name in ("excess", "divergence"):
            if abs(p.get(name, 0.0)) >= 0.005:
                made += f"  − {name} {_short(-p[name])}"
        return made or "nothing"

    def _gates(self) -> str:
        if "typicality_z" not in self.factors:
            return " (no reference pass)"
        said = [
            f"{name} {self.factors[f'typicality_{name}']:+.2f}: {_short(self.factors[f'typicality_gate_{name}'])}"
            for name in GATES
            if f"typicality_gate_{name}" in self.factors
        ]
        return f" ({', '.join(said)})"

    def _lost(self) -> str:
        whole = {n: c for n, c in self.costs.items() if not n.startswith("typicality_") and c >= 0.005}
        said: list[str] = []
        for name, cost in sorted(whole.items(), key=lambda one: -one[1]):
            how = "at its best" if f"u_{name}" in self.factors else "without it"
            worst = self._worst() if name == "typicality" else ""
            said.append(f"{name} {_short(cost)} ({_short(self.without[name])} {how}{worst})")
        return ", ".join(said) or "nothing"

    def _worst(self) -> str:
        """The part of T that takes most."""
        gates = {n: self.factors[f"typicality_gate_{n}"] for n in GATES if f"typicality_gate_{n}" in self.factors}
        return f"; by its {min(gates, key=lambda name: gates[name])}" if gates else ""


class ExplainedText(list[Explanation]):
    """Why one completion earned what it earned: a list of one `Explanation` a step.

    Attributes:
        pay: the reward by its factors.
    """

    def __init__(self, steps: Iterable[Explanation] = (), pay: Breakdown | None = None) -> None:
        super().__init__(steps)
        self.pay = pay

    def __str__(self) -> str:
        return "\n".join(str(one) for one in (self.pay, *self) if one is not None)


def known(values: Mapping[str, Any], row: int) -> dict[str, float]:
    """The finite ones of a row's numbers, by name."""
    found = {name: float(column[row]) for name, column in values.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _short(value: float) -> str:
    """Two decimals, without the zero before them."""
    said = f"{value:.2f}"
    return {"-0.00": "0", "0.00": "0", "1.00": "1"}.get(said, said.replace("0.", ".", 1) if abs(value) < 1 else said)
