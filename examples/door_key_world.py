"""MiniGrid's DoorKey (6 × 6) for many environments at once, without pictures: fifty times as many steps a second.

The layout is MiniGrid's own, of one seed, and the same in every episode. The observation is what matters of it then:
where the agent is (one-hot column and row), which way it looks (one-hot), whether it has the key and whether the door
is open (0 or 2). `tests/examples/test_door_key.py` plays both side by side.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401  (registers the environments)
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

ENVIRONMENT = "MiniGrid-DoorKey-6x6-v0"
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DONE = range(7)
WAYS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])


class DoorKey(VecEnv):
    """``count`` agents, each in a world of its own with the layout that MiniGrid makes of the seed ``layout``."""

    def __init__(self, count: int, layout: int) -> None:
        world: Any = gym.make(ENVIRONMENT, disable_env_checker=True).unwrapped
        world.reset(seed=layout)
        self.size, self.limit = world.width, world.max_steps
        self.start, self.faced = np.array(world.agent_pos), world.agent_dir
        places = {"wall": list[tuple[int, int]](), "door": [], "key": [], "goal": []}
        for x in range(self.size):
            for y in range(self.size):
                thing = world.grid.get(x, y)
                if thing is not None:
                    places[thing.type].append((x, y))
        self.walls = np.zeros((self.size, self.size), bool)
        self.walls[tuple(np.array(places["wall"]).T)] = True
        self.door, self.lies, self.goal = (np.array(places[name][0]) for name in ("door", "key", "goal"))
        self.at, self.key = np.zeros((count, 2), int), np.zeros((count, 2), int)
        self.facing, self.time = np.zeros(count, int), np.zeros(count, int)
        self.locked, self.open = np.zeros(count, bool), np.zeros(count, bool)
        space = gym.spaces.Box(0.0, 2.0, (2 * self.size + 6,), np.float32)
        super().__init__(count, space, gym.spaces.Discrete(7))

    def reset(self) -> NDArray[np.float32]:
        self._begin(np.ones(self.num_envs, bool))
        return self.observations()

    def _begin(self, which: NDArray[np.bool_]) -> None:
        self.at[which], self.facing[which], self.key[which] = self.start, self.faced, self.lies
        self.time[which], self.locked[which], self.open[which] = 0, True, False

    def observations(self) -> NDArray[np.float32]:
        """(n, 2·size + 6)"""
        rows, all_of = np.zeros((self.num_envs, 2 * self.size + 6), np.float32), np.arange(self.num_envs)
        rows[all_of, self.at[:, 0]] = rows[all_of, self.size + self.at[:, 1]] = 1
        rows[all_of, 2 * self.size + self.facing] = 1
        rows[:, -2] = 2 * self.carrying
        rows[:, -1] = 2 * self.open
        return rows

    @property
    def carrying(self) -> NDArray[np.bool_]:
        """(n,) whether the agent has the key: then it lies nowhere."""
        return self.key[:, 0] < 0

    def step_async(self, actions: NDArray[np.int64]) -> None:
        self.actions = np.asarray(actions)

    def step_wait(self) -> Any:
        did, ahead = self.actions, self.at + WAYS[self.facing]
        wall = self.walls[ahead[:, 0], ahead[:, 1]]
        door, goal, key = ((ahead == where).all(axis=1) for where in (self.door, self.goal, self.key))
        self.time += 1
        self.facing = (self.facing + (did == RIGHT) - (did == LEFT)) % 4
        goes = (did == FORWARD) & ~wall & ~key & (~door | self.open)
        self.at[goes] = ahead[goes]
        had = self.carrying
        self.key[(did == PICKUP) & key] = -1
        drops = (did == DROP) & had & ~(wall | door | goal)
        self.key[drops] = ahead[drops]
        turns = (did == TOGGLE) & door & (~self.locked | had)
        self.open ^= turns
        self.locked &= ~turns
        over = goes & goal
        rewards = np.where(over, 1 - 0.9 * self.time / self.limit, 0.0).astype(np.float32)
        done = over | (self.time >= self.limit)
        infos: list[dict[str, Any]] = [{} for _ in did]
        shown = self.observations()
        if done.any():
            for n in np.flatnonzero(done):
                ended = {"r": float(rewards[n]), "l": int(self.time[n]), "t": 0.0}
                cut = not bool(over[n])
                infos[n] = {"terminal_observation": shown[n].copy(), "TimeLimit.truncated": cut, "episode": ended}
            self._begin(done)
            shown = self.observations()
        return shown, rewards, done, infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:  # noqa: ARG002
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:  # noqa: ARG002
        raise AttributeError(f"{attr_name}: nothing of these worlds can be set")

    def env_method(self, method_name: str, *_: Any, **__: Any) -> list[Any]:
        raise AttributeError(f"{method_name}: these worlds are no objects of their own")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:  # noqa: ARG002
        return [False] * self.num_envs
