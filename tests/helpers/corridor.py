"""A corridor as a Gymnasium environment: one-hot cells, a reward of 1 at its far end, and a limit of time."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import sharpwave as sw

CELLS = 6


class Corridor(gym.Env[np.ndarray, int]):
    metadata = {"render_modes": []}

    def __init__(self, limit: int = 40) -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (CELLS,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.limit = limit

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.cell, self.time = 0, 0
        return one_hot(0), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.cell = max(self.cell + (1 if action else -1), 0)
        self.time += 1
        there = self.cell == CELLS - 1
        return one_hot(self.cell), float(there), there, not there and self.time >= self.limit, {}


def one_hot(cell: int) -> np.ndarray:
    return np.eye(CELLS, dtype=np.float32)[cell]


def as_they_are(observations: Any) -> np.ndarray:
    """An embedder for observations that are unit vectors already."""
    return np.asarray(observations, np.float32)


def store(walks: int = 0, **options: Any) -> sw.ValueStore:
    """A store for the corridor; `walks` straight walks to its end are known."""
    made = sw.ValueStore(sw.Config(dim=CELLS, gamma=0.9, min_novelty=0.5, **options))
    made.add_channel("reward")
    for _ in range(walks):
        made.observe(np.eye(CELLS, dtype=np.float32), drives={"reward": np.array([np.nan, *[0.0] * (CELLS - 2), 1.0])})
    if walks:
        made.replay()
    return made
