"""The transform for TorchRL: specs, rollouts, batches of environments, a collector, a replay buffer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import corridor
import numpy as np
import pytest
import sharpwave as sw
import torch
from sharpwave.envs.gymnasium import ValueMemory
from sharpwave.envs.torchrl import ValueMemoryTransform
from tensordict import TensorDict
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.envs import SerialEnv, TransformedEnv
from torchrl.envs.libs.gym import GymWrapper
from torchrl.envs.utils import check_env_specs

PARTS = ("sharpwave_instrumental", "sharpwave_environment", "sharpwave_support")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def bare(limit: int = 40) -> GymWrapper:
    return GymWrapper(corridor.Corridor(limit), device="cpu")


def transform(store: sw.ValueStore, **options: Any) -> ValueMemoryTransform:
    return ValueMemoryTransform(store, corridor.as_they_are, **options)


def env(store: sw.ValueStore, limit: int = 40, **options: Any) -> TransformedEnv:
    return TransformedEnv(bare(limit), transform(store, **options))


def forward(tensordict: TensorDict) -> TensorDict:
    action = torch.zeros(*tensordict.batch_size, 2, dtype=torch.int64)
    action[..., 1] = 1
    return tensordict.set("action", action)


@pytest.mark.parametrize("batched", [False, True])
def test_torchrls_own_checker_accepts_it(batched: bool) -> None:
    store = corridor.store(walks=2)
    inner = SerialEnv(2, bare) if batched else bare()
    made = TransformedEnv(inner, transform(store))
    check_env_specs(made)
    assert set(PARTS) <= set(made.full_reward_spec.keys())
    made.close()


def test_a_rollout_is_paid_as_the_gymnasium_wrapper_pays() -> None:
    store = corridor.store(walks=2)
    made = env(store, discount=0.9, update_memory=False)
    rollout = made.rollout(40, forward)
    alone = ValueMemory(corridor.Corridor(), store, corridor.as_they_are, discount=0.9, update_memory=False)
    alone.reset()
    paid = [float(alone.step(1)[1]) for _ in range(corridor.CELLS - 1)]
    np.testing.assert_array_equal(rollout["next", "reward"].squeeze(-1).numpy(), np.array(paid, np.float32))
    np.testing.assert_array_equal(rollout["next", "sharpwave_environment"].squeeze(-1).numpy(), [0, 0, 0, 0, 1])
    assert (rollout["next", "sharpwave_support"] > 0.9).all()
    assert store.episodes_observed == 2


def test_a_batch_of_environments_keeps_its_episodes_apart() -> None:
    store = corridor.store()
    made = TransformedEnv(SerialEnv(3, bare), transform(store, sleep_every=2))

    def policy(tensordict: TensorDict) -> TensorDict:
        tensordict = forward(tensordict)
        tensordict["action"][1] = tensordict["action"][1].flip(-1)  # the second never gets anywhere
        return tensordict

    made.rollout(2 * (corridor.CELLS - 1), policy, break_when_any_done=False)
    made.close()
    assert store.episodes_observed == 4
    source, target, _ = store.edges()
    cells = dict(zip(store.ids.tolist(), store.keys.argmax(axis=1).tolist(), strict=True))
    assert [(cells[a], cells[b]) for a, b in zip(source.tolist(), target.tolist(), strict=True)] == [
        (n, n + 1) for n in range(corridor.CELLS - 1)
    ]


def test_a_collector_fills_a_buffer_that_is_relabelled_by_what_the_store_knows_later() -> None:
    store = corridor.store()
    made = env(store, discount=0.9)
    inside = made.transform
    collector = Collector(made, None, frames_per_batch=256, total_frames=512, init_random_frames=None)
    buffer = ReplayBuffer(storage=LazyTensorStorage(512), transform=inside.relabelling(), batch_size=64)
    for data in collector:
        buffer.extend(data)
    collector.shutdown()
    assert store.episodes_observed > 3
    store.replay()
    digest = store.digest()
    sample = buffer.sample()
    assert store.digest() == digest
    values = store.value(sample["observation"].numpy())[0][:, 0]
    after = store.value(sample["next", "observation"].numpy())[0][:, 0]
    after[sample["next", "terminated"].squeeze(-1).numpy()] = 0
    expected = sample["next", "sharpwave_environment"].squeeze(-1).numpy() + 0.9 * after - values
    np.testing.assert_allclose(sample["next", "reward"].squeeze(-1).numpy(), expected, atol=1e-6)
    assert np.abs(0.9 * after - values).max() > 0.05


@pytest.mark.parametrize("functional", ["progress", "coverage", "potential"])
def test_relabelled_episodes_earn_what_they_earned(functional: Any) -> None:
    store = corridor.store(walks=2)
    made = env(store, limit=6, functional=functional, update_memory=False)
    torch.manual_seed(0)
    made.set_seed(0)
    rollout = made.rollout(18, break_when_any_done=False).unsqueeze(0)
    assert int(rollout["next", "done"].sum()) >= 3
    again = made.transform.relabelling()(rollout.clone())
    ends = int(np.flatnonzero(rollout["next", "done"].numpy())[-1]) + 1  # the last episode goes on
    for key in ("reward", "sharpwave_instrumental"):
        np.testing.assert_allclose(again["next", key][0, :ends], rollout["next", key][0, :ends], atol=1e-6)


def test_single_transitions_have_no_coverage() -> None:
    made = env(corridor.store(walks=1), functional="coverage", update_memory=False)
    rollout = made.rollout(10, forward)
    with pytest.raises(ValueError, match="time dimension"):
        made.transform.relabelling()(rollout)


def test_in_evaluation_nothing_is_observed_and_it_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    store = corridor.store()
    made = env(store, update_memory=False)
    made.rollout(40, forward)
    assert store.episodes_observed == 0
    made.transform.update_memory = True
    made.rollout(40, forward)
    assert store.episodes_observed == 1
    made.transform.save(tmp_path)
    again = transform(corridor.store()).restore(tmp_path)
    assert again.store.digest() == store.digest()
