"""Twenty games, 5 to 200 episodes of a random player, five draws of them: the store and its rivals.

    python -m examples.textworld.study               # runs what is missing, then writes tables and plot
    python -m examples.textworld.study --share 0/2   # every second part of it, for two processes
    python -m examples.textworld.report              # tables and plot from the results alone

A cell is one game, one draw and one number of episodes: all learners learn of the same episodes and play the compiled
game once. It is one line of the results, written when it is over; a study that was stopped goes on. The first n
episodes of a draw are the same whatever comes after them. Settings were chosen on the games of `TRIED`, which are
reported apart.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from examples.textworld.data import Data, minilm
from examples.textworld.game import Game
from examples.textworld.learners import learn
from examples.textworld.making import Custom, make

RESULTS = Path(__file__).parent.parent / "results" / "textworld.jsonl"
EMBEDDINGS = Path("runs/textworld/embeddings")

TRIED = tuple(Custom(6, 12, 6, seed) for seed in (1, 2, 3))
SIZES = ((4, 8, 4), (6, 12, 6), (8, 16, 7), (10, 20, 8))
GAMES = tuple(Custom(*size, seed) for seed in range(101, 106) for size in SIZES)
DRAWS = range(5)
FIRST, THEN = (25, 100), (5, 10, 50, 200)
"""Numbers of episodes; all games and draws have the first before any has the others."""

Part = tuple[Custom, int, tuple[int, ...]]


def parts() -> Iterator[Part]:
    """Game, draw and numbers of episodes, in the order in which they are run."""
    for numbers in (FIRST, THEN):
        for draw in DRAWS:
            for game in (*GAMES, *TRIED):
                yield game, draw, numbers


def run(part: Part, missing: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """The cells of a part that are missing, one after the other."""
    made, draw, _ = part
    path = make(made)
    learned_from, played = Game(path, rules=True), Game(path)
    embed = minilm(EMBEDDINGS / f"{made.name}.sqlite")
    episodes = learned_from.random_episodes(draw, max(missing))
    for number in missing:
        began = time.process_time()
        data = Data.of(episodes[:number], embed)
        family = learn(data, draw)
        walks: dict[str, int | None] = {}
        for name, values in family.values.items():
            walk, _ = played.walk(values, draw)
            walks[name] = len(walk.steps) if walk.won else None
        yield {
            "game": made.name,
            "episodes": number,
            "draw": draw,
            "random_wins": int(data.won.sum()),
            "steps": len(data.ids),
            "different": len(data.keys),
            "memories": family.memories,
            "memories_broad": family.broad,
            "chosen": family.store.chosen,
            "walks": walks,
            "cpu": round(time.process_time() - began, 1),
        }


def read(path: Path = RESULTS) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def add(path: Path, cell: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(cell) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", default="0/1", metavar="I/N", help="run every N-th part, from the I-th on")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    first, of = (int(number) for number in options.share.split("/"))
    warnings.filterwarnings("ignore", message=".*different steps become.*")  # the store that is not tuned
    for part in list(parts())[first::of]:
        game, draw, numbers = part
        there = {(cell["game"], cell["draw"], cell["episodes"]) for cell in read(options.results)}
        missing = tuple(number for number in numbers if (game.name, draw, number) not in there)
        if missing:
            for cell in run(part, missing):
                add(options.results, cell)
                print(json.dumps(cell), flush=True)


if __name__ == "__main__":
    main()
