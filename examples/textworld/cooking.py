"""Cooking games that were never seen, after walkthroughs of others.

    python -m examples.textworld.cooking      # makes 40 games, learns and plays; ten minutes

Twenty games of the training split are shown, each by its walkthrough and by three episodes of a random player. Then
twenty of the test split are played, whose foods and recipes were not among them. The key says in addition what the
cookbook still asks for, which a player of the game can read there. Nothing was chosen on the games that are played.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import sharpwave as sw

from examples.textworld.data import Data, minilm
from examples.textworld.game import Game, Values
from examples.textworld.learners import Floats, Nearest, Store, nothing, probe, q_learning, remember
from examples.textworld.making import Cooking, make
from examples.textworld.study import EMBEDDINGS, add, read

RESULTS = Path(__file__).parent.parent / "results" / "textworld_cooking.jsonl"
PARTS = ("inventory", "recipe", "closed")
ROOMS = (1, 6)
SHOWN, UNSEEN = range(1, 21), range(101, 121)
RANDOM = 3
"""Episodes of a random player beside each walkthrough: what a probe tells demonstrations from."""


def learners(shown: Data, both: Data) -> dict[str, Values]:
    """Learned of the walkthroughs alone, and of them beside the random player's episodes."""
    near = Nearest(shown, tau=0.0)

    def nearest(keys: Any) -> Floats:
        return near(keys, 1)[1][:, 0]

    found: dict[str, Values] = {}
    for name, data in (("store", both), ("store, walkthroughs alone", shown)):
        tuned = sw.tune(data.steps, data.offsets, drives={"score": data.gains})
        found[name] = Store(remember(data, tuned.config).frozen(), data, {})
    return {
        **found,
        "probe": probe(both),
        "q_learning": q_learning(both),
        "nearest demonstration": nearest,
        "none": nothing,
    }


def main() -> None:
    warnings.filterwarnings("ignore", message=".*different steps become.*")
    for rooms in ROOMS:
        there = {(cell["rooms"], cell["game"]) for cell in read(RESULTS)}
        unseen = [Cooking(2, 2 if rooms > 1 else 1, rooms, seed, "test") for seed in UNSEEN]
        missing = [made for made in unseen if (rooms, made.name) not in there]
        if not missing:
            continue
        embed = minilm(EMBEDDINGS / "cooking.sqlite")
        demonstrations, wandered = [], []
        for seed in SHOWN:
            game = Game(make(Cooking(2, 2 if rooms > 1 else 1, rooms, seed, "train")), PARTS, rules=True)
            demonstrations.append(game.follow(game.walkthrough))
            wandered += game.random_episodes(seed, RANDOM)
        assert all(episode.won for episode in demonstrations)
        wandered = [episode for episode in wandered if episode.steps]
        family = learners(Data.of(demonstrations, embed), Data.of(demonstrations + wandered, embed))
        for made in missing:
            game = Game(make(made), PARTS)
            cell: dict[str, Any] = {
                "rooms": rooms,
                "game": made.name,
                "walkthrough": len(game.walkthrough),
                "walks": {},
            }
            for name, values in family.items():
                walk, _ = game.walk(values, made.seed)
                score = float(np.sum([step.gain for step in walk.steps]))
                cell["walks"][name] = {"steps": len(walk.steps) if walk.won else None, "score": round(score, 4)}
            add(RESULTS, cell)
            print(json.dumps(cell), flush=True)


if __name__ == "__main__":
    main()
