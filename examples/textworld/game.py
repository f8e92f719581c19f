"""A TextWorld game: its states as text, a random player, and a player that follows values.

A step is a command in a state. Its key is one sentence: the command, the room, what is carried, what is closed and what
is locked, anywhere in the game. It is made of the facts that TextWorld reports beside the commands that a state admits.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_STEPS = 100
"""After so many commands an episode of the random player ends."""
WALK = 40
"""After so many commands a player that follows values has lost."""
IDLE = ("examine", "look", "inventory")
"""Commands that change nothing in a game; nobody gives them."""
PARTS = ("inventory", "closed", "locked")
"""What a key says of a state beside the room. There is also "here", what else is in the room, and "recipe", what the
cookbook of a cooking game still asks for. "roles" puts what is to be done with a food in the place of its name."""

CUTS = {"sliced": "slice", "diced": "dice", "chopped": "chop"}
COOKED = {"fried": "fry", "roasted": "roast", "grilled": "grill"}
SAID = {"inventory": "carrying", "here": "here", "closed": "closed", "locked": "locked", "recipe": "to do"}

Values = Callable[[Sequence[str]], NDArray[np.float64]]
"""The worth of each key, (n,)."""


class GameError(Exception):
    """What is wrong with a game's file, in one line."""


@dataclass
class Step:
    """A command in a state, and what the score rose by, as a share of the game's highest score."""

    command: str
    state: str
    gain: float = 0.0
    said: str = ""
    """The command as the key has it, where that differs."""

    @property
    def key(self) -> str:
        return f"{self.said or self.command}. {self.state}"


@dataclass
class Episode:
    """The steps of one game, and whether it was won."""

    steps: list[Step] = field(default_factory=list[Step])
    won: bool = False


class Game:
    """A game on disk, NAME.z8 with its NAME.json.

    Args:
        path: the .z8 file.
        parts: what the key says of a state beside the room, of `PARTS`.
        rules: play by the rules in NAME.json instead of the compiled game: the same states, commands and scores, at
            half the time.

    Raises:
        GameError: there is no such file, it is not a game, its .json is missing, or TextWorld is.
    """

    def __init__(self, path: str | Path, parts: Sequence[str] = PARTS, *, rules: bool = False) -> None:
        self.path, self.parts = Path(path), tuple(parts)
        self._env = _start(self.path, rules)
        self._said: Callable[[str], str] = str

    def describe(self, shown: Any) -> str:
        """The state, without a command: one sentence."""
        facts = _facts(shown)
        room = next((where for what, where in facts.get("at", ()) if what == "P"), "nowhere")
        said = {
            "inventory": [what for what, where in facts.get("in", ()) if where == "I"],
            "closed": [names[0] for names in facts.get("closed", ())],
            "locked": [names[0] for names in facts.get("locked", ())],
        }
        if "locked" not in self.parts:  # a locked door is a closed one, to a player who does not try it
            said["closed"] += said["locked"]
        if "here" in self.parts:
            said["here"] = _here(facts, room)
        if "recipe" in self.parts:
            said["recipe"] = _to_do(facts, said["inventory"])
        shown_parts = [
            f"{SAID[part]}: {', '.join(sorted(said[part])) or 'nothing'}" for part in self.parts if part in said
        ]
        return self._speaker(shown)(". ".join([room, *shown_parts]) + ".")

    def _speaker(self, shown: Any) -> Callable[[str], str]:
        """What puts roles in the place of the names of foods, where the key asks for it."""
        return _roles(_facts(shown)) if "roles" in self.parts else str

    def commands(self, shown: Any) -> list[str]:
        """What can be done, sorted."""
        useful = [command for command in shown.admissible_commands if not command.startswith(IDLE)]
        return useful or list(shown.admissible_commands)

    def random_episode(self, seed: int, number: int) -> Episode:
        """An episode of a player that draws among the commands; the same for the same seed and number."""
        rng = np.random.default_rng([seed, number])
        return self._play(lambda options, _: options[rng.integers(len(options))], MAX_STEPS)

    def random_episodes(self, seed: int, count: int) -> list[Episode]:
        """The first `count` episodes of a seed."""
        return [self.random_episode(seed, number) for number in range(count)]

    def walk(self, values: Values, seed: int, limit: int = WALK) -> tuple[Episode, list[float]]:
        """An episode of a player that follows values, and the value of each of its steps.

        It gives the command of highest value among those that it has given least often in this state in this episode:
        where the way ran in a circle, the next best is tried. Equals are drawn among.
        """
        rng = np.random.default_rng([seed, limit])
        given: dict[str, int] = {}
        worth: list[float] = []

        def choose(options: list[str], state: str) -> str:
            keys = [f"{self._said(command)}. {state}" for command in options]
            found = values(keys)
            visits = np.array([given.get(key, 0) for key in keys])
            order = np.lexsort((rng.permutation(len(keys)), -found, visits))
            chosen = int(order[0])
            given[keys[chosen]] = int(visits[chosen]) + 1
            worth.append(float(found[chosen]))
            return options[chosen]

        return self._play(choose, limit), worth

    def follow(self, commands: Sequence[str]) -> Episode:
        """The episode that given commands make; those that are idle or refused are left out."""
        rest = iter(commands)
        return self._play(lambda options, _: next((command for command in rest if command in options), ""), MAX_STEPS)

    def _play(self, choose: Callable[[list[str], str], str], limit: int) -> Episode:
        shown, episode, score = self._env.reset(), Episode(), 0.0
        highest = float(shown.max_score or 1)
        for _ in range(limit):
            state = self.describe(shown)
            self._said = self._speaker(shown)
            command = choose(self.commands(shown), state)
            if command not in shown.admissible_commands:
                break
            said = self._said(command)
            shown, reached, over = self._env.step(command)
            gain = (float(reached or 0) - score) / highest
            episode.steps.append(Step(command, state, gain, said if said != command else ""))
            score = float(reached or 0)
            if over:
                episode.won = bool(shown.won)
                break
        return episode

    @property
    def walkthrough(self) -> list[str]:
        """The commands by which the game's maker wins."""
        return list(self._env.reset()["extra.walkthrough"] or ())


Facts = dict[str, list[tuple[str, ...]]]


def _facts(shown: Any) -> Facts:
    facts: Facts = {}
    for fact in shown.facts:
        facts.setdefault(fact.name, []).append(tuple(str(argument.name) for argument in fact.arguments))
    return facts


def _here(facts: Facts, room: str) -> list[str]:
    """What is in the room, on what stands there and in what is open there."""
    things = [what for what, where in facts.get("at", ()) if where == room and what != "P"]
    shut = {names[0] for name in ("closed", "locked") for names in facts.get(name, ())}
    inside = [(what, where) for name in ("on", "in") for what, where in facts.get(name, ())]
    return things + [f"{what} at {where}" for what, where in inside if where in things and where not in shut]


def _to_do(facts: Facts, carried: list[str]) -> list[str]:
    """What the recipe still asks for: ingredients to get, to cut and to cook."""
    left: list[str] = []
    for food, ingredient in facts.get("base", ()):
        if food not in carried:
            left.append(f"get {food}")
        for done, verb in {**CUTS, **COOKED}.items():
            if (ingredient,) in facts.get(done, ()) and (food,) not in facts.get(done, ()):
                left.append(f"{verb} {food}")
    return left or ["eat meal" if "meal" in carried else "prepare meal"]


def _roles(facts: Facts) -> Callable[[str], str]:
    """Foods by what the recipe still asks of them: "food to fry and slice", "finished food", "other food"."""
    carried = [what for what, where in facts.get("in", ()) if where == "I"]
    asked = {food: list[str]() for food, _ in facts.get("base", ())}
    for line in _to_do(facts, carried):
        verb, food = line.split(" ", 1)
        if food in asked and verb != "get":
            asked[food].append(verb)
    foods = {names[0] for name in ("edible", "inedible", "cookable", "cuttable") for names in facts.get(name, ())}
    roles = dict.fromkeys(foods - {"meal"}, "other food")
    roles |= {
        food: f"food to {' and '.join(sorted(verbs))}" if verbs else "finished food" for food, verbs in asked.items()
    }

    def speak(text: str) -> str:
        for food in sorted(roles, key=len, reverse=True):
            text = text.replace(food, roles[food])
        return text

    return speak


def _start(path: Path, rules: bool) -> Any:
    if not path.is_file():
        raise GameError(f"no such game: {path}")
    header = path.read_bytes()[:64]
    # The interpreter ends the process over a story that it cannot read, so its header is looked at first: version 8,
    # and at least as long as bytes 26 and 27 say, in units of 8.
    whole = len(header) == 64 and header[0] == 8 and path.stat().st_size >= 8 * int.from_bytes(header[26:28], "big")
    if not whole:
        raise GameError(f"not a game of TextWorld: {path} (a game is a whole .z8 file, as tw-make writes it)")
    described = path.with_suffix(".json")
    if not described.is_file():
        raise GameError(
            f"{described} is missing: it says what commands the game has (tw-make writes it beside the .z8)"
        )
    try:
        import textworld
        from textworld.envs import TextWorldEnv
    except ImportError as error:
        raise GameError(f"TextWorld is missing: {sys.executable} -m pip install textworld ({error})") from error
    asked = ["admissible_commands", "facts", "score", "max_score", "won"]
    infos = textworld.EnvInfos(**dict.fromkeys(asked, True), extras=["walkthrough"])
    try:
        with warnings.catch_warnings():
            # Of Jericho, about every game that is not one of its own; TextWorld keeps score and moves itself.
            warnings.filterwarnings("ignore", message=".*is not fully supported")
            env = TextWorldEnv(infos) if rules else textworld.start(str(path), infos)
            if rules:
                env.load(str(described))
            env.reset()
    except Exception as error:  # TextWorld raises whatever its parsers do
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise GameError(f"not a game of TextWorld: {described} ({what})") from error
    return env
