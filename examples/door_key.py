"""A key, a door and a goal: PPO alone, with a bonus for novelty, and with what a store pays.

MiniGrid's DoorKey (6 × 6): find the key, pick it up, open the door with it, go to the goal. The only reward is at the
goal, and it is small when it took long. Each run has a layout of its own, which stays the same over its episodes.

    python -m examples.door_key --tune      # the settings below, on seeds that are not reported
    python -m examples.door_key             # runs what is missing of 5 arms × 5 seeds, then reports
    python -m examples.door_key --report    # table and plot from the results alone

The arms have the same PPO (Stable-Baselines3) and differ in what is added to the reward:

    ppo        nothing
    count      β/√n(s), n the times that the state was met in the run (Bellemare et al. 2016, Strehl & Littman 2008)
    potential  w·(γΦ(s') − Φ(s)): the store remembers the episodes that reached the goal
    novelty    β/√m(s): the store counts what it meets, m the steps that the nearest memory took in
    both       potential and novelty, of one store

`count` is told what a state is: it compares the numbers of the observation. `novelty` is not: the store's gate decides.

Every arm but `both` had three tries on a seed of its own; PPO's were its entropy coefficient, of which the best for PPO
alone is that of all arms. `both` has what was taken for its two parts.

A run is one line of the results, written when it is over; a run that was stopped is made again. The curve is the mean
reward *of the environment* over the last 50 training episodes, after every rollout of 2048 steps. A run whose last ten
rollouts were all at 0.95 or more ends there (`ran`), and its curve goes on at the last value.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import sharpwave as sw
import torch
from sharpwave.envs.sb3 import RandomFeatures, VecValueMemory
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from examples.door_key_world import DoorKey

STEPS, ENVS, ROLLOUT = 198_656, 32, 64
SEEDS, TUNING_SEEDS = range(5), range(100, 101)
THRESHOLD, SETTLED = 0.9, 0.95
RESULTS = Path(__file__).parent / "results" / "door_key.jsonl"
PLOT = Path(__file__).parent.parent / "docs" / "img" / "door-key.svg"

# What `--tune` tries, and what is used: the highest mean reward. The bonuses were tried with TRIED_ENTROPY.
TRIED: dict[str, list[float]] = {
    "ppo": [0.003, 0.01, 0.03],
    "count": [0.005, 0.02, 0.05],
    "potential": [0.3, 1.0, 3.0],
    "novelty": [0.005, 0.02, 0.05],
}
TRIED_ENTROPY = 0.01
TAKEN = {"ppo": 0.003, "count": 0.02, "potential": 1.0, "novelty": 0.02, "both": 1.0}
COLOURS = {"ppo": "#888888", "count": "#cc7a00", "potential": "#0066aa", "novelty": "#aa3377", "both": "#117733"}
PPO_SETTINGS: dict[str, Any] = {
    "n_steps": ROLLOUT,
    "batch_size": 512,
    "n_epochs": 4,
    "learning_rate": 1e-3,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "device": "cpu",
}


class Count(VecEnvWrapper):
    """Pays β/√n for the n-th meeting with a state."""

    def __init__(self, venv: VecEnv, beta: float) -> None:
        super().__init__(venv)
        self.beta, self.met = beta, dict[bytes, int]()

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        paid = np.array(rewards, np.float32)
        for n, shown in enumerate(observations):
            state = np.asarray(infos[n]["terminal_observation"] if dones[n] else shown).tobytes()
            self.met[state] = self.met.get(state, 0) + 1
            paid[n] += self.beta / self.met[state] ** 0.5
        return observations, paid, dones, infos


def with_store(venv: VecEnv, weight: float, rarity: float) -> VecValueMemory:
    """A store of states: one apart in one coordinate have cosine .37, and are memories of their own."""
    count = int(np.prod(venv.observation_space.shape or (1,)))
    embedder = RandomFeatures(np.zeros(count), np.ones(count), dim=256, bandwidth=count**-0.5)
    store = sw.ValueStore(sw.Config(dim=256, gamma=0.97, min_novelty=0.3, keep_episodes=False))
    options: dict[str, Any] = {"discount": PPO_SETTINGS["gamma"], "remember": "rewarded", "sleep_every": 128}
    return VecValueMemory(venv, store, embedder, weight=weight, rarity=rarity, **options)


class Curve(BaseCallback):
    """Notes the reward of the environment after every rollout, shows how far the run is, and ends it once settled."""

    def __init__(self, name: str, total: int) -> None:
        super().__init__()
        self.name, self.total, self.points, self.began = name, total, list[list[float]](), time.time()

    @property
    def settled(self) -> bool:
        """Whether the last ten rollouts all were as good as it gets."""
        return len(self.points) >= 10 and all(reward >= SETTLED for _, reward in self.points[-10:])

    def _on_step(self) -> bool:
        return not self.settled

    def _on_rollout_end(self) -> None:
        ended = [episode["r"] for episode in self.model.ep_info_buffer or ()][-50:]
        self.points.append([self.num_timesteps, float(np.mean(ended)) if ended else 0.0])
        done = self.num_timesteps / self.total
        bar = "█" * round(20 * done) + "·" * (20 - round(20 * done))
        print(f"\r{self.name:24} {bar} {self.points[-1][1]:.3f} {time.time() - self.began:4.0f} s", end="", flush=True)


def run(arm: str, seed: int, setting: float, entropy: float, steps: int) -> dict[str, Any]:
    """One run; ``setting`` is the arm's own (of `both`, the weight of its potential)."""
    torch.set_num_threads(1)
    torch.distributions.Distribution.set_default_validate_args(False)
    began = time.process_time()
    venv: VecEnv = DoorKey(ENVS, layout=seed)
    memory: VecValueMemory | None = None
    if arm == "count":
        venv = Count(venv, setting)
    elif arm != "ppo":
        weight = 0.0 if arm == "novelty" else setting
        rarity = {"potential": 0.0, "novelty": setting, "both": TAKEN["novelty"]}[arm]
        venv = memory = with_store(venv, weight, rarity)
    curve = Curve(f"{arm} {setting:g}, seed {seed}", steps)
    network = {"net_arch": [64, 64]}
    model = PPO("MlpPolicy", venv, seed=seed, ent_coef=entropy, policy_kwargs=network, **PPO_SETTINGS)
    model.learn(steps, callback=curve)
    print()
    ran, size = int(curve.points[-1][0]), ENVS * ROLLOUT
    curve.points += [[at, curve.points[-1][1]] for at in range(ran + size, steps + 1, size)]
    memories = len(memory.store) if memory is not None else 0
    venv.close()
    seconds = round(time.process_time() - began, 1)
    found = {"arm": arm, "seed": seed, "setting": setting, "ran": ran, "memories": memories, "cpu": seconds}
    return {**found, "curve": curve.points}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def reached(curve: list[list[float]]) -> float:
    """The steps after which the mean of the last 50 episodes first was at the threshold; infinite if it never was."""
    return next((steps for steps, reward in curve if reward >= THRESHOLD), float("inf"))


def work(path: Path, jobs: list[tuple[str, int, float]], entropy: float, steps: int = STEPS) -> None:
    there = {(one["arm"], one["seed"], one["setting"]) for one in read(path)}
    path.parent.mkdir(parents=True, exist_ok=True)
    for arm, seed, setting in jobs:
        if (arm, seed, setting) not in there:
            line = json.dumps(run(arm, seed, setting, setting if arm == "ppo" else entropy, steps))
            with path.open("a") as file:
                file.write(line + "\n")


def interval(values: np.ndarray, draws: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    """95 % of the bootstrap of the mean over the first axis."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high


def table(results: list[dict[str, Any]]) -> str:
    head = f"| arm | setting | runs | steps to {THRESHOLD}: median (each) | mean reward (95 %) | CPU seconds |"
    lines = [head, "|---|---|---|---|---|---|"]
    for arm, setting in sorted({(one["arm"], one["setting"]) for one in results}, key=lambda x: (x[0] != "ppo", x)):
        runs = sorted(
            (one for one in results if (one["arm"], one["setting"]) == (arm, setting)), key=lambda one: one["seed"]
        )
        when = [reached(one["curve"]) for one in runs]
        area = np.array([np.mean([reward for _, reward in one["curve"]]) for one in runs])
        low, high = interval(area)
        said = ", ".join("never" if w == float("inf") else f"{w / 1000:.0f}k" for w in when)
        middle = float(np.median(when))
        median = "never" if middle == float("inf") else f"{middle / 1000:.0f}k"
        lines.append(
            f"| {arm} | {setting:g} | {len(runs)} | {median} ({said}) | {area.mean():.2f} ({low:.2f}–{high:.2f}) "
            f"| {np.median([one['cpu'] for one in runs]):.0f} |"
        )
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "door-key"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for arm, colour in COLOURS.items():
        runs = [one["curve"] for one in results if one["arm"] == arm and one["setting"] == TAKEN[arm]]
        if runs:
            curves = np.array(runs)[:, :, 1]
            steps = np.array(runs[0])[:, 0] / 1000
            low, high = interval(curves)
            axes.plot(steps, curves.mean(axis=0), color=colour, label=f"{arm} ({len(runs)} seeds)")
            axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.axhline(THRESHOLD, color="black", linewidth=0.5, linestyle=":")
    axes.set(xlabel="environment steps (thousands)", ylabel="reward of the environment", ylim=(0, 1))
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", action="store_true", help="the settings, on seeds that are not reported")
    parser.add_argument("--report", action="store_true", help="run nothing: table and plot from the results")
    arguments = parser.parse_args()
    path = RESULTS.with_stem("door_key_tuning") if arguments.tune else RESULTS
    if not arguments.report:
        if arguments.tune:
            jobs = [(arm, seed, setting) for seed in TUNING_SEEDS for arm in TRIED for setting in TRIED[arm]]
        else:
            jobs = [(arm, seed, TAKEN[arm]) for seed in SEEDS for arm in TAKEN]
        work(path, jobs, TRIED_ENTROPY if arguments.tune else TAKEN["ppo"])
    print(table(read(path)))
    if not arguments.tune:
        plot(read(path), PLOT)


if __name__ == "__main__":
    main()
