"""Base samples: what the base policy says to the same prompts, as divergence is measured against them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sharpwave.divergence import Reference, estimate
from sharpwave.text.chunkers import Text, message_texts

Floats = NDArray[np.float64]
MIN_GROUP = 4


def prompt_key(prompt: Text | None) -> Hashable:
    """What makes two prompts the same: their texts."""
    return None if prompt is None else tuple(message_texts(prompt))


def groups(prompts: Sequence[Text | None]) -> dict[Hashable, NDArray[np.int64]]:
    """The rows of each prompt, in order."""
    rows: dict[Hashable, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt_key(prompt), []).append(row)
    return {key: np.array(members, np.int64) for key, members in rows.items()}


class BaseSamples:
    """Base samples (E, d) by prompt.

    A prompt with fewer than `MIN_GROUP` samples, or none, is compared with all of them.

    Args:
        prompts: E of them.
        vectors: (E, d), each episode as one vector (`Scorable.vectors`); rows of NaN are left out.
        bandwidth: of `divergence.mmd`; None: the median distance between the base samples of the group.

    Attributes:
        draw: prompts to prompts and vectors (E, d) of base samples, or None; see `sharpwave.remedies.draw_base`.
        each_step: draw for every batch anew what its prompts are compared with, not only for those that have none.
    """

    def __init__(
        self, prompts: Sequence[Text | None], vectors: NDArray[np.float32], bandwidth: float | None = None
    ) -> None:
        usable: NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1))
        if not usable.any():
            raise ValueError("base has no completion that can be scored")
        kept = [prompt for prompt, use in zip(prompts, usable, strict=True) if use]
        rows = vectors[usable]
        self.draw: Callable[[list[Text | None]], tuple[Sequence[Text | None], NDArray[np.float32]]] | None = None
        self.each_step = False
        self.bandwidth = bandwidth
        self.everything = Reference(rows, bandwidth)
        self.by_prompt = {
            key: Reference(rows[members], bandwidth)
            for key, members in groups(kept).items()
            if len(members) >= MIN_GROUP
        }

    def __len__(self) -> int:
        return len(self.everything)

    @property
    def _in_use(self) -> list[Reference]:
        return list(self.by_prompt.values()) or [self.everything]

    @property
    def alike(self) -> float:
        """The share of prompts whose base samples are all alike."""
        return float(np.mean([reference.alike for reference in self._in_use]))

    def add(self, prompts: Sequence[Text | None], vectors: NDArray[np.float32]) -> None:
        """Samples (E, d) of prompts that had none; what all others are compared with stays."""
        self.by_prompt.update(self._references(prompts, vectors))

    def divergence(self, name: str, prompts: Sequence[Text | None], vectors: NDArray[np.float32]) -> Floats:
        """(E,) divergence, one number a completion; a group's mean is its estimate.

        NaN for a completion without a vector, and where a group is too small for the estimator.
        """
        by_prompt = self._drawn(prompts)
        out = np.full(len(vectors), np.nan)
        usable: NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1))
        for key, members in groups(prompts).items():
            rows = members[usable[members]]
            if len(rows) >= (2 if name == "knn" else 1):
                out[rows] = estimate(name, vectors[rows], by_prompt.get(key, self.everything)).per_sample
        return out

    def _drawn(self, prompts: Sequence[Text | None]) -> Mapping[Hashable, Reference]:
        """What prompts are compared with, after base samples were drawn where that is wanted."""
        if self.draw is None:
            return self.by_prompt
        asked = {key: prompts[members[0]] for key, members in groups(prompts).items()}
        if self.each_step:
            return self._references(*self.draw(list(asked.values())))
        new = {key: prompt for key, prompt in asked.items() if key not in self.by_prompt}
        if new:
            self.add(*self.draw(list(new.values())))
            self.by_prompt.update({key: self.everything for key in new if key not in self.by_prompt})
        return self.by_prompt

    def _references(self, prompts: Sequence[Text | None], vectors: NDArray[np.float32]) -> dict[Hashable, Reference]:
        found: dict[Hashable, Reference] = {}
        for key, members in groups(prompts).items():
            rows = vectors[members]
            rows = rows[np.isfinite(rows).all(axis=1)]
            found[key] = Reference(rows, self.bandwidth) if len(rows) >= MIN_GROUP else self.everything
        return found

    def null(self, name: str) -> Floats:
        """What the estimator gives for base samples: each half of a group against the other half.

        Distances between samples that are all alike are rounding errors, and no scale: they count as 0.
        """
        values: list[Floats] = []
        for reference in self._in_use:
            if reference.alike and name in ("pairwise", "mahalanobis"):
                values.append(np.zeros(len(reference)))
                continue
            halves = reference.rows[0::2], reference.rows[1::2]
            if min(map(len, halves)) >= 2:
                for policy, base in (halves, halves[::-1]):
                    against = Reference(base, reference.bandwidth)
                    values.append(estimate(name, policy, against).per_sample)
        return np.concatenate(values) if values else np.empty(0)
