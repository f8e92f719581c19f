"""Which memories does replay visit, in which order? Mattar & Daw's two worlds (2018), with this store in their place.

A rat runs a linear track, or finds its way through a maze, to a reward. Where it starts and where it is rewarded it
rests, and replays: up to 20 backups, the largest need × gain first. Nothing says in which order that is; the
hippocampus replays backwards at a reward, and forwards before a run.

    python examples/replay_maze.py --seeds 20 --plot docs/img/replay-maze.png

Each place is a memory of its own (one-hot embeddings). Each move is observed as an episode of two steps, which learns
P and backs up the place that was left: one-step learning from experience. Need is the row of the successor
representation (I − γP)^-1 from where the rat is; it is carried from the reward to the start, and learns that too.

The statistic: the share of rests with a significant forward, and reverse, sequence. A sequence is a run of backups each
one move further from the start than the one before (forward), or nearer (reverse); the longest of a rest is significant
if it is longer than the 97.5 % quantile of the longest in 200 shuffles of that rest.

What comes out (docs/replay.md): reverse sequences after the reward, more after a larger one and none without; but *not*
the forward ones before a run. A backup of one value changes what its predecessors owe, so the next backup is most often
one place back. The paper's forward sequences come from backups that a step ahead may extend, which replay here lacks.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import sharpwave as sw

Place = tuple[int, int]
TOLERANCE = 1e-2  # what is owed less than this is left alone
MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))


@dataclass(frozen=True)
class World:
    """Places on a grid, a start and a goal."""

    name: str
    places: tuple[Place, ...]
    start: Place
    goal: Place

    def neighbours(self, place: Place) -> list[Place]:
        around = [(place[0] + dy, place[1] + dx) for dy, dx in MOVES]
        return [other for other in around if other in self.places]

    def distances(self) -> dict[Place, int]:
        """Moves from the start along the shortest way."""
        found, queue = {self.start: 0}, deque([self.start])
        while queue:
            here = queue.popleft()
            for other in self.neighbours(here):
                if other not in found:
                    found[other] = found[here] + 1
                    queue.append(other)
        return found

    def way(self) -> list[Place]:
        """A shortest way from the start to the goal."""
        distance = self.distances()
        back = [self.goal]
        while back[-1] != self.start:
            back.append(next(p for p in self.neighbours(back[-1]) if distance[p] == distance[back[-1]] - 1))
        return back[::-1]


def track(length: int = 10) -> World:
    return World("linear track", tuple((0, x) for x in range(length)), (0, 0), (0, length - 1))


MAZE = """\
.......#G
..#....#.
S.#....#.
..#......
.....#...
.........
"""


def maze() -> World:
    """Sutton's (1990), as in the paper."""
    found = {(y, x): c for y, line in enumerate(MAZE.splitlines()) for x, c in enumerate(line) if c != "#"}
    (start,), (goal,) = ([p for p, c in found.items() if c == which] for which in "SG")
    return World("maze", tuple(found), start, goal)


@dataclass
class Rest:
    """One rest: where, in which run, and which places were backed up in which order."""

    at: str
    run: int
    order: list[Place] = field(default_factory=list)


@dataclass
class Rat:
    """A store, a place, and what to do there."""

    world: World
    seed: int
    gamma: float = 0.9
    explore: float = 0.1
    backups: int = 20
    guided: bool = False
    rests: list[Rest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.way = self.world.way()
        n = len(self.world.places)
        self.store = sw.ValueStore(
            sw.Config(dim=n, k=1, epsilon=1e-3, gamma=self.gamma, equation="return", keep_episodes=False)
        )
        self.store.add_channel("reward")
        self.row = {place: i for i, place in enumerate(self.world.places)}
        self.store.insert(np.eye(n, dtype=np.float32))  # id i is place i

    def move(self, a: Place, b: Place, reward: float | None = None) -> None:
        """One move as an episode of its own; what was received is received at b."""
        steps = np.zeros((2, self.store.dim), np.float32)
        steps[0, self.row[a]] = steps[1, self.row[b]] = 1
        self.store.observe(steps, drives=[[np.nan], [np.nan if reward is None else reward]])

    def run(self, number: int, reward: float | None, limit: int = 500) -> None:
        """From the start to the goal, with a rest before and one after."""
        here = self.world.start
        self.rest("start", number, here)
        for _ in range(limit):
            there = self.choose(here)
            self.move(here, there, reward if there == self.world.goal else None)
            here = there
            if here == self.world.goal:
                break
        self.rest("goal", number, here)
        self.move(here, self.world.start)

    def choose(self, here: Place) -> Place:
        """The neighbour of largest value; at times any. A guided rat is led along the shortest way."""
        if self.guided:
            return self.way[self.way.index(here) + 1]
        others = self.world.neighbours(here)
        if self.rng.random() < self.explore:
            return others[self.rng.integers(len(others))]
        values = self.store.values[[self.row[other] for other in others], 0]
        best = np.flatnonzero(values == values.max())
        return others[self.rng.choice(best)]

    def rest(self, at: str, run: int, here: Place) -> None:
        """Backup by backup, to see which each was."""
        rest = Rest(at, run)
        for _ in range(self.backups):
            before = self.store.values[:, 0]
            report = self.store.replay(budget=1, tol=TOLERANCE, need=[self.row[here]])
            if report.backups == 0:
                break
            (moved,) = np.nonzero(self.store.values[:, 0] != before)
            rest.order += [self.world.places[i] for i in moved]
        self.rests.append(rest)


def longest(order: Sequence[int], direction: int) -> int:
    """Places in the longest run that goes one move further in a direction with every backup."""
    most = run = 1
    for a, b in pairwise(order):
        run = run + 1 if b - a == direction else 1
        most = max(most, run)
    return most if len(order) else 0


def significant(order: Sequence[int], direction: int, rng: np.random.Generator, shuffles: int = 200) -> bool:
    """Whether the longest run is longer than shuffled backups have."""
    chance = [longest(rng.permutation(order).tolist(), direction) for _ in range(shuffles)]
    return bool(longest(order, direction) > np.quantile(chance, 0.975))


def shares(rat: Rat, at: str) -> tuple[float, float]:
    """Of the rests at a place, the shares with a significant forward and reverse sequence."""
    distance, rng = rat.world.distances(), np.random.default_rng(rat.seed)
    orders = [[distance[p] for p in rest.order] for rest in rat.rests if rest.at == at]
    return tuple(float(np.mean([significant(o, d, rng) for o in orders])) for d in (1, -1))  # pyright: ignore


def live(world: World, seed: int, runs: int = 30) -> Rat:
    """A rat whose reward varies a little, as in the paper, so that there is always something to learn."""
    rat = Rat(world, seed)
    for number in range(runs):
        rat.run(number, 1 + 0.3 * float(rat.rng.normal()))
    return rat


def after_a_change(world: World, seed: int, reward: float | None, runs: int = 40) -> int:
    """Backups in reverse runs of three places or more, at the goal, after a run whose reward is not what it was."""
    rat = Rat(world, seed, backups=60, guided=True)  # so that in the end only the reward is new
    for number in range(runs):
        rat.run(number, 1.0)
    rat.rests.clear()
    rat.run(runs, reward)
    distance = world.distances()
    order = [distance[p] for rest in rat.rests if rest.at == "goal" for p in rest.order]
    count, run = 0, 1
    for a, b in pairwise([*order, -9]):
        run, ended = (run + 1, 0) if b - a == -1 else (1, run)
        count += ended if ended >= 3 else 0
    return count


CHANGES: dict[str, float | None] = {"not received": None, "as before": 1.0, "four times": 4.0, "zero received": 0.0}


def interval(x: np.ndarray, draws: int = 2000) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    means = rng.choice(x, (draws, len(x))).mean(1)
    return float(x.mean()), *(float(q) for q in np.quantile(means, [0.025, 0.975]))


def measure(world: World, seeds: int, runs: int = 30) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Every number of one world, with its interval over seeds."""
    rats = [live(world, seed, runs) for seed in range(seeds)]
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for at in ("start", "goal"):
        both = np.array([shares(rat, at) for rat in rats])
        found[at] = {"forward": interval(both[:, 0]), "reverse": interval(both[:, 1])}
    found["reward"] = {
        name: interval(np.array([after_a_change(world, seed, reward) for seed in range(seeds)], float))
        for name, reward in CHANGES.items()
    }
    return found


def plot(results: dict[str, dict[str, dict[str, tuple[float, float, float]]]], path: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(results), 2, figsize=(9, 3 * len(results)), squeeze=False, layout="constrained")
    for (name, found), (left, right) in zip(results.items(), axes, strict=True):
        for at, shift in (("start", -0.18), ("goal", 0.18)):
            bars = np.array([found[at][d] for d in ("forward", "reverse")])
            error = np.abs(bars[:, 1:] - bars[:, :1]).T
            left.bar(np.arange(2) + shift, bars[:, 0], 0.34, yerr=error, label=f"at the {at}", capsize=3)
        left.axhline(0.025, color="k", lw=0.8, ls=":")
        left.set(xticks=[0, 1], xticklabels=["forward", "reverse"], title=name, ylabel="share of rests", ylim=(0, 1))
        left.legend(frameon=False)
        bars = np.array(list(found["reward"].values()))
        right.bar(range(len(bars)), bars[:, 0], yerr=np.abs(bars[:, 1:] - bars[:, :1]).T, capsize=3, color="tab:green")
        right.set(
            xticks=range(len(bars)), xticklabels=found["reward"], ylabel="reverse backups", title="reward, last run"
        )
        right.tick_params(axis="x", labelsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    arguments = argparse.ArgumentParser(description="Replay on a linear track and in a maze.")
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--plot", help="where to draw it")
    given = arguments.parse_args()
    results = {world.name: measure(world, given.seeds) for world in (track(), maze())}
    for name, found in results.items():
        for what, numbers in found.items():
            for which, (mean, low, high) in numbers.items():
                print(f"{name:13} {what:7} {which:13} {mean:7.2f}  [{low:.2f}, {high:.2f}]")
    if given.plot:
        plot(results, given.plot)


if __name__ == "__main__":
    main()
