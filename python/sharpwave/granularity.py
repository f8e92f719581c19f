"""How many memories different steps become, and what that loses of what follows them and of what they led to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave import _core
from sharpwave.config import Config
from sharpwave.foresight import NOTHING, Measure, next_step
from sharpwave.view import FrozenView

HARDLY_MERGED = 0.9995
"""The merge cosine of that store: copies merge, whatever else differs does not."""
FALLS_FAR = 0.05
"""How far the rank of the true next step must lie below that of a store that merges hardly anything to be a loss."""
MIXED_SHARE = 0.1
"""The share of memories with different outcomes, of those that could have them, that is worth a warning."""
ENOUGH = 4
"""Different episodes without which there are no two halves."""
CROWDED_SHARE = 0.2
"""The share of all different steps in one memory that is worth a warning."""
CROWDED_STEPS = 8
"""Different steps in one memory below which nothing is said."""
HELP = "sharpwave.tune chooses a config that tells them apart; merge_cosine near 1 merges less"


@dataclass(frozen=True)
class Episodes:
    """Steps (ΣT, d) and drives (ΣT, Qs) of E episodes."""

    rows: NDArray[np.float32]
    offsets: NDArray[np.int64]
    drives: NDArray[np.float32]

    def take(self, order: Sequence[int]) -> Episodes:
        """Some of the episodes, in this order."""
        spans = [np.arange(self.offsets[e], self.offsets[e + 1]) for e in order]
        steps = np.concatenate(spans) if spans else np.empty(0, np.int64)
        ends = np.concatenate([[0], np.cumsum([len(span) for span in spans])]).astype(np.int64)
        return Episodes(self.rows[steps], ends, self.drives[steps])

    def different(self) -> dict[bytes, int]:
        """The first of each different episode of two steps or more, by a hash of its content."""
        named: dict[bytes, int] = {}
        for e, (first, end) in enumerate(pairwise(self.offsets.tolist())):
            if end - first > 1:
                content = hashlib.sha256(self.rows[first:end].tobytes())
                content.update(self.drives[first:end].tobytes())
                named.setdefault(content.digest(), e)
        return named

    def halves(self, max_steps: int) -> tuple[Episodes, Episodes, Episodes]:
        """One half, the other, and both: different episodes in the order of a hash of their content, which neither
        copies nor another order of them changes, dealt out so that both halves have their share of each outcome."""
        named = self.different()
        if len(named) < ENOUGH:
            raise ValueError(f"four different episodes of two steps or more are needed, got {len(named)}")
        by_outcome = sorted(named, key=lambda name: (self._outcome(named[name]), name))
        total = int(sum(self.offsets[e + 1] - self.offsets[e] for e in named.values()))
        kept = max(4, len(by_outcome) * max_steps // total) if total > max_steps else len(by_outcome)
        dealt = [by_outcome[n * len(by_outcome) // kept] for n in range(kept)]
        first, second, both = sorted(dealt[0::2]), sorted(dealt[1::2]), sorted(dealt)
        return tuple(self.take([named[name] for name in half]) for half in (first, second, both))  # pyright: ignore[reportReturnType]

    def _outcome(self, episode: int) -> tuple[float, ...]:
        """The highest drive of each channel; -inf where nothing was observed."""
        drives = self.drives[self.offsets[episode] : self.offsets[episode + 1]]
        return tuple(np.where(np.isnan(drives), -np.inf, drives).max(axis=0).tolist())


def merge_cosine(config: Config) -> float:
    """The cosine above which a store of this config merges a step into the nearest memory."""
    if config.merge_cosine is not None:
        return config.merge_cosine
    return config.tau + (1.0 - config.tau) * (1.0 - config.min_novelty) ** (1.0 / config.power)


@dataclass(frozen=True, slots=True)
class Granularity:
    """How many memories different steps become, and whether that loses what follows them."""

    different: int
    """How many of the steps differ."""
    memories: int
    """How many memories they become."""
    next_step: Measure
    """Mean rank of the true next step on held-out episodes (`Trial.next_step`); NaN where there are too few."""
    unmerged: Measure
    """The same of a store that merges next to nothing."""

    @property
    def warning(self) -> str | None:
        """What is lost, if it is much and more than chance."""
        lost = self.unmerged.value - self.next_step.value
        if not lost > max(FALLS_FAR, 2 * math.hypot(self.unmerged.error, self.next_step.error)):
            return None
        return (
            f"{self.different} different steps become {self.memories} memories, too few to know what follows: the true "
            f"next step ranks at {self.next_step.value:.2f}, unmerged at {self.unmerged.value:.2f}. {HELP}"
        )


def granularity(
    config: Config, rows: NDArray[np.float32], offsets: NDArray[np.int64], max_steps: int = 1024
) -> Granularity:
    """How many memories steps become in a store of this config, and what that loses of their order.

    Args:
        config: with the τ of the steps (`ValueStore.calibrate` sets it).
        rows: (ΣT, d), the steps of all episodes.
        offsets: (E+1,), where the episodes begin.
        max_steps: how many steps are looked at; of more, whole episodes are left out evenly.
    """
    data = Episodes(rows, offsets, np.empty((len(rows), 0), np.float32))
    whole, ranks = data, (NOTHING, NOTHING)
    if len(data.different()) >= ENOUGH:
        learned, held, whole = data.halves(max_steps)
        finer = replace(config, merge_cosine=max(HARDLY_MERGED, merge_cosine(config)))
        ranks = tuple(next_step(_learned(numbers, learned), held.rows, held.offsets) for numbers in (config, finer))
    return Granularity(len(np.unique(whole.rows, axis=0)), len(_learned(config, whole)), *ranks)


def _learned(config: Config, data: Episodes) -> FrozenView:
    """A store of the episodes, without channels."""
    core = _core.Store(replace(config, keep_episodes=False).to_json())
    core.observe(data.rows, data.offsets, None, None, None, None, False)
    return FrozenView(core.frozen())


def mixed_warnings(
    steps: NDArray[np.float32], drives: NDArray[np.floating[Any]], memory_ids: NDArray[np.int64]
) -> list[str]:
    """A sentence if more than a tenth of the memories that could hold different steps of different outcome do."""
    mixed, compared = mixed_memories(steps, drives, memory_ids)
    if mixed <= MIXED_SHARE * compared:
        return []
    found = f"{mixed} of {compared} memories hold different steps whose observed drives differ by more than half of"
    return [f"{found} their range. {HELP}"]


def crowded_warnings(steps: NDArray[np.float32], memory_ids: NDArray[np.int64]) -> list[str]:
    """A sentence if one memory holds more than a fifth of all different steps (n, d)."""
    kept = memory_ids >= 0
    _, text = np.unique(steps[kept], axis=0, return_inverse=True)
    pairs = np.unique(np.stack([memory_ids[kept], text.ravel()]), axis=1)
    _, held = np.unique(pairs[0], return_counts=True)
    different, most = len(np.unique(pairs[1])), int(held.max(initial=0))
    if most < CROWDED_STEPS or most <= CROWDED_SHARE * different:
        return []
    return [f"one memory holds {most} of {different} different steps, so that all of them are worth the same. {HELP}"]


def mixed_memories(
    steps: NDArray[np.float32], drives: NDArray[np.floating[Any]], memory_ids: NDArray[np.int64]
) -> tuple[int, int]:
    """Memories that hold different steps with different observed drives, and those that could.

    Of a memory's steps, copies count as one, with the mean of their drives; drives are different if they lie further
    apart than half of what the channel's drives span.

    Args:
        steps: (n, d).
        drives: (n, Qs), NaN where nothing was observed.
        memory_ids: (n,) of `ObserveReport`, -1 for a step that was dropped.
    """
    mixed, compared = set[int](), set[int]()
    for column in np.asarray(drives, np.float64).T:
        known = ~np.isnan(column) & (memory_ids >= 0)
        if not known.any():
            continue
        _, text = np.unique(steps[known], axis=0, return_inverse=True)
        pairs, place = np.unique(np.stack([memory_ids[known], text.ravel()]), axis=1, return_inverse=True)
        mean = np.bincount(place.ravel(), column[known]) / np.bincount(place.ravel())
        far = np.ptp(mean) / 2
        for memory in np.unique(pairs[0]):
            of_memory = mean[pairs[0] == memory]
            if len(of_memory) > 1:
                compared.add(int(memory))
                if np.ptp(of_memory) > far:
                    mixed.add(int(memory))
    return len(mixed), len(compared)
