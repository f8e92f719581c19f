"""Stable-Baselines3: a wrapper of vectorised environments, and a callback that keeps its store with the run.

    memory = VecValueMemory(make_vec_env("CartPole-v1", 8), store, embedder, discount=0.99)
    model = PPO("MlpPolicy", memory, gamma=0.99)
    model.learn(100_000, callback=ValueMemoryCallback(save_every=10_000, directory="runs/a"))

Inside of `VecNormalize` it pays in the environment's units and the sum is normalised; outside of it the observations
that it sees move with the normaliser's mean, and the keys of a store must not: put it inside.
"""

from __future__ import annotations

import inspect
import os
from collections import deque
from pathlib import Path
from typing import Any, Self

import numpy as np

from sharpwave import _coerce
from sharpwave._lazy import MissingExtra
from sharpwave.envs.observations import ObservationEmbedder, RandomFeatures, default_embedder, stack
from sharpwave.envs.running import Paid
from sharpwave.envs.step_reward import StepReward, StoreMixin
from sharpwave.results import ReplayReport
from sharpwave.reward.checkpoint import checksum
from sharpwave.store import SNAPSHOT

try:
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
except ImportError as error:
    raise MissingExtra(f"stable_baselines3 is needed for this ({error}): pip install 'sharpwave[gym]'") from None

__all__ = ["RandomFeatures", "StepReward", "ValueMemoryCallback", "VecValueMemory"]

MARK = "sharpwave_snapshot"
PARTS = ("environment", "instrumental", "support", "value", "rarity")


class VecValueMemory(StoreMixin, VecEnvWrapper):
    """Adds ``weight`` times what the store pays to the rewards, and observes the episodes that end.

    ``training`` is as VecNormalize's: False freezes the store, and rewards are then those of the environment alone
    (``pay_in_evaluation=True``: paid as in training), so that evaluation measures the task. The infos of an environment
    whose episode ended gain ``sharpwave`` with its length and the sums of its parts.

    Args:
        venv: what to wrap.
        store: a `ValueStore` or a client of a served one.
        embedder: stacked observations (n, …) to vectors (n, d). None, for Box spaces with bounds: `RandomFeatures`
            scaled by the bounds, of the store's dimension.
        training: whether episodes are observed and the store sleeps.
        pay_in_evaluation: whether rewards contain what the store pays while ``training`` is False.
        **options: of `StepReward`: functional, weight, rarity, discount, channel, reward_range, channel_weights, pays,
            remember, sleep_every, sleep, habituation.
    """

    def __init__(
        self,
        venv: VecEnv,
        store: Any,
        embedder: ObservationEmbedder | None = None,
        *,
        training: bool = True,
        pay_in_evaluation: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(venv)
        if embedder is None:
            embedder = default_embedder(venv.observation_space, store.dim)
        self.memory = StepReward(store, embedder, learn=training, **options)
        self.pay_in_evaluation = bool(pay_in_evaluation)
        self.old_reward = np.zeros(venv.num_envs, np.float32)
        self.parts: Paid | None = None

    @property
    def training(self) -> bool:
        """Whether episodes are observed and the store sleeps."""
        return self.memory.learning

    @training.setter
    def training(self, setting: bool) -> None:
        self.memory.learning = bool(setting)

    def reset(self) -> Any:
        observations = self.venv.reset()
        self.memory.begin(observations)
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        truncated = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos])
        shown = _last_shown(observations, dones, infos)
        paid = self.memory.step(shown, rewards, dones & ~truncated, dones & truncated)
        ended = np.flatnonzero(dones)
        self.memory.begin_some(ended.tolist(), _rows(observations, ended))
        for n, sums in paid.episodes.items():
            infos[n]["sharpwave"] = sums
        self.parts, self.old_reward = paid, paid.environment
        pays = self.training or self.pay_in_evaluation
        return observations, paid.reward if pays else paid.environment.copy(), dones, infos

    def get_original_reward(self) -> Any:
        """(n,) what the environments gave in the last step."""
        return self.old_reward.copy()

    @classmethod
    def load(
        cls,
        directory: str | os.PathLike[str],
        venv: VecEnv,
        store: Any,
        embedder: ObservationEmbedder | None = None,
        **options: Any,
    ) -> Self:
        """A wrapper that goes on from what was saved; ``store`` becomes what it was. Arguments as when it was made."""
        made = cls(venv, store, embedder, **options)
        return made.restore(directory)

    # VecEnvWrapper hands down what it does not know; a copy without its environments travels to another process.

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("venv", "class_attributes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def set_venv(self, venv: VecEnv) -> None:
        """Wrap environments again, after unpickling."""
        if "venv" in self.__dict__:
            raise ValueError("this wrapper has its environments already")
        self.venv = venv
        self.num_envs = venv.num_envs
        self.render_mode = venv.render_mode
        self.class_attributes = dict(inspect.getmembers(type(self)))


def _last_shown(observations: Any, dones: Any, infos: list[dict[str, Any]]) -> Any:
    """Observations that belong to the step: of an episode that ended its last, not the first of the next."""
    ended = np.flatnonzero(dones)
    if not len(ended):
        return observations
    last = stack([infos[n]["terminal_observation"] for n in ended])
    return _put(observations, ended, last)


def _put(rows: Any, which: Any, new: Any) -> Any:
    if isinstance(rows, dict):
        return {key: _put(rows[key], which, new[key]) for key in rows}
    if isinstance(rows, tuple):
        return tuple(_put(one, which, other) for one, other in zip(rows, new, strict=True))
    out = np.array(rows)
    out[which] = new
    return out


def _rows(observations: Any, which: Any) -> Any:
    if isinstance(observations, dict):
        return {key: _rows(value, which) for key, value in observations.items()}
    if isinstance(observations, tuple):
        return tuple(_rows(one, which) for one in observations)
    return observations[which]


class ValueMemoryCallback(BaseCallback):
    """Sleeps, saves, restores and logs a `VecValueMemory` with its run.

    Logged under ``sharpwave/``: the means of environment, instrumental, support, value and rarity since the last log,
    the mean sums of the last 100 episodes, how many memories and episodes there are, and what the last sleep did.

    Args:
        sleep_every: environment steps from one sleep to the next, beside those that the wrapper's ``sleep_every``
            episodes bring; 0: none.
        save_every: environment steps from one checkpoint to the next; 0: none.
        directory: where checkpoints go, as ``<directory>/steps-<n>``; and ``<directory>/last`` at the end.
        save_model: whether the checkpoint holds the model (``model.zip``) too.
        resume_from: a checkpoint whose store is restored when training begins, the first time.
        verbose: as for every callback of Stable-Baselines3.

    Raises:
        ValueError: ``save_every`` without a directory; (when training begins) no `VecValueMemory` around the model's
            environments, or the store of ``resume_from`` is not the one that the model was saved with.
    """

    def __init__(
        self,
        *,
        sleep_every: int = 0,
        save_every: int = 0,
        directory: str | os.PathLike[str] | None = None,
        save_model: bool = True,
        resume_from: str | os.PathLike[str] | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.sleep_every = _coerce.count("sleep_every", sleep_every)
        self.save_every = _coerce.count("save_every", save_every)
        self.directory = None if directory is None else Path(directory).absolute()
        if self.save_every and self.directory is None:
            raise ValueError("save_every needs directory=")
        self.save_model = save_model
        self.resume_from = None if resume_from is None else Path(resume_from).absolute()
        self._sums: dict[str, list[float]] = {}
        self._episodes: deque[dict[str, float]] = deque(maxlen=100)
        self._slept = self._saved = 0

    def _init_callback(self) -> None:
        self.memory = memory_of(self.training_env)

    def _on_training_start(self) -> None:
        if self.resume_from is not None:
            self.memory.memory.restore(self.resume_from, snapshot=getattr(self.model, MARK, None))
            self.resume_from = None
            # The model holds the observations of a reset that came before: the episodes begin with them.
            last = self.model._last_obs  # type: ignore[attr-defined]
            self.memory.memory.begin(last)
        self._slept = self._saved = self.num_timesteps

    def _on_step(self) -> bool:
        paid = self.memory.parts
        if paid is not None:
            for name in PARTS:
                self._sums.setdefault(name, []).append(float(np.mean(getattr(paid, name))))
            self._episodes.extend(paid.episodes.values())
        if self.sleep_every and self.num_timesteps - self._slept >= self.sleep_every:
            self._slept = self.num_timesteps
            self.memory.memory.sleep()
        if self.save_every and self.num_timesteps - self._saved >= self.save_every:
            self._saved = self.num_timesteps
            self._save(f"steps-{self.num_timesteps}")
        return True

    def _on_rollout_end(self) -> None:
        for name, values in self._sums.items():
            self.logger.record(f"sharpwave/{name}", float(np.mean(values)))
        self._sums.clear()
        for name in ("length", "environment", "instrumental"):
            if self._episodes:
                mean = float(np.mean([one[name] for one in self._episodes]))
                self.logger.record(f"sharpwave/episode_{name}", mean)
        self.logger.record("sharpwave/memories", len(self.memory.store))
        self.logger.record("sharpwave/episodes", self.memory.memory.episodes)
        slept: ReplayReport | None = self.memory.memory.last_sleep
        if slept is not None:
            for name in ("backups", "residual", "seconds"):
                self.logger.record(f"sharpwave/sleep_{name}", float(getattr(slept, name)))

    def _on_training_end(self) -> None:
        if self.directory is not None:
            self._save("last")

    def _save(self, name: str) -> None:
        assert self.directory is not None
        folder = self.memory.save(self.directory / name)
        if self.save_model:
            setattr(self.model, MARK, checksum(folder / SNAPSHOT))  # its attributes are saved with it
            self.model.save(folder / "model")


def memory_of(venv: VecEnv | None) -> VecValueMemory:
    """The `VecValueMemory` among the wrappers of environments.

    Raises:
        ValueError: there is none.
    """
    found = venv
    while isinstance(found, VecEnvWrapper):
        if isinstance(found, VecValueMemory):
            return found
        found = found.venv
    raise ValueError("the model's environments are not wrapped in a VecValueMemory")
