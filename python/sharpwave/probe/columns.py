"""The columns of the exploit table: ways to give an episode one number.

Each column is a function of a `Bench` (a frozen store and one objective's weights and terminals)
and embedded episodes; a new column is one more entry of `COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._embedder import unit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Episodes:
    """Embedded episodes: steps ``(ΣT, d)``, offsets ``(E+1,)``, context ``(E,)``."""

    steps: NDArray[np.float32]
    offsets: NDArray[np.int64]
    context: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, which: NDArray[np.int64]) -> Episodes:
        """The episodes with the numbers ``which``, in that order."""
        parts = [self.steps[self.offsets[e] : self.offsets[e + 1]] for e in which]
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
        steps = np.concatenate(parts) if parts else self.steps[:0]
        return Episodes(steps, offsets, self.context[which])

    def leading(self, dim: int) -> Episodes:
        """The same episodes with the first ``dim`` components of each step alone, at unit length."""
        return Episodes(unit(self.steps[:, :dim]), self.offsets, self.context)

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """``(ΣT,)`` the episode of each step."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @cached_property
    def is_scored(self) -> NDArray[np.bool_]:
        """``(ΣT,)`` whether a step is not context."""
        place = np.arange(len(self.steps)) - self.offsets[:-1][self.owner]
        return place >= self.context[self.owner]


@dataclass
class Bench:
    """A frozen store, the weights ``(Q,)`` of one objective, and its terminals ``(n, d)``.

    ``meaning`` is the same of a store whose steps are the encoder of meaning's part alone.
    """

    view: Any
    weights: NDArray[np.float32]
    terminals: NDArray[np.float32]
    seed: int = 0
    meaning: Bench | None = None
    _views: dict[str, Any] = field(default_factory=dict, repr=False)

    def score(self, episodes: Episodes, view: Any = None, functional: str = "coverage") -> Floats:
        """``(E,)`` totals of ``episodes`` under ``view``."""
        scores = (view or self.view).score(
            episodes.steps,
            episodes.offsets,
            weights=self.weights,
            functional=functional,
            context=episodes.context,
        )
        return np.asarray(scores.total, np.float64)

    def ablation(self, name: str) -> Any:
        """The view with one thing knocked out: ``unfaded``, ``ones``, ``permuted``, ``constant``, ``drives``."""
        if name not in self._views:
            self._views[name] = getattr(self, f"_{name}")()
        return self._views[name]

    def _ones(self) -> Any:
        """Every memory is worth 1 on every channel, and the ordinary memory nothing."""
        return self.view.ablated(values=np.ones_like(self.view.values), baseline=np.zeros_like(self.view.baseline))

    def _drives(self) -> Any:
        """Nothing was ever replayed: every memory is worth its own drive alone."""
        means = ~self.view.is_terminal
        drives = self.view.drives
        return self.view.ablated(values=drives, baseline=np.median(drives[means], axis=0))

    def _unfaded(self) -> Any:
        """Ends are paid as means to themselves."""
        return self.view.ablated(fade=0.0)

    def _permuted(self) -> Any:
        """Every memory has the value of another one, drawn at random; terminals keep theirs."""
        values = np.array(self.view.values)
        means = np.flatnonzero(~self.view.is_terminal)
        values[means] = values[np.random.default_rng(self.seed).permutation(means)]
        return self.view.ablated(values=values)

    def _constant(self) -> Any:
        """Every memory leads where the average step leads: values backed up again, and edges.

        The constant row is the mean of the rows, weighted by their mass, its largest successors:
        the same that ``ablated(constant_transitions=True)`` predicts with.
        """
        ids = self.view.ids
        source, target, weight = self.view.edges()
        mass = np.asarray(self.view.mass, np.float64)
        row = np.bincount(np.searchsorted(ids, target), weight * mass[np.searchsorted(ids, source)], len(ids)) / max(
            float(mass.sum()), 1e-12
        )
        row[np.argsort(-row, kind="stable")[self.view.config.max_out :]] = 0.0
        drive = self.view.drives.astype(np.float64)
        value = drive.copy()
        for _ in range(200):  # γ-contraction: .7^200 is far below float32
            value = np.maximum(drive, self.view.config.gamma * (row @ value))
        means = ~self.view.is_terminal
        return self.view.ablated(
            values=value.astype(np.float32),
            baseline=np.median(value[means], axis=0).astype(np.float32),
            constant_transitions=True,
        )


def cosine(bench: Bench, episodes: Episodes) -> Floats:
    """Mean over an episode's scored steps of the mean cosine of meaning to the terminals."""
    terminals = (bench.meaning or bench).terminals
    similarity = (episodes.leading(terminals.shape[1]).steps @ terminals.T).mean(axis=1)
    scored = episodes.is_scored
    owner = episodes.owner[scored]
    total = np.bincount(owner, similarity[scored], len(episodes))
    return total / np.maximum(np.bincount(owner, minlength=len(episodes)), 1)


def meaning_alone(bench: Bench, episodes: Episodes) -> Floats:
    """Coverage under a store whose steps are their meaning alone."""
    if bench.meaning is None:
        raise ValueError("there is no store of the meaning alone")
    return bench.meaning.score(episodes.leading(bench.meaning.terminals.shape[1]))


@dataclass(frozen=True)
class Column:
    """One column: an id for JSON, a title, one sentence about it, and what computes it."""

    id: str
    title: str
    about: str
    score: Callable[[Bench, Episodes], Floats]
    ablation: bool = False
    rebuilds: bool = False  # needs a store of its own


def _functional(name: str) -> Callable[[Bench, Episodes], Floats]:
    return lambda bench, episodes: bench.score(episodes, functional=name)


def _ablated(name: str) -> Callable[[Bench, Episodes], Floats]:
    return lambda bench, episodes: bench.score(episodes, bench.ablation(name))


DEFAULT = "coverage"
BASELINE = "cosine"

COLUMNS: tuple[Column, ...] = (
    Column(BASELINE, "cosine", "mean cosine of the steps to the terminals: no store at all", cosine),
    Column(
        DEFAULT,
        "coverage",
        "the default: each means pays once, gated, above the ordinary memory",
        _functional("coverage"),
    ),
    Column(
        "progress",
        "progress",
        "pays each rise of the best value reached so far",
        _functional("progress"),
    ),
    Column("mean", "mean", "mean value of the steps, no gate", _functional("mean")),
    Column(
        "potential",
        "potential",
        "summed over an episode a constant of its prompt: it carries no signal as one number",
        _functional("potential"),
    ),
    Column(
        "unfaded",
        "no fade",
        "coverage where a step that is an end itself is paid as a means to it all the same",
        _ablated("unfaded"),
        True,
    ),
    Column(
        "meaning",
        "no fluency",
        "coverage where a step is its meaning alone, whatever the language model makes of it",
        meaning_alone,
        True,
        True,
    ),
    Column("ones", "v ≡ 1", "coverage where every memory is worth the same", _ablated("ones"), True),
    Column(
        "permuted",
        "v permuted",
        "coverage where memories have one another's values",
        _ablated("permuted"),
        True,
    ),
    Column(
        "constant",
        "P constant",
        "coverage where every memory leads where the average one does",
        _ablated("constant"),
        True,
    ),
)
