"""What a store says of texts that are still being written: the pay of their complete steps, and what lies ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave import EmbedderError, _coerce
from sharpwave._embedder import Embedder, as_embedder, fingerprint
from sharpwave._names import agree
from sharpwave.results import Explanation, Path
from sharpwave.text.chunkers import Chunker, Text
from sharpwave.view import FrozenView

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]

DEPTH, BEAMS = 8, 4
"""Of the recall that finds the way to value."""


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """The steps of a text that no further word can change, and those of its prompt.

    Attributes:
        steps: the texts, context first; without those that the embedder maps to zero.
        vectors: (n, d).
        context: how many of them are context.
    """

    steps: list[str]
    vectors: Rows
    context: int

    @property
    def newest(self) -> Rows | None:
        """(d,) the vector of the last step, of the prompt where nothing is complete; None without either."""
        return self.vectors[-1] if len(self.vectors) else None


class Payer:
    """A frozen view with the embedder and chunker that make its steps.

    Args:
        view: the store.
        embedder, chunker: as for the reward.
        weights: (Q,) or a dict by channel; None: 1/Q each.

    Attributes:
        seconds: processor time by part, "encoder" and "store".

    Raises:
        EmbedderError: the store was filled by another embedder.
    """

    def __init__(self, view: FrozenView, embedder: Any, chunker: Chunker, weights: Any = None) -> None:
        self.view, self.chunker = view, chunker
        self.embedder: Embedder = as_embedder(embedder)
        bound, name = view.embedder, fingerprint(embedder)
        if bound is not None and not agree(bound, name):
            raise EmbedderError(f"the store was filled by the embedder {bound}, and the guide has {name}")
        channels = view.channels
        if not channels:
            raise ValueError("the store has no channel, so that nothing in it has a value to guide by")
        equal = np.full(len(channels), 1.0 / len(channels))
        self.weights: Floats = equal if weights is None else _coerce.weights(weights, channels)
        self.is_terminal = dict(zip(view.ids.tolist(), view.is_terminal.tolist(), strict=True))
        advantage = np.maximum(view.values - view.baseline, 0.0)
        advantage[view.is_terminal] = 0.0
        self._ahead = view.ablated(values=advantage)
        weighed = advantage[~view.is_terminal].astype(np.float64) @ self.weights
        counts = np.maximum(view.counts[~view.is_terminal], 1)
        square = float(np.average(weighed**2, weights=counts)) if len(weighed) else 0.0
        self.unit = square**0.5 or 1.0
        scalar, ranges = set(view.scalar_channels), view.channel_ranges
        self._ends = [
            (column, view.terminal_key(name), *ranges[name])
            for column, name in enumerate(channels)
            if name not in scalar and self.weights[column] > 0
        ]
        self.seconds = {"encoder": 0.0, "store": 0.0}

    def complete(self, prompt: Text | None, text: str, done: bool) -> tuple[list[str], int]:
        """The steps of prompt and text that are complete, and how many are context.

        The last step of an unfinished text may still grow, so it is left out.
        """
        episode = self.chunker(prompt, text)
        own = len(episode.steps) - episode.context
        last = len(episode.steps) if done or not own else len(episode.steps) - 1
        return episode.steps[:last], episode.context

    def read(self, texts: Sequence[tuple[list[str], int]], known: dict[str, Rows]) -> list[Written]:
        """Steps as `complete` gives them, embedded in one call; `known` keeps the vectors."""
        began = process_time()
        new = list(dict.fromkeys(step for steps, _ in texts for step in steps if step not in known))
        if new:
            rows = np.asarray(self.embedder(new), np.float32)
            if rows.shape != (len(new), self.view.dim):
                raise ValueError(f"the embedder returned {rows.shape} for {len(new)} texts; dim is {self.view.dim}")
            known.update(zip(new, rows, strict=True))
        self.seconds["encoder"] += process_time() - began
        out: list[Written] = []
        for steps, context in texts:
            kept = [(n, step) for n, step in enumerate(steps) if known[step].any()]
            vectors = [known[step] for _, step in kept]
            out.append(
                Written(
                    [step for _, step in kept],
                    np.stack(vectors) if vectors else np.zeros((0, self.view.dim), np.float32),
                    sum(n < context for n, _ in kept),
                )
            )
        return out

    def pay(self, written: Sequence[Written]) -> tuple[Floats, Floats]:
        """(n,) coverage of the complete steps, and (n,) the value-to-go of the newest step."""
        began = process_time()
        offsets = np.cumsum([0, *(len(one.vectors) for one in written)])
        vectors = np.concatenate([one.vectors for one in written])
        pay, ahead = np.zeros(len(written)), np.zeros(len(written))
        if len(vectors):
            context = np.array([one.context for one in written], np.int64)
            scores = self.view.score(vectors, offsets, weights=self.weights, context=context)
            pay = scores.total.astype(np.float64)
            some = [n for n, one in enumerate(written) if len(one.vectors)]
            ahead[some] = self.ahead(np.stack([written[n].vectors[-1] for n in some]))
        self.seconds["store"] += process_time() - began
        return pay, ahead

    def ahead(self, vectors: Rows) -> Floats:
        """(n,) value-to-go: Σ_q w_q fade_q(x) Σ_i φ_i(x) a_iq over the memories that are not terminals."""
        phi = self._ahead.value(vectors)[0].astype(np.float64)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for column, key, low, high in self._ends:
            met = np.clip((unit @ key - low) / (high - low), 0.0, 1.0) ** 2
            phi[:, column] *= 1.0 - self.view.config.fade * met
        return phi @ self.weights

    def paths(self, vectors: Rows) -> list[Path | None]:
        """From each of (n, d) the best way to value that goes on to a memory that is no terminal; None without one."""
        began = process_time()
        out: list[Path | None] = []
        for found in self.view.recall_many(vectors, DEPTH, BEAMS, self.weights):
            on = (path for path in found if len(path.ids) > 1 and not self.is_terminal[int(path.ids[1])])
            out.append(next(on, None))
        self.seconds["store"] += process_time() - began
        return out

    def nearness(self, vectors: Rows, memories: Sequence[int]) -> Floats:
        """(n,) the cosine of each vector to the key of a memory."""
        keys = self.view.keys_of(np.array(memories, np.int64))
        cosine = np.einsum("nd,nd->n", vectors, keys) / np.linalg.norm(vectors, axis=1)
        return cosine.astype(np.float64)

    def explain(self, written: Written) -> list[Explanation]:
        """Of each step that is not context, the memories and associations that paid."""
        if len(written.vectors) == written.context:
            return []
        found = self.view.explain(written.vectors, weights=self.weights, context=written.context)
        return found[written.context :]
