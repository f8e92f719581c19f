"""The worlds of `examples/door_key_world.py` are MiniGrid's, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401  (registers the environments)
import numpy as np

from examples import door_key
from examples.door_key_world import ENVIRONMENT, DoorKey


def seen(world: Any, size: int) -> np.ndarray:
    """What `DoorKey.observations` says, of MiniGrid's own objects."""
    row = np.zeros(2 * size + 6, np.float32)
    row[world.agent_pos[0]] = row[size + world.agent_pos[1]] = row[2 * size + world.agent_dir] = 1
    (door,) = (thing for thing in world.grid.grid if thing is not None and thing.type == "door")
    row[-2], row[-1] = 2 * (world.carrying is not None), 2 * door.is_open
    return row


def test_the_worlds_are_those_of_minigrid() -> None:
    rng = np.random.default_rng(0)
    met = {"took": 0, "dropped": 0, "opened": 0, "closed": 0, "goal": 0, "time": 0}
    for layout in range(5):
        here = DoorKey(1, layout)
        there: Any = gym.make(ENVIRONMENT, disable_env_checker=True)
        there.reset(seed=layout)
        world = there.unwrapped
        world.gen_obs = dict  # nobody looks at the picture
        before = here.reset()[0]
        np.testing.assert_array_equal(before, seen(world, here.size))
        for _ in range(2000):
            action = int(rng.choice(7, p=[0.14, 0.14, 0.4, 0.12, 0.02, 0.16, 0.02]))
            shown, rewards, dones, infos = here.step(np.array([action]))
            _, reward, terminated, truncated, _ = there.step(action)
            last = infos[0]["terminal_observation"] if dones[0] else shown[0]
            np.testing.assert_array_equal(last, seen(world, here.size))
            assert rewards[0] == np.float32(reward)
            assert dones[0] == (terminated or truncated)
            met["took"] += last[-2] > before[-2]
            met["dropped"] += last[-2] < before[-2]
            met["opened"] += last[-1] > before[-1]
            met["closed"] += last[-1] < before[-1]
            before = shown[0]
            if dones[0]:
                assert infos[0]["TimeLimit.truncated"] == (truncated and not terminated)
                assert infos[0]["episode"]["l"] == world.step_count
                met["goal"] += terminated
                met["time"] += truncated
                there.reset(seed=layout)
    assert all(met.values()), met


def test_every_arm_runs_and_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    jobs = [(arm, 0, setting) for arm, setting in door_key.TAKEN.items()]
    door_key.work(path, jobs, door_key.TAKEN["ppo"], steps=2048)
    door_key.work(path, jobs, door_key.TAKEN["ppo"], steps=2048)  # all is there: nothing is made again
    results = door_key.read(path)
    assert [one["arm"] for one in results] == list(door_key.TAKEN)
    assert all([steps for steps, _ in one["curve"]] == [2048] for one in results)
    met = {one["arm"]: one["memories"] for one in results}
    assert met["ppo"] == met["count"] == 0
    assert met["novelty"] > 20  # it counts what it meets; the potential knows what succeeded
    assert met["both"] > 20
    assert len(door_key.table(results).splitlines()) == 2 + len(door_key.TAKEN)
    door_key.plot(results, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_steps_to_the_threshold_and_intervals() -> None:
    assert door_key.reached([[2048, 0.2], [4096, 0.91], [6144, 0.5]]) == 4096
    assert door_key.reached([[2048, 0.2]]) == float("inf")
    low, high = door_key.interval(np.array([[0.0, 0.5], [1.0, 0.5], [0.0, 0.5], [1.0, 0.5]]))
    assert low[0] < 0.5 < high[0]
    assert low[1] == high[1] == 0.5
