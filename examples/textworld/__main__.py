"""``python -m examples.textworld GAME``: play at random, learn, play greedily."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

from examples.textworld.data import Data, minilm
from examples.textworld.game import MAX_STEPS, WALK, Episode, Game, GameError
from examples.textworld.learners import ABOUT, Store, learn

ABOUT_THIS = f"""\
A random player plays a game of TextWorld. What it did is learned by a value memory and by its
rivals, and each then plays the game once, greedily, within {WALK} commands.

A step is a command in a state. Its key is the embedding of one sentence: the command, the room,
what is carried, what is closed and what is locked. The store keeps one memory for each key; a
scalar channel holds what the score rose by; sleep carries it back along the associations."""

EXAMPLE = """\
example:
  python -m pip install textworld
  tw-make custom --world-size 6 --nb-objects 12 --quest-length 6 --seed 2 --output games/two.z8
  python -m examples.textworld games/two.z8 --episodes 50 --seed 0

With --json the last line is one object: how many commands each player needed, null where it did
not win, and what was learned from. The same game, episodes and seed give the same line.

  {"store": 9, "mfec": 14, ..., "random_wins": 17, "memories": 580, "episodes": 50, "seed": 0, ...}

"""


class Parser(argparse.ArgumentParser):
    """Errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help says more)\n")


def whole(low: int, high: int) -> Any:
    """A whole number of a range, for argparse."""

    def number(text: str) -> int:
        if not text.lstrip("-").isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return number


def parse(arguments: list[str] | None) -> argparse.Namespace:
    players = "\n".join(f"  {name:16} {about}" for name, about in ABOUT.items())
    parser = Parser(
        prog="python -m examples.textworld",
        description=ABOUT_THIS,
        epilog=f"{EXAMPLE}players:\n{players}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("game", type=Path, metavar="GAME", help="a .z8 file that tw-make wrote, its .json beside it")
    parser.add_argument(
        "--episodes", type=whole(4, 100_000), default=100, metavar="N",
        help=f"episodes of the random player, at most {MAX_STEPS} commands each (default: 100; at least 4)",
    )  # fmt: skip
    parser.add_argument("--seed", type=whole(0, 2**31), default=0, metavar="S", help="draws the episodes (default: 0)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON instead of the account")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/textworld/embeddings.sqlite"), metavar="FILE",
        help="where embeddings of texts are kept (default: %(default)s)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Play, learn, play."""
    options = parse(arguments)
    try:
        play(options)
    except (GameError, ImportError, ValueError, OSError) as error:
        sys.exit(f"python -m examples.textworld: {str(error).splitlines()[0]}")


def play(options: argparse.Namespace) -> None:
    game = Game(options.game)
    warnings.filterwarnings("ignore", message=".*different steps become.*")  # the store that is not tuned is one player
    shown = sys.stderr if options.json else sys.stdout
    print(f"{options.game}: {options.episodes} episodes of a random player", file=shown, flush=True)
    episodes = game.random_episodes(options.seed, options.episodes)
    data = Data.of(episodes, minilm(options.cache))
    won = int(data.won.sum())
    print(f"won {won}; {len(data.ids)} steps, {len(data.keys)} of them different", file=shown, flush=True)
    family = learn(data, options.seed)
    walks: dict[str, int | None] = {}
    way: tuple[Episode, list[float]] = Episode(), []
    for name, values in family.values.items():
        walk, worth = game.walk(values, options.seed)
        walks[name] = len(walk.steps) if walk.won else None
        if name == "store":
            way = walk, worth
    if not options.json:
        print(account(family.store, *way))
        for name, steps in walks.items():
            print(f"{f'{steps} steps' if steps else 'not won':>9}  {name:16} {ABOUT[name]}")
        print(f"{family.memories} memories, {family.broad} in the store that was not tuned")
        return
    about = {
        "random_wins": won,
        "memories": family.memories,
        "memories_broad": family.broad,
        "episodes": options.episodes,
        "seed": options.seed,
        "steps": len(data.ids),
        "different": len(data.keys),
        "chosen": family.store.chosen,
    }
    print(json.dumps({**walks, **about}))


def account(store: Store, walk: Episode, worth: list[float]) -> str:
    """The way that the store takes: each command, its value, and the memories behind it."""
    lines = ["", "The store's way (each command, its value, the memory behind it and where that leads):"]
    texts = store.view.texts
    ids = {int(number): n for n, number in enumerate(store.view.ids)}
    vectors = store.data.embed([step.key for step in walk.steps])
    nearest, cosines = store.view.search(vectors, k=1)
    paths = store.view.recall_many(vectors, depth=40, beams=2)
    for step, value, found, cosine, ways in zip(walk.steps, worth, nearest, cosines, paths, strict=True):
        row = ids[int(found[0])]
        lines.append(f"  {step.command}   {value:.4f}")
        if value <= 0.0:
            lines.append("      nothing is known of it")
            continue
        lines.append(f"      cosine {cosine[0]:.3f}, met {int(store.view.counts[row])} times: {texts[row]}")
        if ways and len(ways[0].ids) > 1:
            last = texts[ids[int(ways[0].ids[-1])]]
            lines.append(f"      leads in {len(ways[0].ids) - 1} steps to: {last}")
    lines.append("won" if walk.won else f"not won within {WALK} commands")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
