"""Episodes as arrays: each different key embedded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.textworld.game import Episode

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


@lru_cache(maxsize=1)
def minilm(cache: Path) -> Embed:
    """MiniLM on one thread; what it embeds is kept in the file `cache`. Loaded once for the same file in a row."""
    import torch
    from sharpwave.embed import SentenceTransformer
    from sharpwave.text.packages import minilm_path, offline

    offline()
    torch.set_num_threads(1)
    cache.parent.mkdir(parents=True, exist_ok=True)
    embedder = SentenceTransformer(minilm_path(), device="cpu", cache=cache)
    return lambda texts: embedder(list(texts))


@dataclass(frozen=True)
class Data:
    """What all learners are given."""

    embed: Embed
    keys: list[str]
    """The different keys, in the order in which they were met."""
    row: dict[str, int]
    """Where a key stands among them."""
    vectors: NDArray[np.float32]
    """(U, d) their embeddings, of unit length."""
    ids: NDArray[np.int64]
    """(ΣT,) the key of each step, as a row of `vectors`."""
    states: list[str]
    """(ΣT,) the state of each step, the key without its command."""
    offsets: NDArray[np.int64]
    """(E+1,) where the episodes begin."""
    gains: NDArray[np.float32]
    """(ΣT,) what each step raised the score by."""
    won: NDArray[np.bool_]
    """(E,) which episodes were won."""

    @classmethod
    def of(cls, episodes: Sequence[Episode], embed: Embed) -> Data:
        steps = [step for episode in episodes for step in episode.steps]
        row: dict[str, int] = {}
        ids = np.array([row.setdefault(step.key, len(row)) for step in steps], np.int64)
        keys = list(row)
        return cls(
            embed,
            keys,
            row,
            np.ascontiguousarray(embed(keys), np.float32),
            ids,
            [step.state for step in steps],
            np.cumsum([0, *(len(episode.steps) for episode in episodes)]),
            np.array([step.gain for step in steps], np.float32),
            np.array([episode.won for episode in episodes], bool),
        )

    @property
    def steps(self) -> NDArray[np.float32]:
        """(ΣT, d) the embedding of each step."""
        return self.vectors[self.ids]

    def returns(self, gamma: float) -> NDArray[np.float64]:
        """(ΣT,) what was still gained from each step on, discounted."""
        found = self.gains.astype(np.float64)
        for begin, end in zip(self.offsets[:-1], self.offsets[1:], strict=True):
            for t in range(end - 2, begin - 1, -1):
                found[t] += gamma * found[t + 1]
        return found
