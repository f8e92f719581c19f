"""Habituation across episodes: what was used lately pays less.

A table that the caller owns, so that scoring stays free of state. With u_i the uses of memory i in the last M recorded
episodes, its value counts h_i = 1/(1 + η·u_i) times; one episode uses a memory as much as it activates it at most.

What a *batch* uses at once is counted only afterwards, so that all samples of a step may still tell one story. With
sharing, an episode is scored as if the others of its batch had been told before it (`shared`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave.results import Scores


class Habituation:
    """Uses of memories over the last `episodes` episodes, for `score(..., habituation=table)`.

    >>> scores = view.score(steps, offsets, habituation=table, details=True)
    >>> table.record(scores)

    Args:
        episodes: M, how many are remembered.
        eta: η.
        sharing: whether a reward lets the samples of a batch share the value of a memory.
    """

    __slots__ = ("_recent", "eta", "sharing")

    def __init__(self, episodes: int = 64, eta: float = 1.0, sharing: bool = False) -> None:
        episodes = _coerce.whole("episodes", episodes)
        if episodes < 1:
            raise ValueError(f"episodes must be at least 1, got {episodes}")
        self.eta = _coerce.number("eta", eta)
        if not 0 <= self.eta < float("inf"):
            raise ValueError(f"eta must be finite and at least 0, got {self.eta}")
        self.sharing = bool(sharing)
        self._recent: deque[tuple[NDArray[np.int64], NDArray[np.float64]]] = deque(maxlen=episodes)

    def record(self, scores: Scores) -> None:
        """Add the episodes of a `score(..., details=True)`, oldest first; prompts are not recorded."""
        self._recent.extend(used_by_each(scores))

    def record_uses(self, uses: Iterable[tuple[NDArray[np.int64], NDArray[np.float64]]]) -> None:
        """Add episodes of which is known what they used, as `used_by_each` tells it."""
        self._recent.extend(uses)

    def beside(self, scores: Scores) -> list[Self]:
        """For each episode of a `score(..., details=True)`, the table as if the others of the batch had been recorded.

        Scored again with its own, an episode shares the value of a memory with those that use it at the same time, and
        a batch gains by telling different things: fitness sharing (Goldberg & Richardson 1987).
        """
        each = used_by_each(scores)
        tables = []
        for n in range(len(each)):
            table = type(self)(self.episodes + len(each), self.eta, self.sharing)
            table._recent.extend([*self._recent, *each[:n], *each[n + 1 :]])
            tables.append(table)
        return tables

    def uses(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The memories used, in ascending order of id, and how often: Σ over episodes of max_t φ_i."""
        if not self._recent:
            return np.empty(0, np.int64), np.empty(0)
        all_ids = np.concatenate([ids for ids, _ in self._recent])
        ids, where = np.unique(all_ids, return_inverse=True)
        total = np.zeros(len(ids))
        np.add.at(total, where, np.concatenate([amounts for _, amounts in self._recent]))
        return ids, total

    def clear(self) -> None:
        """Forget every recorded episode."""
        self._recent.clear()

    @property
    def episodes(self) -> int:
        """M, how many episodes are remembered at most."""
        assert self._recent.maxlen is not None
        return self._recent.maxlen

    def __len__(self) -> int:
        return len(self._recent)

    def to_dict(self) -> dict[str, Any]:
        """The table as plain numbers, ready for JSON."""
        recent = [[ids.tolist(), amounts.tolist()] for ids, amounts in self._recent]
        return {"episodes": self.episodes, "eta": self.eta, "sharing": self.sharing, "recent": recent}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        habituation = cls(table["episodes"], table["eta"], table.get("sharing", False))
        for ids, amounts in table["recent"]:
            habituation._recent.append((np.array(ids, np.int64), np.array(amounts, np.float64)))
        return habituation

    def __getstate__(self) -> dict[str, Any]:
        return self.to_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        restored = self.from_dict(state)
        self._recent, self.eta, self.sharing = restored._recent, restored.eta, restored.sharing

    def __repr__(self) -> str:
        sharing = ", sharing" if self.sharing else ""
        return f"Habituation(episodes={self.episodes}, eta={self.eta:g}{sharing}, recorded={len(self)})"


class Scorer(Protocol):
    """What scores episodes as a store does."""

    @property
    def score(self) -> Callable[..., Scores]:
        """`ValueStore.score`."""
        ...


def shared(view: Scorer, steps: NDArray[np.float32], scores: Scores, table: Habituation, **options: Any) -> Scores:
    """``scores`` of a batch, made with ``details=True``, with pay that the episodes of the batch share.

    ``options`` are those of `score` that made them. What each step's support, edge and redundancy are stays.
    """
    step, total = np.array(scores.step), np.array(scores.total)
    for n, one in enumerate(table.beside(scores)):
        rows = slice(int(scores.offsets[n]), int(scores.offsets[n + 1]))
        alone = view.score(steps[rows], context=int(scores.context[n]), habituation=one, **options)
        step[rows], total[n] = alone.step, alone.total[0]
    return replace(scores, step=step, total=total)


def used_by_each(scores: Scores) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """The memories that each episode of a `score(..., details=True)` used and how much, prompts left out."""
    if scores.ids is None or scores.phi is None:
        raise ValueError("scores lack the activations: call score with details=True")
    ids, phi, offsets = scores.ids, scores.phi, scores.offsets
    starts = np.minimum(offsets[:-1] + scores.context, offsets[1:])
    return [_uses(ids[a:b], phi[a:b]) for a, b in zip(starts, offsets[1:], strict=True)]


def _uses(ids: NDArray[np.int64], phi: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The memories that one episode activates, and how strongly at most."""
    active = (ids >= 0) & (phi > 0)
    distinct, where = np.unique(ids[active], return_inverse=True)
    strongest = np.zeros(len(distinct))
    np.maximum.at(strongest, where, phi[active])
    return distinct, strongest
