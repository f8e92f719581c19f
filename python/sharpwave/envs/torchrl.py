"""TorchRL: a transform that pays an environment's steps from a store, and relabels what a replay buffer holds.

    env = TransformedEnv(GymEnv("CartPole-v1"), ValueMemoryTransform(store, embedder, discount=0.99))
    buffer = TensorDictReplayBuffer(storage=…, transform=transform.relabelling())

In an environment it is `StepReward`: it follows the episodes of every environment of the batch, observes those that
end, and sleeps. On what a buffer gives it pays transitions by what the store knows *now*, and learns nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sharpwave._lazy import MissingExtra
from sharpwave.envs.observations import ObservationEmbedder, RandomFeatures
from sharpwave.envs.step_reward import FreezableStoreMixin, StepReward

try:
    import torch
    from tensordict import TensorDictBase
    from torchrl.data.tensor_specs import Unbounded
    from torchrl.envs.transforms import Transform
except ImportError as error:
    raise MissingExtra(f"torchrl is needed for this ({error}): pip install 'sharpwave[torchrl]'") from None

__all__ = ["RandomFeatures", "StepReward", "ValueMemoryTransform"]


class ValueMemoryTransform(FreezableStoreMixin, Transform):
    """Adds ``weight`` times what the store pays to the reward, and writes the parts beside it.

    At every step the next tensordict gains ``<name>_instrumental`` (what the store paid, before the weight),
    ``<name>_environment`` (what the environment gave) and ``<name>_support`` (σ), each of the reward's shape.

    As a transform of a replay buffer (`forward`), potential pays single transitions; progress and coverage pay whole
    episodes, and need samples whose last batch dimension is time, each row of it from the beginning of an episode on
    (a `SliceSampler` with full trajectories). The reward in the buffer must be the environment's: store
    ``<name>_environment`` under the reward's name, or pass ``reward_key=("next", "<name>_environment")``.

    ``update_memory`` freezes it. TorchRL puts every environment, and what transforms it, into ``eval()``: a
    module's mode says nothing here.

    Args:
        store: a `ValueStore` or a client of a served one.
        embedder: stacked observations (n, …) as an array to vectors (n, d).
        observation_key, reward_key: where to look.
        name: what the new entries begin with.
        update_memory: whether episodes are observed and the store sleeps; the attribute changes it later.
        **options: of `StepReward`: functional, weight, rarity, discount, channel, reward_range, channel_weights, pays,
            remember, sleep_every, sleep, habituation.

    Raises:
        ValueError, sharpwave.EmbedderError: as `StepReward`.
    """

    def __init__(
        self,
        store: Any,
        embedder: ObservationEmbedder,
        *,
        observation_key: Any = "observation",
        reward_key: Any = "reward",
        name: str = "sharpwave",
        update_memory: bool = True,
        **options: Any,
    ) -> None:
        self_parts = [f"{name}_{part}" for part in ("instrumental", "environment", "support")]
        super().__init__(in_keys=[observation_key, reward_key], out_keys=[reward_key, *self_parts])
        self.observation_key, self.reward_key, self.name = observation_key, reward_key, name
        self.memory = StepReward(store, embedder, learn=update_memory, **options)

    # In an environment

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        shown = _rows(tensordict_reset.get(self.observation_key), tensordict_reset.batch_dims)
        asked: Any = tensordict
        which = None if asked is None else asked.get("_reset", None)
        self.memory.grow(len(shown))
        rows = np.arange(len(shown)) if which is None else np.flatnonzero(_array(which).reshape(len(shown), -1).any(1))
        self.memory.begin_some(rows.tolist(), shown[rows])
        return tensordict_reset

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        del tensordict
        reward = next_tensordict.get(self.reward_key)
        batch = next_tensordict.batch_dims
        shown = _rows(next_tensordict.get(self.observation_key), batch)
        terminated, truncated = (_flags(next_tensordict, name, len(shown)) for name in ("terminated", "truncated"))
        done = _flags(next_tensordict, "done", len(shown))
        paid = self.memory.step(shown, _array(reward).reshape(-1), terminated, truncated | (done & ~terminated))
        for key, values in (
            (self.reward_key, paid.reward),
            (f"{self.name}_instrumental", paid.instrumental),
            (f"{self.name}_environment", paid.environment),
            (f"{self.name}_support", paid.support),
        ):
            next_tensordict.set(
                key, torch.as_tensor(values, device=reward.device).reshape(reward.shape).to(reward.dtype)
            )
        return next_tensordict

    def transform_reward_spec(self, reward_spec: Any) -> Any:
        reward = reward_spec[self.reward_key]
        for key in self.out_keys:
            reward_spec[key] = Unbounded(shape=reward.shape, device=reward.device, dtype=reward.dtype)
        return reward_spec

    # On what a replay buffer gives

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Pay the transitions of a tensordict by what the store knows now; nothing is learned.

        Raises:
            ValueError: progress or coverage, of transitions without a time dimension.
        """
        following = tensordict.get("next")
        given = following.get(f"{self.name}_environment", None)
        reward = following.get(self.reward_key) if given is None else given
        batch = tensordict.batch_dims
        before = _rows(tensordict.get(self.observation_key), batch)
        after = _rows(following.get(self.observation_key), batch)
        terminated = _flags(following, "terminated", len(before))
        if self.memory.functional == "potential":
            pay = self.memory.relabel(before, after, terminated)
        else:
            if batch < 2:
                raise ValueError(f"{self.memory.functional!r} pays episodes: sample with a time dimension")
            done = _flags(following, "done", len(before))
            pay = self._pay_episodes(before, after, terminated, done, int(tensordict.batch_size[-1]))
        paid = torch.as_tensor(pay, device=reward.device).reshape(reward.shape).to(reward.dtype)
        following.set(f"{self.name}_environment", reward)
        following.set(f"{self.name}_instrumental", paid / (self.memory.weight or 1.0))
        following.set(self.reward_key, reward + paid)
        return tensordict

    def _pay_episodes(self, before: Any, after: Any, terminated: Any, done: Any, length: int) -> Any:
        """(n,) pay of transitions in rows of ``length``; an episode ends where it is done, and with its row."""
        pay = np.zeros(len(before), np.float32)
        count = np.arange(len(before))
        ends = np.flatnonzero(done | (count % length == length - 1))
        first = 0
        for end in ends:
            rows = np.concatenate([before[first : first + 1], after[first : end + 1]])
            paid = self.memory.relabel_episodes(rows, [0, len(rows)], [bool(terminated[end])])
            pay[first : end + 1] = paid[1:]
            first = int(end) + 1
        return pay

    def relabelling(self) -> ValueMemoryTransform:
        """This transform, of the same store, for a replay buffer: a transform has one place only."""
        made = object.__new__(type(self))
        Transform.__init__(made, in_keys=list(self.in_keys), out_keys=list(self.out_keys))
        made.observation_key, made.reward_key, made.name = self.observation_key, self.reward_key, self.name
        made.memory = self.memory
        return made


def _array(tensor: Any) -> Any:
    return tensor.detach().cpu().numpy()


def _rows(tensor: Any, batch_dims: int) -> Any:
    """(n, …) of a tensor whose leading dimensions are the batch."""
    array = _array(tensor)
    return array.reshape(-1, *array.shape[batch_dims:])


def _flags(tensordict: TensorDictBase, name: str, count: int) -> Any:
    found = tensordict.get(name, None)
    return np.zeros(count, bool) if found is None else _array(found).reshape(count, -1).any(axis=1)
