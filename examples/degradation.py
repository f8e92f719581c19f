"""Graceful degradation: memories deleted, keys made noisy, values quantised. What is left of scores and values?

    python -m examples.degradation --seeds 5 --plot docs/img/degradation.png

A store of about 4,200 memories in 64 dimensions that has lived through 600 episodes: walks over 40 topics, each of
which leads to three others; one is the terminal. It scores 300 episodes that it has not seen. Then it is damaged,
through its own snapshot, sleeps, and scores them again:

* deleting takes memories with their rows and columns of associations, as eviction does; nothing is renormalised;
* noise is Gaussian, σ/√d in every dimension of a key of length 1, which is then normalised again;
* quantised values have so many levels between 0 and the largest.

Two numbers: Spearman's rank correlation of the scores (coverage) with those of the whole store, and the value error,
mean |Φ − Φ_whole| over the steps relative to mean Φ_whole. Means and ranges over seeds, each a world of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import sharpwave as sw
from numpy.typing import NDArray
from scipy.stats import spearmanr

from examples.snapshot import read, written

DIM, TOPICS, LENGTH = 64, 40, 8
DELETED = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
NOISE = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
LEVELS = (256, 64, 16, 8, 4)

Episodes = tuple[NDArray[np.float32], NDArray[np.int64]]
Outcome = tuple[float, float]


class World:
    """Topics and where each leads."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.centres = self.rng.normal(size=(TOPICS, DIM)) / np.sqrt(DIM)
        self.leads = self.rng.integers(0, TOPICS, size=(TOPICS, 3))

    def episodes(self, n: int) -> Episodes:
        """Walks: each topic is followed by one of three, and said in ever other words."""
        topics = np.empty((n, LENGTH), int)
        topics[:, 0] = self.rng.integers(0, TOPICS, size=n)
        for t in range(1, LENGTH):
            topics[:, t] = self.leads[topics[:, t - 1], self.rng.integers(0, 3, size=n)]
        said = self.centres[topics] + 0.6 * self.rng.normal(size=(n, LENGTH, DIM)) / np.sqrt(DIM)
        return said.reshape(-1, DIM).astype(np.float32), np.arange(0, n * LENGTH + 1, LENGTH)

    def store(self, episodes: int = 600) -> sw.ValueStore:
        store = sw.ValueStore(sw.Config(dim=DIM, tau=0.3, min_novelty=0.3, keep_episodes=False))
        store.calibrate(*self.episodes(64))
        store.add_terminal("goal", self.centres[0])
        store.observe(*self.episodes(episodes))
        store.replay()
        return store


def changed(store: sw.ValueStore, keep: NDArray[np.bool_], noise: float, seed: int) -> sw.ValueStore:
    """The store with some memories taken out and noise on the keys of those left, after a sleep."""
    parts, state = read(store.to_bytes())
    rng = np.random.default_rng(seed)
    keep = keep | parts["terminal"].astype(bool)
    rank = np.cumsum(keep) - 1
    lengths, texts = parts["row_lengths"].astype(int), parts["provenance_lengths"].astype(int)
    sources = np.repeat(np.arange(len(keep)), lengths)
    edges = keep[sources] & keep[parts["edge_targets"]]
    steps = keep[np.repeat(np.arange(len(keep)), texts)]
    parts["row_lengths"] = np.bincount(rank[sources[edges]], minlength=int(keep.sum())).astype(np.uint64)
    parts["edge_targets"] = rank[parts["edge_targets"][edges]].astype(np.uint32)
    parts["edge_sums"] = parts["edge_sums"][edges]
    parts["provenance_origins"], parts["provenance_steps"] = (
        parts[name][steps] for name in ("provenance_origins", "provenance_steps")
    )
    for name in (
        "keys values merged mass written terminal dirty drive_sums drive_counts ids text_lengths provenance_lengths"
    ).split():
        parts[name] = parts[name][keep]
    free = ~parts["terminal"].astype(bool)
    keys = parts["keys"].astype(np.float64)
    keys[free] += noise * rng.normal(size=keys[free].shape) / np.sqrt(DIM)
    parts["keys"] = (keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32)
    parts["dirty"] = (parts["row_lengths"] > 0).astype(np.uint8)
    damaged = sw.ValueStore.from_bytes(written(parts, state))
    damaged.replay()
    return damaged


def quantised(store: sw.ValueStore, levels: int) -> sw.FrozenView:
    """A view in which values have so many levels; the baseline too."""
    top = store.values.max()

    def rounded(v: NDArray[np.float32]) -> NDArray[np.float32]:
        return (np.round(v / top * (levels - 1)) / (levels - 1) * top).astype(np.float32)

    return store.frozen().ablated(values=rounded(store.values), baseline=rounded(store.baseline))


def compared(whole: sw.View, damaged: sw.View, tests: Episodes) -> Outcome:
    """Spearman's correlation of the scores, and the relative value error."""
    scores = [view.score(*tests, context=False).total for view in (whole, damaged)]
    phi = [view.value(tests[0])[0][:, 0] for view in (whole, damaged)]
    return float(spearmanr(*scores).statistic), float(np.abs(phi[1] - phi[0]).mean() / phi[0].mean())


def measure(seed: int, tests: int = 300) -> dict[str, dict[float, Outcome]]:
    """Every damage of one world."""
    world = World(seed)
    store, episodes = world.store(), world.episodes(tests)
    lots = np.random.default_rng(seed).random(len(store))

    def each(levels: Sequence[float], damage: Callable[[float], sw.View]) -> dict[float, Outcome]:
        return {level: compared(store, damage(level), episodes) for level in levels}

    everyone = np.ones(len(store), bool)
    return {
        "share deleted": each(DELETED, lambda share: changed(store, lots >= share, 0.0, seed)),
        "noise on keys": each(NOISE, lambda noise: changed(store, everyone, noise, seed)),
        "levels of values": each(LEVELS, lambda levels: quantised(store, int(levels))),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description="What damage does to scores and values.")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--plot", help="where to draw it")
    given = arguments.parse_args()
    runs = [measure(seed) for seed in range(given.seeds)]
    for damage, levels in runs[0].items():
        for level in levels:
            correlation, error = np.array([run[damage][level] for run in runs]).T
            print(
                f"{damage:17} {level:5g}   correlation {correlation.mean():.2f} "
                f"[{correlation.min():.2f}, {correlation.max():.2f}]   value error {error.mean():.2f} "
                f"[{error.min():.2f}, {error.max():.2f}]"
            )
    if given.plot:
        plot(runs, given.plot)


def plot(runs: list[dict[str, dict[float, Outcome]]], path: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), sharey=True, layout="constrained")
    for axis, damage in zip(axes, runs[0], strict=True):
        found = np.array([list(run[damage].values()) for run in runs])  # (seeds, levels, 2)
        labels = [f"{level:g}" for level in runs[0][damage]]
        for which, name in enumerate(("rank correlation of scores", "relative value error")):
            axis.plot(labels, found[..., which].mean(0), "o-", label=name)
            axis.fill_between(labels, found[..., which].min(0), found[..., which].max(0), alpha=0.2)
        axis.set(xlabel=damage, ylim=(-0.05, 1.05))
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
