"""Gymnasium: a wrapper that pays an environment's steps from a store, and remembers its episodes there.

    env = ValueMemory(gym.make("CartPole-v1"), sw.ValueStore(sw.Config(dim=128, gamma=0.95)), embedder, discount=0.99)
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(action)

Put it outside of what ends episodes (`TimeLimit`, which `gym.make` puts on), so that it sees their ends.
"""

from __future__ import annotations

from typing import Any, SupportsFloat

from sharpwave._lazy import MissingExtra
from sharpwave.envs.observations import ObservationEmbedder, RandomFeatures, default_embedder, stack
from sharpwave.envs.running import Paid
from sharpwave.envs.sharing import Shared, unshared
from sharpwave.envs.step_reward import FreezableStoreMixin, StepReward
from sharpwave.results import ReplayReport

try:
    import gymnasium as gym
except ImportError as error:
    raise MissingExtra(f"gymnasium is needed for this ({error}): pip install 'sharpwave[gym]'") from None

__all__ = ["RandomFeatures", "StepReward", "ValueMemory", "sample_observations"]


class ValueMemory(FreezableStoreMixin, gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Adds ``weight`` times what the store pays to the reward, and observes the episodes that end.

    Observations, actions, ends and seeds pass through as they are. ``info`` gains, at every step,

        sharpwave/environment    the reward of the environment, as it gave it
        sharpwave/instrumental   what the store paid, before the weight
        sharpwave/support        σ of the observation, 0 where the store knows nothing
        sharpwave/value          Φ of the observation
        sharpwave/rarity         1/√m of the m-th step that its memory took in, if that is paid

    and at the last of an episode ``sharpwave/episode`` with its length and the sums of its parts.

    An episode that is given up by a `reset` before it ended is not observed.

    Wrappers that are given one store share it, and so does every environment that is made from the ``spec`` of one, and
    every deep copy; in one process. A process of its own has a client of a served store.

    Args:
        env: what to wrap.
        store: a `ValueStore` or a client of a served one.
        embedder: stacked observations (n, …) to vectors (n, d). None, for Box spaces with bounds: `RandomFeatures`
            scaled by the bounds, of the store's dimension.
        update_memory: whether episodes are observed and the store sleeps; `update_memory` sets it later, as
            NormalizeReward's ``update_running_mean``. Rewards are paid in any case.
        **options: of `StepReward`: functional, weight, rarity, discount, channel, reward_range, channel_weights, pays,
            remember, sleep_every, sleep, habituation.

    Raises:
        ValueError, sharpwave.EmbedderError: as `StepReward`.
        RuntimeError: the store is a copy of a parent process's, and would learn there.
        TypeError: (when its ``spec`` is pickled) the store is no served one.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        store: Any,
        embedder: ObservationEmbedder | None = None,
        *,
        update_memory: bool = True,
        **options: Any,
    ) -> None:
        # Gymnasium copies what it records, and records it again with every wrapper outside of this one.
        shared = {"store": store, "embedder": embedder, "habituation": options.get("habituation")}
        kept = {name: Shared(unshared(argument)) for name, argument in shared.items()}
        recorded: dict[str, Any] = {**options, **kept, "update_memory": update_memory}
        gym.utils.RecordConstructorArgs.__init__(self, **recorded)
        gym.Wrapper.__init__(self, env)
        store, embedder, options["habituation"] = (one.it for one in kept.values())
        if embedder is None:
            embedder = default_embedder(env.observation_space, store.dim)
        self.memory = StepReward(store, embedder, learn=update_memory, **options)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.memory.begin(stack([observation]))
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        paid = self.memory.step(stack([observation]), [float(reward)], [terminated], [truncated])
        return observation, float(paid.reward[0]), terminated, truncated, {**info, **told(paid, 0)}

    def sleep(self) -> ReplayReport:
        """Let the store sleep now."""
        return self.memory.sleep()


def told(paid: Paid, n: int) -> dict[str, Any]:
    """What ``info`` gains for environment ``n``."""
    found: dict[str, Any] = {
        f"sharpwave/{name}": float(getattr(paid, name)[n])
        for name in ("environment", "instrumental", "support", "value", "rarity")
    }
    if n in paid.episodes:
        found["sharpwave/episode"] = dict(paid.episodes[n])
    return found


def sample_observations(env: gym.Env[Any, Any], count: int = 512, seed: int = 0) -> Any:
    """``count`` observations of a policy that acts at random, stacked: what `RandomFeatures.fitted` needs.

    The environment is reset with ``seed``, and its action space seeded; reset it again afterwards.
    """
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    found = [observation]
    while len(found) < count:
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        found.append(observation)
        if terminated or truncated:
            observation, _ = env.reset()
            found.append(observation)
    return stack(found[:count])
