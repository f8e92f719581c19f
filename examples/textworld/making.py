"""The games of the study, made by TextWorld's own generator, the same for the same numbers.

    python -m examples.textworld.making       # makes what is missing, about six seconds each

A game is compiled once and kept below runs/textworld/games.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from examples.textworld.game import GameError

GAMES = Path("runs/textworld/games")


@dataclass(frozen=True)
class Custom:
    """A game of `tw-make custom`: find what the quest asks for, among doors, boxes and keys."""

    rooms: int
    objects: int
    quest: int
    seed: int

    @property
    def name(self) -> str:
        return f"custom-{self.rooms}-{self.objects}-{self.quest}-{self.seed}"

    @property
    def arguments(self) -> list[str]:
        sizes = ["--world-size", str(self.rooms), "--nb-objects", str(self.objects), "--quest-length", str(self.quest)]
        return ["custom", *sizes, "--seed", str(self.seed)]


@dataclass(frozen=True)
class Cooking:
    """A game of `tw-make tw-cooking`: find the cookbook, prepare what it asks for, eat the meal."""

    recipe: int
    take: int
    rooms: int
    seed: int
    split: str

    @property
    def name(self) -> str:
        return f"cooking-{self.recipe}-{self.take}-{self.rooms}-{self.split}-{self.seed}"

    @property
    def arguments(self) -> list[str]:
        sizes = [
            "--recipe",
            str(self.recipe),
            "--take",
            str(self.take),
            "--go",
            str(self.rooms),
            "--cook",
            "--cut",
            "--open",
        ]
        return ["tw-cooking", *sizes, "--recipe-seed", str(self.seed), "--split", self.split, "--seed", str(self.seed)]


def make(game: Custom | Cooking, folder: Path = GAMES) -> Path:
    """The game's .z8, made if it is not there yet.

    Raises:
        GameError: TextWorld's generator fails, with what it says.
    """
    path = folder / f"{game.name}.z8"
    if path.is_file() and path.with_suffix(".json").is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    program = Path(sys.executable).with_name("tw-make")
    if not program.is_file():
        raise GameError(f"TextWorld is not installed: {sys.executable} -m pip install textworld")
    # The generator writes .json, .ni and .z8 in that order; a half-made game has no .z8 and is made again.
    run = subprocess.run(
        [str(program), *game.arguments, "--output", str(path), "--force", "--silent"], capture_output=True, text=True
    )
    if run.returncode or not path.is_file():
        said = (run.stderr or run.stdout).strip().splitlines()
        raise GameError(f"tw-make {' '.join(game.arguments)} failed: {said[-1] if said else run.returncode}")
    return path
