"""The raw terms of a batch of completions, and what they were measured on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from sharpwave.results import Scores
from sharpwave.text.chunkers import Batch
from sharpwave.text.embedders import Embedder

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scorable:
    """The episodes of a batch that have a step to score, end to end.

    Attributes:
        steps: (ΣT', d) their vectors.
        kept: (E,) which episodes of the batch they are.
        rows: (ΣT',) which steps of the batch theirs are.
        offsets, context: as of a batch of their own.
        others: the rows of ``steps`` that are somebody else's turns after the leading context.
    """

    steps: NDArray[np.float32]
    kept: NDArray[np.bool_]
    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    context: NDArray[np.int64]
    others: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, batch: Batch, embedder: Embedder, dim: int) -> Scorable:
        """Embed a batch. An episode without a step of its own, or with a vector of zeros, cannot be scored.

        Raises:
            ValueError: the embedder's rows are not (ΣT, dim).
        """
        vectors = embedded(batch.steps, embedder, dim)
        counts = np.diff(batch.offsets)
        owner = np.repeat(np.arange(len(counts)), counts)
        kept = batch.scored > 0
        kept[owner[~(np.einsum("nd,nd->n", vectors, vectors) > 0)]] = False
        chosen = kept[owner]
        offsets = np.zeros(int(kept.sum()) + 1, np.int64)
        np.cumsum(counts[kept], out=offsets[1:])
        rows = np.flatnonzero(chosen)
        others = np.flatnonzero(np.isin(rows, batch.others))
        return cls(vectors[chosen], kept, rows, offsets, batch.context[kept], others)

    def own(self) -> Iterator[NDArray[np.int64]]:
        """The rows of each episode's scored steps."""
        others = np.zeros(len(self.steps), bool)
        others[self.others] = True
        for first, end, prompt in zip(self.offsets[:-1], self.offsets[1:], self.context, strict=True):
            rows = np.arange(first + prompt, end)
            yield rows[~others[rows]]

    def means(self, values: NDArray[np.float32]) -> Floats:
        """(E',) the mean over each episode's scored steps of one value a step."""
        return np.array([values[rows].mean() for rows in self.own()], np.float64)

    def vectors(self) -> NDArray[np.float32]:
        """(E, d): an episode as one vector, the mean direction of its scored steps; NaN where it cannot be scored."""
        out = np.full((len(self.kept), self.steps.shape[1]), np.nan, np.float32)
        length = np.sqrt(np.einsum("nd,nd->n", self.steps, self.steps))[:, None]
        unit = self.steps / np.where(length > 0, length, 1)
        for episode, rows in zip(np.flatnonzero(self.kept), self.own(), strict=True):
            mean = unit[rows].mean(axis=0)
            norm = float(np.linalg.norm(mean))
            out[episode] = mean / norm if norm > 0 else mean
        return out


@dataclass(frozen=True)
class Measured:
    """The terms of E completions in their own units, NaN where there was nothing to measure.

    Attributes:
        scorable: what was scored.
        terminal: (E,) as observed.
        raw: by term, (E,); the terminal after its discount.
        support: (E,) σ̄.
        step: (ΣT,) pay.
        scores: of the scorable episodes.
        seconds: by part.
    """

    scorable: Scorable
    terminal: Floats
    raw: dict[str, Floats]
    support: Floats
    step: NDArray[np.float32]
    scores: Scores | None
    seconds: dict[str, float]


@dataclass
class Clock:
    """Seconds by part, from one `lap` to the next."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])
    began: float = field(default_factory=perf_counter)
    last: float = field(default_factory=perf_counter)

    def lap(self, name: str) -> None:
        """What was done since the last lap is called ``name``."""
        now = perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now

    def finish(self) -> dict[str, float]:
        """All of it, with the total."""
        return {**self.seconds, "total": perf_counter() - self.began}


def embedded(texts: list[str], embedder: Embedder, dim: int) -> NDArray[np.float32]:
    """(n, dim) rows of ``texts``."""
    if not texts:
        return np.zeros((0, dim), np.float32)
    vectors = np.asarray(embedder(texts), np.float32)
    if vectors.shape != (len(texts), dim):
        raise ValueError(f"the embedder returned {vectors.shape} for {len(texts)} texts; the store has dim {dim}")
    return vectors
