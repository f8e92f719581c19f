"""What one call of the reward found, every part by name."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sharpwave._advice import UNKNOWN
from sharpwave.results import Scores
from sharpwave.reward.breakdown import Breakdown, known
from sharpwave.text.chunkers import Batch, Span

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RewardOutput:
    """E completions, ΣT steps (prompts included). NaN: there was nothing to measure.

    Attributes:
        reward: (E,) w_term·terminal·g + w_inst·R − w_kl·D of the standardised terms, or the protected conjunction of
            them; NaN where a completion cannot be scored.
        terminal: (E,) as it was observed, before support discounts it.
        instrumental: (E,) R.
        divergence: (E,) D, one number a completion; the mean over a group is the group's estimate.
        support: (E,) σ̄, the mean support of the scored steps.
        step: (ΣT,) what each step paid of R; steps of the prompt paid 0.
        standardised: by term, (E,) in standard deviations of the base; ``"terminal"`` after its discount.
        parts: by name, (E,) what it adds to ``reward``, sign included: the terms with their weights, or the
            ``conjunction`` of two, and what ``typicality``, ``excess`` and ``crowd`` take away. They sum to ``reward``.
        seconds: what took how long: chunk, embed, score, terminal, divergence, learn, total.
        batch: the steps' texts, offsets, context and spans.
        scores: of the scorable episodes, as the store gave them; None if there was none.
        factors: by name, (E,) what a conjunction or a protection saw: ``u_terminal`` and ``u_instrumental`` in [0, 1];
            ``typicality`` T, and its ``typicality_z``, ``_entropy``, ``_distinct`` and ``_excess``, with what the parts
            make of T as ``typicality_gate_z``, ``_entropy`` and ``_distinct``; ``crowd``, 1 or more, of the mean cosine
            ``alike``; ``gated``, what T and crowd left of the pay. Those that there are.
        costs: by name, (E,) how much more the completion would earn if that factor alone were at its best; of
            ``typicality``, and of its parts apart as ``typicality_z``, ``_entropy`` and ``_distinct``.
    """

    reward: Floats
    terminal: Floats
    instrumental: Floats
    divergence: Floats
    support: Floats
    step: Floats
    standardised: dict[str, Floats]
    parts: dict[str, Floats]
    seconds: dict[str, float]
    batch: Batch = field(repr=False)
    scores: Scores | None = field(repr=False, default=None)
    factors: dict[str, Floats] = field(default_factory=dict[str, Floats])
    costs: dict[str, Floats] = field(default_factory=dict[str, Floats])

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """(E+1,) where each episode begins in `step`."""
        return self.batch.offsets

    @property
    def unknown(self) -> float:
        """The share of the scored completions whose support is below 0.1: the store can say little about them."""
        known = self.support[np.isfinite(self.support)]
        return float((known < UNKNOWN).mean()) if len(known) else 0.0

    @property
    def rewards(self) -> list[float | None]:
        """`reward` as trainers want it: None where a completion cannot be scored."""
        return as_list(self.reward)

    def breakdown(self, episode: int) -> Breakdown:
        """What one completion earned, and which factor took how much."""
        first, end = self.batch.offsets[episode] + self.batch.context[episode], self.batch.offsets[episode + 1]
        others = set(self.batch.others.tolist())
        text = " ".join(self.batch.steps[row] for row in range(first, end) if row not in others)
        tables = (known(values, episode) for values in (self.factors, self.parts, self.costs))
        return Breakdown(text, self.rewards[episode], *tables)

    def pays(self, episode: int) -> tuple[Floats, list[Span]]:
        """What each scored step of one completion paid, and where in its text the step lies."""
        first = int(self.batch.offsets[episode] + self.batch.context[episode])
        end = int(self.batch.offsets[episode + 1])
        return self.step[first:end], self.batch.spans[first:end]

    def timings(self) -> dict[str, float]:
        """`seconds`, named for a trainer's log."""
        return {f"seconds/{part}": value for part, value in self.seconds.items()}

    def means(self) -> dict[str, float]:
        """The mean of every part over the completions that have it, for a trainer's log."""
        found = {
            **self.standardised,
            "terminal_raw": self.terminal,
            "instrumental_raw": self.instrumental,
            "divergence_raw": self.divergence,
            "support": self.support,
            **self.factors,
            **{f"cost/{name}": values for name, values in self.costs.items()},
        }
        means = {name: float(np.nanmean(values)) for name, values in found.items() if np.isfinite(values).any()}
        if len(self):
            means["unscored"] = float(np.isnan(self.reward).mean())
            means["unknown"] = self.unknown
        if self.scores is not None and len(self.scores.step):
            means["edge"] = float(self.scores.edge.mean())
            means["redundancy"] = float(self.scores.redundancy.mean())
        return means


def as_list(values: NDArray[np.floating]) -> list[float | None]:
    """Python floats, None for what is not finite."""
    return [float(value) if np.isfinite(value) else None for value in values]
