"""How much experience does a delayed reward take? The store beside one-step Q-learning, Q(λ) and Dyna-Q.

A chain of 20 places and a grid of 8 × 8; the only reward is at the far end. Every agent chooses its moves in the same
way (ε-greedy, ties at random) and knows nothing of the world but what it has met.

    python examples/sample_efficiency.py --seeds 30 --plot docs/img/sample-efficiency.png

The store remembers pairs of place and move (one-hot embeddings), and each episode is observed once it is over: one
awake replay, last step first. With sleep, `replay` follows. The statistic is the number of moves made in the first 20
episodes, all told: a mean over seeds, with its 95 % bootstrap interval. Q-learning, Q(λ) and Dyna-Q have the best of
three learning rates for each world.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import sharpwave as sw

GAMMA, EPISODES, LIMIT = 0.95, 20, 3000
RATES = (0.2, 0.5, 1.0)


@dataclass(frozen=True)
class World:
    """Places, and where each move leads. The last place is the goal, the first the start."""

    name: str
    leads: np.ndarray  # (S, A)


def chain(length: int = 20) -> World:
    places = np.arange(length)
    return World("chain", np.stack([np.maximum(places - 1, 0), np.minimum(places + 1, length - 1)], 1))


def grid(side: int = 8) -> World:
    y, x = np.divmod(np.arange(side * side), side)
    moves = [(y, np.minimum(x + 1, side - 1)), (np.minimum(y + 1, side - 1), x)]
    moves += [(y, np.maximum(x - 1, 0)), (np.maximum(y - 1, 0), x)]
    return World("grid", np.stack([b * side + a for b, a in moves], 1))


class Agent(Protocol):
    def values(self, place: int) -> np.ndarray: ...
    def move(self, s: int, a: int, reward: float, there: int, ended: bool) -> None: ...


class QLearning:
    """Watkins 1989; with `trace`, his Q(λ) with replacing traces; with `plans`, Sutton's Dyna-Q (1990)."""

    def __init__(self, world: World, rng: np.random.Generator, rate: float, trace: float = 0.0, plans: int = 0) -> None:
        self.q = np.zeros(world.leads.shape)
        self.e = np.zeros_like(self.q)
        self.rate, self.trace, self.plans, self.rng = rate, trace, plans, rng
        self.model: dict[tuple[int, int], tuple[float, int, bool]] = {}
        self.known: list[tuple[int, int]] = []

    def values(self, place: int) -> np.ndarray:
        return self.q[place]

    def error(self, s: int, a: int, reward: float, there: int, ended: bool) -> float:
        return reward + (0.0 if ended else GAMMA * self.q[there].max()) - self.q[s, a]

    def move(self, s: int, a: int, reward: float, there: int, ended: bool) -> None:
        if self.trace:
            if self.q[s, a] < self.q[s].max():
                self.e[:] = 0  # a move that was not greedy cuts the trace
            self.e[s] = 0
            self.e[s, a] = 1
            self.q += self.rate * self.error(s, a, reward, there, ended) * self.e
            self.e *= 0.0 if ended else GAMMA * self.trace
            return
        self.q[s, a] += self.rate * self.error(s, a, reward, there, ended)
        if self.plans:
            if (s, a) not in self.model:
                self.known.append((s, a))
            self.model[s, a] = (reward, there, ended)
            for pick in self.rng.integers(len(self.known), size=self.plans):
                t, b = self.known[pick]
                self.q[t, b] += self.rate * self.error(t, b, *self.model[t, b])


class Store:
    """A value store over pairs of place and move."""

    def __init__(self, world: World, sleeps: bool) -> None:
        self.shape = world.leads.shape
        n = self.shape[0] * self.shape[1]
        self.store = sw.ValueStore(
            sw.Config(dim=n, k=1, epsilon=1e-3, gamma=GAMMA, equation="stopping", keep_episodes=False)
        )
        self.store.add_channel("reward")
        self.rows = np.eye(n, dtype=np.float32)
        self.store.insert(self.rows)  # id i is pair i
        self.sleeps, self.pairs, self.q = sleeps, list[int](), np.zeros(self.shape)

    def values(self, place: int) -> np.ndarray:
        return self.q[place]

    def move(self, s: int, a: int, reward: float, there: int, ended: bool) -> None:  # noqa: ARG002
        self.pairs.append(s * self.shape[1] + a)
        if ended:
            drives = np.full((len(self.pairs), 1), np.nan)
            drives[-1] = reward
            self.store.observe(self.rows[self.pairs], drives=drives)
            if self.sleeps:
                self.store.replay()
            self.pairs.clear()
            self.q = self.store.values.reshape(self.shape)


def live(world: World, agent: Agent, rng: np.random.Generator, explore: float = 0.1) -> np.ndarray:
    """(EPISODES,) moves from the start to the goal."""
    goal = len(world.leads) - 1
    lengths = np.full(EPISODES, LIMIT)
    for episode in range(EPISODES):
        s = 0
        for t in range(LIMIT):
            values = agent.values(s)
            if rng.random() < explore:
                a = int(rng.integers(len(values)))
            else:
                a = int(rng.choice(np.flatnonzero(values == values.max())))
            there = int(world.leads[s, a])
            ended = there == goal or t == LIMIT - 1
            agent.move(s, a, float(there == goal), there, ended)
            s = there
            if ended:
                lengths[episode] = t + 1
                break
    return lengths


AGENTS: dict[str, Callable[[World, np.random.Generator, float], Agent]] = {
    "Q-learning": lambda world, rng, rate: QLearning(world, rng, rate),
    "Q(λ), λ = .9": lambda world, rng, rate: QLearning(world, rng, rate, trace=0.9),
    "Dyna-Q, 10 plans a move": lambda world, rng, rate: QLearning(world, rng, rate, plans=10),
    "store, awake replay": lambda world, _rng, _rate: Store(world, sleeps=False),
    "store, and sleep": lambda world, _rng, _rate: Store(world, sleeps=True),
}


def lengths(world: World, name: str, seeds: int) -> np.ndarray:
    """(seeds, EPISODES), at the learning rate that needs the fewest moves."""
    runs = []
    for rate in RATES if not name.startswith("store") else (1.0,):
        rngs = [np.random.default_rng(seed) for seed in range(seeds)]
        runs.append(np.stack([live(world, AGENTS[name](world, rng, rate), rng) for rng in rngs]))
    return min(runs, key=lambda run: run.sum())


def interval(x: np.ndarray, draws: int = 2000) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % bootstrap interval."""
    means = np.random.default_rng(0).choice(x, (draws, len(x))).mean(1)
    return float(x.mean()), *(float(q) for q in np.quantile(means, [0.025, 0.975]))


def main() -> None:
    arguments = argparse.ArgumentParser(description="Moves that a delayed reward takes.")
    arguments.add_argument("--seeds", type=int, default=30)
    arguments.add_argument("--plot", help="where to draw it")
    given = arguments.parse_args()
    results = {world.name: {name: lengths(world, name, given.seeds) for name in AGENTS} for world in (chain(), grid())}
    for world, found in results.items():
        for name, runs in found.items():
            mean, low, high = interval(runs.sum(1))
            print(f"{world:6} {name:24} {mean:8.0f}  [{low:.0f}, {high:.0f}]")
    if given.plot:
        plot(results, given.plot)


def plot(results: dict[str, dict[str, np.ndarray]], path: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(10, 3.6), layout="constrained")
    for axis, (world, found) in zip(axes, results.items(), strict=True):
        for name, runs in found.items():
            bands = np.array([interval(runs[:, episode]) for episode in range(EPISODES)])
            episodes = np.arange(1, EPISODES + 1)
            axis.plot(episodes, bands[:, 0], label=name)
            axis.fill_between(episodes, bands[:, 1], bands[:, 2], alpha=0.2)
        axis.set(title=world, xlabel="episode", ylabel="moves to the goal", yscale="log")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
