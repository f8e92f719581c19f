"""What is measured on texts before and after training, and the interval of each change.

A sample is a grid of texts: each row a round, with one text for each prompt. Every measure is a ratio of sums over the
grid, so that the mean of a text's number, a share of all words and a share of a round's bigrams are treated alike. The
bootstrap draws the rounds of each prompt again, before and after independently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sharpwave.probe.claims import interval
from sharpwave.probe.columns import Episodes, Floats

WORD = re.compile(r"[a-z]+(?:['’][a-z]+)?|\d+")
ANSWERS = frozenset({"yes", "yeah", "yep", "yup", "yea", "aye"})
SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
PARROT_LEAST = 0.5  # of a sentence's word trigrams that stand in one terminal

Grid = Sequence[Sequence[str]]  # rounds of texts, one for each prompt


@dataclass(frozen=True)
class Measure:
    """One measure: an id for JSON, a title, what it is, and how many decimals it is shown with."""

    id: str
    title: str
    about: str
    decimals: int = 3


MEASURES: tuple[Measure, ...] = (
    Measure("instrumental", "instrumental part R", "what the store, as it was before the run, pays a text", 4),
    Measure("cosine", "cosine", "mean cosine of a text's steps to the objective's terminals"),
    Measure("support", "support σ", "mean support of a text's steps: how much the store knows about them"),
    Measure("distinct_2", "distinct-2", "different bigrams of words over all bigrams of a round of texts"),
    Measure("yes_share", "“yes” share", "share of the words that are “yes” or mean no more than it", 4),
    Measure("parrot_share", "parroting share", "share of the sentences that copy half of a terminal's trigrams", 4),
    Measure("log_likelihood", "base log-likelihood", "nats a token that the base model gives the text"),
)


def words(text: str) -> list[str]:
    """Lower-case words and numbers."""
    return WORD.findall(text.lower())


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """The n-grams of words, in order."""
    found = words(text)
    return list(zip(*(found[k:] for k in range(n)), strict=False))


def distinct(texts: Sequence[str], n: int = 2) -> tuple[int, int]:
    """Different n-grams of all texts together, and how many there are."""
    grams = [g for text in texts for g in ngrams(text, n)]
    return len(set(grams)), len(grams)


def answers(text: str) -> tuple[int, int]:
    """Words that are "yes", and all words."""
    found = words(text)
    return sum(w in ANSWERS for w in found), len(found)


def parroted(text: str, terminals: Sequence[str]) -> tuple[int, int]:
    """Sentences of three words or more that are copied from a terminal, and all of them."""
    sources = [set(ngrams(t, 3)) for t in terminals]
    sentences = [g for s in SENTENCE.findall(text) if (g := ngrams(s, 3))]
    copied = sum(any(sum(g in s for g in grams) >= PARROT_LEAST * len(grams) for s in sources) for grams in sentences)
    return copied, len(sentences)


@dataclass(frozen=True)
class Ratio:
    """A measure of a grid: the sum of ``part`` over the sum of ``whole``, each ``(rounds, columns)``."""

    part: Floats
    whole: Floats

    @classmethod
    def mean(cls, values: Floats) -> Ratio:
        """The mean of one number a text."""
        return cls(values, np.ones_like(values))

    @classmethod
    def of(cls, pairs: Sequence[Sequence[tuple[float, float]]]) -> Ratio:
        """Rounds of (part, whole)."""
        both = np.asarray(pairs, np.float64)
        return cls(both[..., 0], both[..., 1])

    @property
    def value(self) -> float:
        """The ratio; 0 where there is nothing."""
        return float(self.part.sum() / max(self.whole.sum(), 1e-12))

    def resampled(self, rng: np.random.Generator, resamples: int) -> Floats:
        """``(resamples,)`` the ratio with the rounds of each column drawn again."""
        rounds, columns = self.part.shape
        drawn = rng.integers(rounds, size=(resamples, rounds, columns))
        place = np.arange(columns)
        part, whole = self.part[drawn, place].sum((1, 2)), self.whole[drawn, place].sum((1, 2))
        return part / np.maximum(whole, 1e-12)


@dataclass(frozen=True)
class Ruler:
    """What texts are measured with: nothing of it changes with training.

    Attributes:
        encode: prompts and texts to embedded episodes.
        view: the store before the run, frozen; ``weights (Q,)`` are the objective's.
        terminals, keys: the objective's sentences, and their embeddings ``(n, d)``.
        log_likelihood: prompts and texts to (nats, tokens) under the base model.
    """

    encode: Callable[[Sequence[str], Sequence[str]], Episodes]
    view: Any
    weights: NDArray[np.float32]
    terminals: Sequence[str]
    keys: NDArray[np.float32]
    log_likelihood: Callable[[Sequence[str], Sequence[str]], Sequence[tuple[float, float]]]

    def of_store(self, prompts: Sequence[str], texts: Sequence[str]) -> dict[str, Floats]:
        """``(E,)`` what the store and its terminals say about each text."""
        # A text without a word has no step to be embedded; a full stop is one that the store knows nothing about.
        episodes = self.encode(prompts, [t if t.split() else "." for t in texts])
        scores = self.view.score(episodes.steps, episodes.offsets, weights=self.weights, context=episodes.context)
        scored = episodes.is_scored
        owner = episodes.owner[scored]
        count = np.maximum(np.bincount(owner, minlength=len(episodes)), 1)
        near = (episodes.steps @ self.keys.T).mean(1)[scored]
        return {
            "instrumental": np.asarray(scores.total, np.float64),
            "cosine": np.bincount(owner, near, len(episodes)) / count,
            "support": np.bincount(owner, np.asarray(scores.support)[scored], len(episodes)) / count,
        }

    def measure(self, prompts: Sequence[str], grid: Grid) -> dict[str, Ratio]:
        """Every measure of a grid of texts, a column a prompt."""
        shape = (len(grid), len(prompts))
        flat = [t for row in grid for t in row]
        asked = list(prompts) * len(grid)
        out = {name: Ratio.mean(v.reshape(shape)) for name, v in self.of_store(asked, flat).items()}
        out["distinct_2"] = Ratio.of([[distinct(row)] for row in grid])
        out["yes_share"] = Ratio.of([[answers(t) for t in row] for row in grid])
        out["parrot_share"] = Ratio.of([[parroted(t, self.terminals) for t in row] for row in grid])
        nats = np.asarray(self.log_likelihood(asked, flat), np.float64).reshape(*shape, 2)
        out["log_likelihood"] = Ratio(nats[..., 0], nats[..., 1])
        return out


def change(before: Ratio, after: Ratio, resamples: int = 4000, seed: int = 0) -> dict[str, Any]:
    """Before, after, and the difference with its 95 % bootstrap interval; the same of after, and of after / before.

    ``distinguishable`` is false where the interval holds 0; ``kept`` is None where there was nothing before.
    """
    rng = np.random.default_rng(seed)
    first, second = before.resampled(rng, resamples), after.resampled(rng, resamples)
    low, high = (float(v) for v in np.quantile(second - first, [0.025, 0.975]))
    some = before.value > 0 and bool((first > 0).all())
    return {
        "before": before.value,
        "after": after.value,
        "after_interval": interval(second),
        "change": after.value - before.value,
        "interval": [low, high],
        "kept": after.value / before.value if some else None,
        "kept_interval": interval(second / first) if some else None,
        "distinguishable": bool(low > 0 or high < 0),
    }


def changes(before: Mapping[str, Ratio], after: Mapping[str, Ratio], seed: int = 0) -> dict[str, dict[str, Any]]:
    """`change` of every measure, by its id."""
    return {m.id: change(before[m.id], after[m.id], seed=seed) for m in MEASURES}
