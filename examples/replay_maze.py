"""Which memories does replay visit, in which order? Mattar & Daw's two worlds (2018), with this store in their place.

A rat runs a linear track, or finds its way through a maze, to a reward. Where it starts and where it is rewarded it
rests, and replays: up to 20 backups, the largest need × gain first. Nothing says in which order that is; the
hippocampus replays backwards at a reward, and forwards before a run.

    python examples/replay_maze.py --seeds 20 --plot docs/img/replay-maze.png

Each place is a memory of its own (one-hot embeddings). Each move is observed as an episode of two steps, which learns
P and backs up the place that was left: one-step learning from experience. Need is the row of the successor
representation (I - γP)^-1 from where the rat is. By default it is carried from the reward to the start, and learns
that too; with *trials* a run ends at the reward, as in the paper, and need is then from there and from the start.

Rats sleep as a store does by default, or with a *floor* under every gain, so that replay goes on by need when nothing
is owed, and *extension* of the last backup by the most likely next place (docs/model.md, section 5).

The statistic: the share of rests with a significant forward, and reverse, sequence. A sequence is a run of backups each
one move further from the start than the one before (forward), or nearer (reverse); the longest of a rest is significant
if it is longer than the 97.5 % quantile of the longest in 200 shuffles of that rest.

What comes out (docs/replay.md): reverse sequences after the reward, more after a larger one and none without, however
the store sleeps; forward ones before a run with floor and extension, on the track soon and in the maze later.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import sharpwave as sw

Place = tuple[int, int]
TOLERANCE = 1e-2  # what is owed less than this is left alone
FLOOR = 1e-10  # as in the paper
MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))


KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "floor": {"floor": FLOOR},
    "extension": {"extend": True},
    "floor, extension": {"floor": FLOOR, "extend": True},
    "trials": {"trials": True},
    "trials, floor, extension": {"floor": FLOOR, "extend": True, "trials": True},
}
"""How a rat sleeps."""
PAIRS = (("floor, extension", "default"), ("trials, floor, extension", "trials"))
"""With both, and without."""
CHANCE = 0.025

Interval = tuple[float, float, float]


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
    floor: float = 0.0
    extend: bool = False
    trials: bool = False
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
        if not self.trials:
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
        """Which place each backup was of."""
        rest = Rest(at, run)
        need = [self.row[here]]
        if self.trials and here == self.world.goal:
            need.append(self.row[self.world.start])  # no way leads on from the goal: the next run begins there
        if self.floor or self.extend:
            report = self.store.replay(self.backups, TOLERANCE, need=need, floor=self.floor, extend=self.extend)
            rest.order = [self.world.places[i] for i in report.trail]
        else:
            rest.order = self.one_by_one(need)
        self.rests.append(rest)

    def one_by_one(self, need: list[int]) -> list[Place]:
        """The places of the backups of a sleep that does not tell them: those whose values moved."""
        order: list[Place] = []
        for _ in range(self.backups):
            before = self.store.values[:, 0]
            if self.store.replay(1, TOLERANCE, need=need).backups == 0:
                break
            (moved,) = np.nonzero(self.store.values[:, 0] != before)
            order += [self.world.places[i] for i in moved]
        return order


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


def live(world: World, seed: int, runs: int = 30, **kind: Any) -> Rat:
    """A rat whose reward varies a little, as in the paper, so that there is always something to learn."""
    rat = Rat(world, seed, **kind)
    for number in range(runs):
        rat.run(number, 1 + 0.3 * float(rat.rng.normal()))
    return rat


def after_a_change(world: World, seed: int, reward: float | None, runs: int = 40, **kind: Any) -> int:
    """Backups in reverse runs of three places or more, at the goal, after a run whose reward is not what it was."""
    rat = Rat(world, seed, backups=60, guided=True, **kind)  # so that in the end only the reward is new
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


def interval(x: np.ndarray, draws: int = 2000) -> Interval:
    """Mean over seeds and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    means = rng.choice(x, (draws, len(x))).mean(1)
    return float(x.mean()), *(float(q) for q in np.quantile(means, [0.025, 0.975]))


def found(world: World, seeds: int, kind: str, runs: int = 30) -> dict[str, np.ndarray]:
    """Shares of significant sequences by direction and place, (seeds,)."""
    rats = [live(world, seed, runs, **KINDS[kind]) for seed in range(seeds)]
    both = {at: np.array([shares(rat, at) for rat in rats]) for at in ("start", "goal")}
    return {f"{name}, {at}": both[at][:, n] for at in both for n, name in enumerate(("forward", "reverse"))}


def changes(world: World, seeds: int, kind: str) -> dict[str, np.ndarray]:
    """Reverse backups after each change of the reward, (seeds,)."""
    counts = {
        name: [after_a_change(world, seed, reward, **KINDS[kind]) for seed in range(seeds)]
        for name, reward in CHANGES.items()
    }
    return {name: np.array(count, float) for name, count in counts.items()}


PLOTTED = ("default", "floor, extension", "trials, floor, extension")


def plot(results: dict[str, dict[str, dict[str, Interval]]], path: str) -> None:
    """By world and kind: the shares on the left, the reverse backups after a change on the right."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(results), 2, figsize=(11, 3 * len(results)), squeeze=False, layout="constrained")
    for (name, kinds), (left, right) in zip(results.items(), axes, strict=True):
        for n, kind in enumerate(PLOTTED):
            numbers = {what: mean for what, mean in kinds[kind].items() if what not in CHANGES}
            rewards = {what: mean for what, mean in kinds[kind].items() if what in CHANGES}
            for axis, values in ((left, numbers), (right, rewards)):
                bars = np.array(list(values.values()))
                error = np.abs(bars[:, 1:] - bars[:, :1]).T
                at = np.arange(len(bars)) + 0.27 * (n - 1)
                axis.bar(at, bars[:, 0], 0.25, yerr=error, label=kind, capsize=2)
                axis.set_xticks(range(len(bars)), [what.replace(", ", "\nat the ") for what in values], fontsize=8)
        left.axhline(CHANCE, color="k", lw=0.8, ls=":")
        left.set(title=name, ylabel="share of rests", ylim=(0, 1))
        right.set(ylabel="reverse backups", title="reward, last run")
    axes[0, 1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def hold(shares_of: dict[str, dict[str, np.ndarray]], changed: dict[str, dict[str, np.ndarray]], track_: bool) -> None:
    """What docs/replay.md says of one world."""
    for kind, numbers in shares_of.items():
        assert interval(numbers["reverse, goal"])[1] > 0.7, f"{kind}: reverse at the goal"
    for kind, numbers in changed.items():
        assert interval(numbers["four times"] - numbers["as before"])[1] > 0, f"{kind}: more after a larger reward"
        assert not numbers["not received"].any(), f"{kind}: none without"
    forward = {kind: numbers["forward, start"] for kind, numbers in shares_of.items()}
    for kind, without in PAIRS:
        assert interval(forward[kind])[1] > CHANCE, f"{kind}: forward at the start"
        if track_ or kind.startswith("trials"):  # in the maze the interval of the others reaches down to 0
            assert interval(forward[kind] - forward[without])[1] > 0, f"{kind}: more than without"
    for kind in ("default", "floor", "extension", "trials"):
        if track_:
            assert interval(forward[kind])[2] < interval(forward["floor, extension"])[1], f"{kind}: too little"


def main() -> None:
    arguments = argparse.ArgumentParser(description="Replay on a linear track and in a maze.")
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--plot", help="where to draw it")
    given = arguments.parse_args()
    results: dict[str, dict[str, dict[str, Interval]]] = {}
    for world in (track(), maze()):
        shares_of = {kind: found(world, given.seeds, kind) for kind in KINDS}
        changed = {kind: changes(world, given.seeds, kind) for kind in PLOTTED}
        results[world.name] = {
            kind: {what: interval(x) for what, x in {**numbers, **changed.get(kind, {})}.items()}
            for kind, numbers in shares_of.items()
        }
        for kind, numbers in results[world.name].items():
            for table in filter(None, (shares_of[kind], changed.get(kind))):
                cells = [f"{numbers[what][0]:.2f} [{numbers[what][1]:.2f}, {numbers[what][2]:.2f}]" for what in table]
                print(f"| {world.name}: {kind} |", " | ".join(cells), "|", flush=True)
        for kind, without in PAIRS:
            more = interval(shares_of[kind]["forward, start"] - shares_of[without]["forward, start"])
            print(f"forward at the start, {kind} less {without}: {more[0]:.2f} [{more[1]:.2f}, {more[2]:.2f}]")
        hold(shares_of, changed, world.name == track().name)
    if given.plot:
        plot(results, given.plot)


if __name__ == "__main__":
    main()
