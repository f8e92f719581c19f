"""What forward replay takes: three ingredients of Mattar & Daw's agent that a store lacks, one at a time.

`examples/replay_maze.py` finds reverse replay in a store, and no forward replay before a run. Here is a table in place
of the store (values and counted transitions, no engine), in the same worlds, with the same need, statistic and number
of backups, so that what a store lacks can be added:

* *trials*: the value of the goal is its reward, whatever comes next. (In the store the rat is carried back to the
  start, and learns that: each run is owed to the one before, lap after lap.)
* a *floor*: a backup that would change nothing is still worth 1e-10 × need, so that replay goes on when all is learned;
* *extension*: the last backups may be continued by the most likely next place, as one backup of several steps, which is
  worth the sum over its places of need × gain.

    python examples/replay_ahead.py --seeds 20
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from examples.replay_maze import Place, Rest, World, interval, maze, shares, track

FLOOR = 1e-10  # as in the paper
INGREDIENTS = {
    "as the store": (False, False, False),
    "trials": (True, False, False),
    "trials and a floor": (True, True, False),
    "trials and extension": (True, False, True),
    "a floor and extension": (False, True, True),
    "trials, a floor and extension": (True, True, True),
}


@dataclass
class Table:
    """A rat with a table for a memory: v = r + γPv, one backup, or one sequence of backups, at a time."""

    world: World
    seed: int
    trials: bool
    floor: bool
    extension: bool
    gamma: float = 0.9
    explore: float = 0.1
    backups: int = 20
    tolerance: float = 1e-3
    rests: list[Rest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.row = {place: i for i, place in enumerate(self.world.places)}
        n = len(self.row)
        self.counts, self.v = np.zeros((n, n)), np.zeros(n)
        self.received, self.times = np.zeros(n), np.zeros(n)

    def run(self, limit: int = 500) -> None:
        """From the start to the goal, with a rest before and one after; then it is carried back."""
        here = self.world.start
        self.rest("start", here)
        for _ in range(limit):
            there = self.choose(here)
            self.move(here, there)
            here = there
            if here == self.world.goal:
                goal = self.row[here]
                self.received[goal] += 1 + 0.3 * self.rng.normal()
                self.times[goal] += 1
                self.v[goal] = self.backed_up(goal)
                break
        self.rest("goal", here)
        self.move(here, self.world.start)

    def move(self, a: Place, b: Place) -> None:
        """Counts a transition, and backs up the place that was left."""
        self.counts[self.row[a], self.row[b]] += 1
        self.v[self.row[a]] = self.backed_up(self.row[a])

    def choose(self, here: Place) -> Place:
        others = self.world.neighbours(here)
        if self.rng.random() < self.explore:
            return others[self.rng.integers(len(others))]
        values = self.v[[self.row[other] for other in others]]
        return others[self.rng.choice(np.flatnonzero(values == values.max()))]

    def transitions(self) -> np.ndarray:
        return self.counts / np.maximum(self.counts.sum(1, keepdims=True), 1)

    def backed_up(self, i: int) -> float:
        n = self.counts[i].sum()
        if self.trials and i == self.row[self.world.goal]:
            n = 0
        ahead = float(self.counts[i] @ self.v) / n if n else 0.0
        return self.received[i] / max(self.times[i], 1) + self.gamma * ahead

    def continued(self, sequence: list[int], P: np.ndarray) -> list[int] | None:
        """The sequence and the most likely place after its last, unless that is in it, or starts anew from the goal."""
        last = sequence[-1]
        after = int(P[last].argmax())
        if last == self.row[self.world.goal] or not P[last].any() or after in sequence or not P[after].any():
            return None
        return [*sequence, after]

    def changes(self, sequence: list[int]) -> list[float]:
        """What a backup of several steps would add to each of its places: the last one's own, carried back."""
        P, last = self.transitions(), sequence[-1]
        change = [self.backed_up(last) - self.v[last]]
        for i, j in zip(sequence[-2::-1], sequence[::-1], strict=False):
            owed = self.backed_up(i) - self.v[i]
            change.append(owed + self.gamma * P[i, j] * change[-1])
        return change[::-1]

    def rest(self, at: str, here: Place) -> None:
        """The backups of a rest: the place that each is of, or that it continues the last ones by."""
        rest, P = Rest(at, 0), self.transitions()
        need = np.linalg.inv(np.eye(len(P)) - self.gamma * P)[self.row[here]]
        last: list[int] | None = None
        for _ in range(self.backups):
            candidates = [[i] for i in np.flatnonzero(P.any(1))]
            more = self.continued(last, P) if self.extension and last else None
            candidates += [more] if more else []
            best, worth = None, 0.0
            for sequence in candidates:
                gains = np.abs(self.changes(sequence))
                gains = np.where(gains > self.tolerance, gains, FLOOR if self.floor else 0.0)
                gain = float(gains @ need[sequence])
                if gain > worth:
                    best, worth = sequence, gain
            if best is None:
                break
            for i, change in zip(best, self.changes(best), strict=True):
                self.v[i] += change
            rest.order.append(self.world.places[best[-1]])
            last = best
        self.rests.append(rest)


def live(world: World, seed: int, ingredients: Sequence[bool], runs: int = 30) -> Table:
    """A rat with `trials`, `floor` and `extension`, or without."""
    rat = Table(world, seed, *ingredients)
    for _ in range(runs):
        rat.run()
    return rat


def measure(world: World, seeds: int, ingredients: Sequence[bool]) -> dict[str, tuple[float, float, float]]:
    """Shares of significant sequences by place and direction, with intervals over seeds."""
    rats = [live(world, seed, ingredients) for seed in range(seeds)]
    found = dict[str, tuple[float, float, float]]()
    for at in ("start", "goal"):
        both = np.array([shares(rat, at) for rat in rats])
        found |= {f"{at}, forward": interval(both[:, 0]), f"{at}, reverse": interval(both[:, 1])}
    return found


def main() -> None:
    """Print the table, and hold what is said of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    for world in (track(), maze()):
        lowest: dict[str, float] = {}
        highest: dict[str, float] = {}
        for name, ingredients in INGREDIENTS.items():
            found = measure(world, seeds, ingredients)
            _, lowest[name], highest[name] = found["start, forward"]
            cells = " | ".join(f"{m:.2f} [{a:.2f}, {b:.2f}]" for m, a, b in found.values())
            print(f"| {world.name}: {name} | {cells} |", flush=True)
        *some, everything = INGREDIENTS
        if world.name == track().name:  # in the maze the intervals meet
            assert all(lowest[everything] > highest[name] for name in some), "most are forward with all of them"


if __name__ == "__main__":
    main()
