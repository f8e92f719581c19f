"""Tuning: how finely a store should tell steps apart, for one's own episodes.

Two steps of a story that mean nearly the same may share a memory. Two observations of a game that read nearly the same
may differ in the one thing that decides what to do. No constant serves both, so `tune` builds stores on half of the
episodes, over a small grid of merge cosine, k, p and γ, and asks each store two things about the other half:

value      how well the value of a step predicts the discounted drive that was still reached after it
next step  where the true next step stands among all steps, ordered by agreement with the store's prediction μ

Value alone does not choose: a store that merged everything it saw in a room still knows which rooms are good. Whether a
store knows what comes next needs no labels, and tells such stores apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave.config import Config
from sharpwave.foresight import NOTHING, Measure, episode_of, next_step, prediction, still_reached, unit_rows
from sharpwave.granularity import Episodes, merge_cosine
from sharpwave.store import ValueStore

if TYPE_CHECKING:
    from sharpwave._coerce import Array

Floats = NDArray[np.float64]

GRID: dict[str, tuple[float, ...]] = {
    "merge_cosine": (0.9, 0.98, 0.9995),
    "k": (16, 1),
    "power": (2, 8),
    "gamma": (0.7, 0.5, 0.9),
}
"""The numbers of `Config` that `tune` chooses, and what it tries of each beside what the config comes with."""

MAX_STEPS = 6000

SAME = 1e-4
"""Mean ranks that differ by less are equal: rounding in the matrix products behind them depends on the processor."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of the grid: a store of half of the episodes, measured on the other half."""

    merge_cosine: float
    k: int
    power: int
    gamma: float
    memories: int
    """How many memories the half became."""
    value: float
    """How well value orders steps by the discounted drive that was still reached after them, from 0 to 1; 0.5 is
    chance. An AUC whose pairs weigh what they differ by; the mean over channels. NaN without channels, and where no
    drive varies."""
    value_error: float
    """Its standard error over episodes."""
    next_step: float
    """Mean rank of the true next step among all steps, from 0 (last) to 1 (first); 0.5 is chance."""
    next_step_error: float
    """Its standard error over episodes."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What `tune` chose, and between what. Printed, it is the table."""

    config: Config
    """For `ValueStore`: the chosen numbers, and τ and the redundancy range of the episodes."""
    table: tuple[Trial, ...]
    """Every trial, in the order of the grid."""
    chosen: int
    """The row of `table` that was chosen."""
    steps: int
    """How many steps a trial's store was built on."""
    different: int
    """How many of them differ."""

    def __str__(self) -> str:
        names = ("merge cosine", "k", "p", "γ", "memories", "value", "± se", "next step", "± se")
        rows = [[_shown(getattr(trial, field.name)) for field in fields(trial)] for trial in self.table]
        widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
        lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in (names, *rows)]
        lines[1 + self.chosen] += "  chosen"
        return "\n".join([f"each store: {self.steps} steps, {self.different} of them different", *lines])


def _shown(number: float) -> str:
    if isinstance(number, int):
        return str(number)
    return "–" if math.isnan(number) else f"{number:.4g}"


def tune(
    steps: Array,
    offsets: Array,
    *,
    drives: Array | Mapping[str, Array] | None = None,
    terminals: Mapping[str, Array] | None = None,
    config: Config | None = None,
    grid: Mapping[str, Sequence[float]] | None = None,
    max_steps: int = MAX_STEPS,
) -> Tuned:
    """Choose merge cosine, k, p and γ by what episodes show that a store has not seen.

    Of the trials whose `value` is no worse than the best by more than one standard error of the difference, the one
    that ranks the true next step highest; of equals the one of higher value, then the first in the grid. Without drives
    and terminals, or where no drive varies, the next step decides alone. The choice does not depend on the order of the
    episodes, on copies of them or on threads.

    >>> tuned = sw.tune(steps, offsets, drives={"score": scores})
    >>> print(tuned)
    >>> store = sw.ValueStore(tuned.config)

    Args:
        steps: (ΣT, d), the steps of all episodes.
        offsets: (E+1,), where the episodes begin in `steps`.
        drives: what scalar channels gave, as for `ValueStore.observe`.
        terminals: embedding channels, name to key (d,).
        config: the other numbers of the store. Its own merge cosine, k, p and γ are tried first, and its γ discounts
            the drives that are to be predicted.
        grid: what to try of "merge_cosine", "k", "power" and "gamma" instead; a name that is left out keeps the
            config's number.
        max_steps: how many steps are looked at; of more, whole episodes are left out evenly.

    Raises:
        ValueError: fewer than four different episodes of two steps or more; a number of the grid out of range.
    """
    dim = config.dim if config is not None else _width(steps)
    config = Config(dim=dim) if config is None else config
    rows = _coerce.rows("steps", steps, dim)
    ends = _coerce.offsets(offsets, len(rows))
    ValueStore(config).score(rows, ends)  # refuses a bad row or offset by its number
    names, table = _columns(drives, ends, len(rows))
    data = Episodes(rows, ends, table)
    keys = {name: _coerce.vector(f"terminals[{name!r}]", key, dim) for name, key in (terminals or {}).items()}
    learned, held, both = data.halves(_coerce.count("max_steps", max_steps))
    channels = _Channels.of(config, both, names, keys)
    fitted = channels.config
    points = _points(fitted, grid)
    trials = _measured(fitted, points, channels, learned, held)
    chosen = _choose(trials)
    return Tuned(
        replace(fitted, **points[chosen]),
        tuple(trials),
        chosen,
        len(learned.rows),
        len(np.unique(learned.rows, axis=0)),
    )


def _width(steps: Array) -> int:
    shape = np.shape(steps)
    if len(shape) != 2:
        raise ValueError(f"steps must have shape (n, d), got {shape}")
    return int(shape[1])


def _columns(
    drives: Array | Mapping[str, Array] | None, ends: NDArray[np.int64], total: int
) -> tuple[list[str], NDArray[np.float32]]:
    """Names and (ΣT, Qs) of the scalar channels."""
    if drives is None:
        return [], np.empty((total, 0), np.float32)
    if isinstance(drives, Mapping):
        names = [_coerce.string("drives", name) for name in drives]
    else:
        shape = np.shape(drives)
        names = [f"drive-{n}" for n in range(shape[1] if len(shape) > 1 else 1)]
    return names, _coerce.drives(drives, names, ends, total)


# Stores -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Channels:
    """What every trial's store begins with: numbers fitted to both halves, and channels with ranges of those."""

    config: Config
    scalars: list[str]
    terminals: dict[str, NDArray[np.float32]]
    ranges: dict[str, tuple[float, float]]

    @classmethod
    def of(
        cls, config: Config, data: Episodes, scalars: list[str], terminals: dict[str, NDArray[np.float32]]
    ) -> _Channels:
        store = ValueStore(config)
        store.calibrate(data.rows, data.offsets, check=False)
        fitted = store.config
        for name, key in terminals.items():
            store.add_terminal(name, key)
        return cls(fitted, scalars, terminals, store.channel_ranges)

    def store(self, config: Config) -> ValueStore:
        made = ValueStore(replace(config, keep_episodes=False))
        for name, key in self.terminals.items():
            made.add_terminal(name, key, *self.ranges[name])
        for name in self.scalars:
            made.add_channel(name)
        return made

    def drives(self, data: Episodes) -> Floats:
        """(ΣT, Q) what each step satisfies of each channel, in the order of the store's columns."""
        steps = unit_rows(data.rows)
        columns: list[Floats] = []
        for name, key in self.terminals.items():
            low, high = self.ranges[name]
            cosine = (steps @ unit_rows(key[None, :])[0]).astype(np.float64)
            columns.append(np.clip((cosine - low) / (high - low), 0.0, 1.0) ** 2)
        columns.extend(data.drives.astype(np.float64).T)
        return np.stack(columns, axis=1) if columns else np.empty((len(steps), 0))


# Trials -------------------------------------------------------------------------------------------


def _points(config: Config, grid: Mapping[str, Sequence[float]] | None) -> list[dict[str, Any]]:
    """The points of the grid, the config's own first, each checked."""
    own: dict[str, float] = {
        "merge_cosine": merge_cosine(config),
        "k": config.k,
        "power": config.power,
        "gamma": config.gamma,
    }
    unknown = sorted(set(grid or {}) - set(own))
    if unknown:
        raise ValueError(f"grid: no number {unknown[0]!r} to choose, there are {list(own)}")
    axes: dict[str, list[float]] = {}
    for name, number in own.items():
        given = [number, *GRID[name]] if grid is None else list(grid.get(name, [number]))
        if not given:
            raise ValueError(f"grid: nothing to try of {name!r}")
        axes[name] = list(dict.fromkeys(getattr(replace(config, **{name: tried}), name) for tried in given))
    return [dict(zip(axes, point, strict=True)) for point in product(*axes.values())]


def _measured(
    config: Config, points: list[dict[str, Any]], channels: _Channels, learned: Episodes, held: Episodes
) -> list[Trial]:
    """A trial for each point. Points that differ in γ alone share a store where γ changes nothing but values."""
    drives = channels.drives(held)
    reached = still_reached(drives, held.offsets, config.gamma, config.equation)
    episode = episode_of(held.offsets)
    shared = config.trace == 0.0 and config.w_surprise == 0.0 and config.capacity is None
    known: dict[tuple[Any, ...], _Built] = {}
    trials: list[Trial] = []
    for point in points:
        key = tuple(number for name, number in point.items() if not (shared and name == "gamma"))
        if key not in known:
            known[key] = _Built.of(channels.store(replace(config, **point)), learned, held)
        built = known[key]
        value = _value(built, point["gamma"], reached, episode)
        trials.append(
            Trial(
                **point,
                memories=built.memories,
                value=value.value,
                value_error=value.error,
                next_step=built.next_step.value,
                next_step_error=built.next_step.error,
            )
        )
    return trials


@dataclass(frozen=True)
class _Built:
    """A store of one half, and what it says of the other."""

    store: ValueStore
    memories: int
    next_step: Measure
    columns: NDArray[np.int64]
    phi: NDArray[np.float32]

    @classmethod
    def of(cls, store: ValueStore, learned: Episodes, held: Episodes) -> _Built:
        terminals = len(store)
        store.observe(learned.rows, learned.offsets, drives=learned.drives if learned.drives.shape[1] else None)
        scores = store.score(held.rows, held.offsets, functional="mean", details=True)
        assert scores.ids is not None
        assert scores.phi is not None
        columns = np.searchsorted(store.ids, np.maximum(scores.ids, 0))
        return cls(store, len(store) - terminals, next_step(store, held.rows, held.offsets), columns, scores.phi)


def _value(built: _Built, gamma: float, reached: Floats, episode: NDArray[np.int64]) -> Measure:
    """How well value predicts what was still reached: the mean over the channels where that varies.

    The standard error of the mean is at most the mean of the errors, which is taken: channels share their episodes.
    """
    if not reached.shape[1] or not len(built.store):
        return NOTHING
    values = solved(built.store, gamma)
    found: list[Measure] = []
    for q in range(reached.shape[1]):
        phi_value = np.einsum("nk,nk->n", built.phi.astype(np.float64), values[built.columns, q])
        measure = prediction(phi_value, reached[:, q], episode)
        if not math.isnan(measure.value):
            found.append(measure)
    if not found:
        return NOTHING
    return Measure(float(np.mean([m.value for m in found])), float(np.mean([m.error for m in found])))


def solved(store: ValueStore, gamma: float, tol: float = 1e-6) -> Floats:
    """(N, Q) the fixed point of the store's value equation at another γ, within `tol`, by value iteration."""
    source, target, weight = store.edges()
    rows, columns = np.searchsorted(store.ids, source), np.searchsorted(store.ids, target)
    drives = store.drives.astype(np.float64)
    stopping = store.config.equation == "stopping"
    values = drives
    while True:
        onward = np.stack([np.bincount(rows, weight * v[columns], len(drives)) for v in values.T], axis=1) * gamma
        better = np.maximum(drives, onward) if stopping else drives + onward
        moved = float(np.abs(better - values).max(initial=0.0))
        values = better
        if moved * gamma <= tol * (1.0 - gamma):
            return values


def _choose(trials: Sequence[Trial]) -> int:
    """The row of the rule that `tune` states."""
    known = [trial for trial in trials if not math.isnan(trial.value)]
    best = max(known, key=lambda trial: trial.value, default=None)
    good = [n for n, trial in enumerate(trials) if best is None or _no_worse(trial, best)]
    highest = max(trials[n].next_step for n in good)
    level = [n for n in good if trials[n].next_step >= highest - SAME]
    return max(level, key=lambda n: (-math.inf if best is None else trials[n].value, -n))


def _no_worse(trial: Trial, best: Trial) -> bool:
    """Whether the difference in value is within one standard error of it."""
    error = math.hypot(trial.value_error, best.value_error)
    return best.value - trial.value <= (0.0 if math.isnan(error) else error)
