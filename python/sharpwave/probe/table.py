"""The exploit table: the probes under every column, as z-scores against held-out base stories.

For each split the base stories are divided: most of them build a store, the rest are the ruler.
A text's z is ``(score − mean) / sd`` of the ruler's stories; the table shows the median over the
splits. Each objective has a store of its own, so that a held-out one cannot leak into the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._embedder import unit
from sharpwave.evaluate import auc_between as auc
from sharpwave.probe.columns import COLUMNS, Bench, Column, Episodes, Floats
from sharpwave.probe.probes import Objective, Probe, ProbeSet

Embed = Callable[[Sequence[str], Sequence[str]], Episodes]  # prompts, texts → episodes
Build = Callable[[Episodes, NDArray[np.float32]], Any]  # base episodes, terminals → frozen store


@dataclass(frozen=True)
class TableSettings:
    """How the table is made.

    ``held_out_share`` of the base stories are the ruler; ``splices`` random splices a split, each
    of ``splice_steps`` of the most valuable stored steps of different episodes.
    """

    splits: int = 7
    held_out_share: float = 0.15
    splices: int = 8
    splice_steps: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Split:
    """One division of the base stories: episode numbers for the store and for the ruler."""

    number: int
    build: NDArray[np.int64]
    ruler: NDArray[np.int64]


def splits(episodes: int, settings: TableSettings) -> list[Split]:
    """The divisions, the same for every objective."""
    held_out = max(2, round(settings.held_out_share * episodes))
    out = []
    for number in range(settings.splits):
        order = np.random.default_rng((settings.seed, number)).permutation(episodes)
        out.append(Split(number, np.sort(order[held_out:]), np.sort(order[:held_out])))
    return out


@dataclass(frozen=True)
class Ruler:
    """Mean and standard deviation of the held-out base stories under one column of one split."""

    mean: float
    sd: float

    @classmethod
    def of(cls, scores: Floats) -> Ruler:
        return cls(float(scores.mean()), float(scores.std(ddof=1)))

    def z(self, scores: Floats) -> Floats:
        """z-scores; 0 where the ruler has no spread and the score is at its mean."""
        if self.sd > 1e-12:
            return (scores - self.mean) / self.sd
        return np.where(np.abs(scores - self.mean) < 1e-9, 0.0, np.nan)


@dataclass
class Measured:
    """z-scores of one objective, ``(splits, rows)`` by column.

    ``rows`` holds the objective's probes, then every other objective's stories (`foreign`).
    """

    objective: Objective
    probes: list[Probe]
    foreign: list[tuple[str, Probe]]
    z: dict[str, Floats]
    splice_z: dict[str, Floats]  # (splits, splices)
    ruler_z: dict[str, list[Floats]]
    succession: list[dict[str, float]]


def measure(
    objective: Objective,
    probes: ProbeSet,
    base: Episodes,
    embed: Embed,
    build: Build,
    terminals: NDArray[np.float32],
    settings: TableSettings,
    columns: Sequence[Column] = COLUMNS,
    progress: Callable[[], None] = lambda: None,
    meaning: int | None = None,
) -> Measured:
    """All z-scores of one objective.

    ``progress`` is called after each split; the first ``meaning`` components of a step are its meaning.
    """
    own = list(probes.rows(objective))
    foreign = [(o.name, p) for o in probes.objectives if o is not objective for p in o.stories]
    texts = [p.text for p in own] + [p.text for _, p in foreign]
    episodes = embed([probes.prompt] * len(texts), texts)
    z: dict[str, list[Floats]] = {c.id: [] for c in columns}
    splice_z: dict[str, list[Floats]] = {c.id: [] for c in columns}
    ruler_z: dict[str, list[Floats]] = {c.id: [] for c in columns}
    succession = []
    for split in splits(len(base), settings):
        stored, held_out = base.take(split.build), base.take(split.ruler)
        view = build(stored, terminals)
        weights = np.full(len(terminals), 1.0 / len(terminals), np.float32)
        bench = Bench(view, weights, terminals, seed=split.number)
        if meaning is not None:
            keys = unit(terminals[:, :meaning])
            bench.meaning = Bench(build(stored.leading(meaning), keys), weights, keys, seed=split.number)
        spliced = splices(bench, stored, episodes, settings, split.number)
        for column in columns:
            ruler_scores = column.score(bench, held_out)
            ruler = Ruler.of(ruler_scores)
            ruler_z[column.id].append(ruler.z(ruler_scores))
            z[column.id].append(ruler.z(column.score(bench, episodes)))
            splice_z[column.id].append(ruler.z(column.score(bench, spliced)))
        succession.append(succession_auc(view, held_out, split.number))
        progress()
    return Measured(
        objective,
        own,
        foreign,
        {k: np.array(v) for k, v in z.items()},
        {k: np.array(v) for k, v in splice_z.items()},
        ruler_z,
        succession,
    )


def splices(bench: Bench, stored: Episodes, probes: Episodes, settings: TableSettings, seed: int) -> Episodes:
    """Episodes that string together valuable steps of different stored ones, after the prompt.

    Of each stored episode the step of the largest Φ is a candidate; the splices draw, without
    order, from the five times ``splice_steps`` most valuable candidates.
    """
    phi, _ = bench.view.value(stored.steps)
    value = np.where(stored.is_scored, phi @ bench.weights, -np.inf)
    best = [
        int(stored.offsets[e] + np.argmax(value[stored.offsets[e] : stored.offsets[e + 1]]))
        for e in range(len(stored))
        if stored.offsets[e] < stored.offsets[e + 1]
    ]
    best.sort(key=lambda step: (-value[step], step))
    pool = np.array(best[: 5 * settings.splice_steps])
    rng = np.random.default_rng((settings.seed, seed, 1))
    prompt = probes.steps[: probes.context[0]]
    size = min(settings.splice_steps, len(pool))
    parts = []
    for _ in range(settings.splices):
        parts += [prompt, stored.steps[rng.choice(pool, size, replace=False)]]
    length = len(prompt) + size
    return Episodes(
        np.concatenate(parts),
        np.arange(settings.splices + 1, dtype=np.int64) * length,
        np.full(settings.splices, len(prompt), np.int64),
    )


def succession_auc(view: Any, episodes: Episodes, seed: int) -> dict[str, float]:
    """How well true successions are told from shuffled ones: by edge support, and by cosine.

    Each true pair is a step of an unseen episode and its successor; the shuffled pairs have the
    same steps, the successors permuted between episodes.
    """
    follows = np.flatnonzero((episodes.owner[1:] == episodes.owner[:-1]) & episodes.is_scored[:-1])
    before, after = episodes.steps[follows], episodes.steps[follows + 1]
    order = np.random.default_rng((7, seed)).permutation(len(follows))
    other = episodes.owner[follows][order] != episodes.owner[follows]

    def edge(first: NDArray[np.float32], second: NDArray[np.float32]) -> Floats:
        pairs = np.empty((2 * len(first), first.shape[1]), np.float32)
        pairs[0::2], pairs[1::2] = first, second
        offsets = np.arange(len(first) + 1, dtype=np.int64) * 2
        return np.asarray(view.score(pairs, offsets, context=1).edge[1::2], np.float64)

    def near(first: NDArray[np.float32], second: NDArray[np.float32]) -> Floats:
        return np.einsum("nd,nd->n", first, second).astype(np.float64)

    shuffled = before[other], after[order][other]
    return {
        "edge": auc(edge(before, after), edge(*shuffled)),
        "cosine": auc(near(before, after), near(*shuffled)),
    }
