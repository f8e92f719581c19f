"""On the three games that settings were chosen on: what a key has to say, and what of the store does the work.

    python -m examples.textworld.keys      # runs what is missing; half an hour

Keys: the store's values with keys that leave out a part of the state, or add what else is in the room. In an earlier
trial the key did not say what is locked, and the third game was lost.

Stores: settings between those of the study and what `calibrate` leaves.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import sharpwave as sw

from examples.textworld.data import Data, minilm
from examples.textworld.game import Game, Values
from examples.textworld.learners import Store, constant_p, drives_alone, mfec, probe, remember, tuned
from examples.textworld.making import Custom, make
from examples.textworld.study import EMBEDDINGS, TRIED, add, read

RESULTS = Path(__file__).parent.parent / "results" / "textworld_keys.jsonl"
EPISODES = (25, 100)
DRAWS = range(5)
KEYS: dict[str, tuple[str, ...]] = {
    "room": (),
    "room, carried": ("inventory",),
    "room, closed, locked": ("closed", "locked"),
    "room, carried, closed": ("inventory", "closed"),
    "room, carried, closed, locked": ("inventory", "closed", "locked"),
    "all of it, and what is in the room": ("inventory", "here", "closed", "locked"),
}
WIDE = 2000


def stores(data: Data) -> dict[str, tuple[Values, int]]:
    """Stores of other settings: their values and how many memories they have."""
    config, chosen = tuned(data)
    wide = sw.tune(data.steps, data.offsets, drives={"score": data.gains}, max_steps=WIDE).config
    default = sw.ValueStore(sw.Config(dim=data.vectors.shape[1]))
    default.calibrate(data.steps, data.offsets, check=False)
    configs = {
        "tune, γ alone": config,
        "tune, its own grid": wide,
        "calibrate, not tuned": default.config,
        "merge cosine .98": replace(config, merge_cosine=0.98),
        "merge cosine .9": replace(config, merge_cosine=0.9),
        "k 4": replace(config, k=4),
        "k 16": replace(config, k=16),
        "return, not stopping": replace(config, equation="return"),
    }
    found: dict[str, tuple[Values, int]] = {}
    for name, made in configs.items():
        store = remember(data, made)
        found[name] = Store(store.frozen(), data, chosen), len(store)
    awake = remember(data, config, sleep=False)
    found["no sleep"] = Store(awake.frozen(), data, chosen), len(awake)
    full, memories = found["tune, γ alone"]
    assert isinstance(full, Store)
    found["no replay: drives alone"] = drives_alone(full), memories
    found["constant P"] = constant_p(full), memories
    return found


def keys(data: Data) -> dict[str, tuple[Values, int]]:
    config, chosen = tuned(data)
    store = remember(data, config)
    return {
        "store": (Store(store.frozen(), data, chosen), len(store)),
        "mfec": (mfec(data), len(data.keys)),
        "probe": (probe(data), len(data.keys)),
    }


Learn = Callable[[Data], dict[str, tuple[Values, int]]]


def jobs() -> Iterator[tuple[str, str, tuple[str, ...], Learn]]:
    """What is varied, its name, the parts of the key, what is learned."""
    for name, parts in reversed(KEYS.items()):
        yield "key", name, parts, keys
    yield "store", "settings", KEYS["room, carried, closed, locked"], stores


def run(made: Custom, draw: int, kind: str, name: str, parts: tuple[str, ...], learn: Learn) -> dict[str, Any]:
    """One game, draw and variant: what each learner needed after each number of episodes."""
    path = make(made)
    episodes = Game(path, parts, rules=True).random_episodes(draw, max(EPISODES))
    played, embed = Game(path, parts), minilm(EMBEDDINGS / f"{made.name}.sqlite")
    cell: dict[str, Any] = {"kind": kind, "variant": name, "game": made.name, "draw": draw, "found": []}
    for number in EPISODES:
        for learner, (values, memories) in learn(Data.of(episodes[:number], embed)).items():
            walk, _ = played.walk(values, draw)
            steps = len(walk.steps) if walk.won else None
            cell["found"].append({"episodes": number, "learner": learner, "memories": memories, "steps": steps})
    return cell


def main() -> None:
    warnings.filterwarnings("ignore", message=".*different steps become.*")
    for draw in DRAWS:
        for made in reversed(TRIED):  # the third game is the one in question
            for kind, name, parts, learn in jobs():
                there = {(cell["variant"], cell["game"], cell["draw"]) for cell in read(RESULTS)}
                if (name, made.name, draw) not in there:
                    cell = run(made, draw, kind, name, parts, learn)
                    add(RESULTS, cell)
                    print(json.dumps(cell), flush=True)


if __name__ == "__main__":
    main()
