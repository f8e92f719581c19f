"""The wrapper and the callback for Stable-Baselines3, in real runs of PPO on a corridor."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import corridor
import numpy as np
import pytest
import sharpwave as sw
import torch
from sharpwave.envs.gymnasium import ValueMemory
from sharpwave.envs.sb3 import ValueMemoryCallback, VecValueMemory, memory_of
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecNormalize


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def venv(count: int = 4, limit: int = 40) -> Any:
    return make_vec_env(corridor.Corridor, count, seed=0, env_kwargs={"limit": limit})


def wrapped(store: sw.ValueStore, count: int = 4, limit: int = 40, **options: Any) -> VecValueMemory:
    return VecValueMemory(venv(count, limit), store, corridor.as_they_are, **options)


def model(memory: Any, **options: Any) -> PPO:
    settings: dict[str, Any] = {"n_steps": 32, "batch_size": 64, "n_epochs": 2, "seed": 0, "device": "cpu"}
    return PPO("MlpPolicy", memory, policy_kwargs={"net_arch": [16]}, **{**settings, **options})


def logged(made: PPO, folder: Path) -> dict[str, float]:
    lines = (folder / "progress.csv").read_text().splitlines()
    row = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    return {name: float(value) for name, value in row.items() if value}


def test_ppo_learns_the_corridor_and_the_store_its_values(tmp_path: Path) -> None:
    store = corridor.store()
    memory = wrapped(store, sleep_every=8)
    made = model(memory)
    made.set_logger(configure(str(tmp_path), ["csv"]))
    made.learn(768, callback=ValueMemoryCallback(sleep_every=256))
    made.logger.close()
    row = logged(made, tmp_path)
    assert row["sharpwave/episodes"] == store.episodes_observed > 8
    assert row["sharpwave/memories"] == len(store) == corridor.CELLS
    assert 0 < row["sharpwave/support"] <= 1
    assert 0 < row["sharpwave/value"] <= 1
    assert row["sharpwave/episode_environment"] > 0.5
    assert row["sharpwave/episode_length"] < 40
    assert row["sharpwave/sleep_residual"] <= 1e-4
    values = store.value(np.eye(corridor.CELLS, dtype=np.float32))[0][:, 0]
    assert (np.diff(values) > 0).all()


def test_many_environments_are_paid_as_each_would_be_alone() -> None:
    store = corridor.store(walks=2)
    options: dict[str, Any] = {"discount": 0.9}
    memory = wrapped(store, 3, 6, training=False, pay_in_evaluation=True, **options)
    alone = [
        ValueMemory(corridor.Corridor(6), store, corridor.as_they_are, update_memory=False, **options) for _ in range(3)
    ]
    memory.reset()
    for env in alone:
        env.reset()
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(40):
        actions = rng.integers(0, 2, 3)
        actions[0] = 1
        _, rewards, dones, infos = memory.step(actions)
        for n, env in enumerate(alone):
            _, reward, terminated, truncated, info = env.step(int(actions[n]))
            assert rewards[n] == np.float32(reward)
            assert dones[n] == (terminated or truncated)
            assert memory.get_original_reward()[n] == np.float32(info["sharpwave/environment"])
            if dones[n]:
                ends += 1
                assert infos[n]["sharpwave"] == info["sharpwave/episode"]
                env.reset()
    assert ends > 15


def test_the_observation_that_ended_an_episode_is_its_last_and_the_next_begins_its_own() -> None:
    store = corridor.store()
    memory = wrapped(store, 1)
    memory.reset()
    for _ in range(2 * (corridor.CELLS - 1)):
        memory.step(np.array([1]))
    assert store.episodes_observed == 2
    source, target, weight = store.edges()
    cells = store.keys.argmax(axis=1)
    ids = {int(one): int(cell) for one, cell in zip(store.ids, cells, strict=True)}
    assert [(ids[int(a)], ids[int(b)]) for a, b in zip(source, target, strict=True)] == [
        (n, n + 1) for n in range(corridor.CELLS - 1)
    ]
    np.testing.assert_allclose(weight, 1.0, atol=0.03)


def test_evaluation_pays_what_the_environment_pays_and_teaches_nothing() -> None:
    store = corridor.store(walks=2)
    made = model(wrapped(store))
    digest = store.digest()
    judge = wrapped(store, 2, training=False)
    mean, _ = evaluate_policy(made, judge, n_eval_episodes=6, deterministic=False)
    assert 0 <= mean <= 1
    assert store.digest() == digest
    frozen = wrapped(store, 2, 6, training=False)
    frozen.reset()
    paid = sum(float(frozen.step(np.array([1, 0]))[1].sum()) for _ in range(6))
    assert paid == 1.0
    paying = wrapped(store, 2, 6, training=False, pay_in_evaluation=True)
    paying.reset()
    assert sum(float(paying.step(np.array([1, 0]))[1].sum()) for _ in range(6)) != 1.0


def test_an_evaluation_callback_beside_it_changes_nothing(tmp_path: Path) -> None:
    digests = []
    for judged in (False, True):
        store = corridor.store()
        callbacks: list[Any] = [ValueMemoryCallback()]
        if judged:
            judge = wrapped(store, 2, training=False)
            callbacks.append(EvalCallback(judge, eval_freq=32, n_eval_episodes=4, log_path=str(tmp_path), verbose=0))
        model(wrapped(store)).learn(256, callback=callbacks)
        digests.append(store.digest())
    assert digests[0] == digests[1]


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    store = corridor.store()
    made = model(wrapped(store))
    made.learn(512, callback=ValueMemoryCallback(save_every=256, directory=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"steps-256", "steps-512", "last"}
    again = corridor.store()
    memory = wrapped(again)
    resumed = PPO.load(tmp_path / "steps-256" / "model", env=memory, device="cpu")
    kept = sw.ValueStore.load(tmp_path / "steps-256" / "snapshot.safetensors").digest()
    seen: list[str] = []
    restore = memory.memory.restore

    def watched(directory: Any, **options: Any) -> Any:
        restore(directory, **options)
        seen.append(again.digest())
        return memory.memory

    memory.memory.restore = watched  # type: ignore[method-assign]
    callback = ValueMemoryCallback(resume_from=tmp_path / "steps-256")
    resumed.learn(256, callback=callback, reset_num_timesteps=False)
    assert resumed.num_timesteps == 512
    assert seen == [kept]
    assert again.digest() != kept
    last = VecValueMemory.load(tmp_path / "last", venv(), corridor.store(), corridor.as_they_are)
    assert last.store.digest() == store.digest()
    assert last.memory.episodes == store.episodes_observed


def test_paths_stay_where_they_were_and_a_store_of_another_checkpoint_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "run")
    saving = ValueMemoryCallback(save_every=64, directory="kept")
    resuming = ValueMemoryCallback(resume_from="kept/steps-64")
    monkeypatch.chdir(tmp_path / "elsewhere")
    model(wrapped(corridor.store(), 2)).learn(128, callback=saving)
    kept = tmp_path / "run" / "kept"
    assert {path.name for path in kept.iterdir()} == {"steps-64", "steps-128", "last"}
    assert not list((tmp_path / "elsewhere").iterdir())
    later = PPO.load(kept / "steps-128" / "model", env=wrapped(corridor.store(), 2), device="cpu")
    with pytest.raises(ValueError, match=r"kept/steps-64/snapshot.safetensors is not the snapshot that was saved with"):
        later.learn(64, callback=resuming, reset_num_timesteps=False)
    store = corridor.store()
    right = PPO.load(kept / "steps-64" / "model", env=wrapped(store, 2), device="cpu")
    right.learn(64, callback=resuming, reset_num_timesteps=False)
    grown = store.episodes_observed
    right.learn(64, callback=resuming, reset_num_timesteps=False)  # it is restored once
    assert store.episodes_observed > grown > 0
    (kept / "last" / "snapshot.safetensors").write_bytes((kept / "steps-64" / "snapshot.safetensors").read_bytes())
    with pytest.raises(ValueError, match="is not the snapshot that was saved with"):
        VecValueMemory.load(kept / "last", venv(), corridor.store(), corridor.as_they_are)


def test_it_works_inside_a_normaliser() -> None:
    store = corridor.store()
    normaliser = VecNormalize(wrapped(store))
    assert memory_of(normaliser).store is store
    made = model(normaliser)
    made.learn(128, callback=ValueMemoryCallback())
    assert store.episodes_observed > 0
    assert set(store.keys.max(axis=1)) == {1.0}  # the keys are the cells, not their normalised shadows


def test_it_pickles_without_its_environments() -> None:
    memory = wrapped(corridor.store(walks=1), discount=0.9)
    copy = pickle.loads(pickle.dumps(memory))
    assert copy.store.digest() == memory.store.digest()
    copy.set_venv(venv())
    copy.reset()
    assert copy.step(np.ones(4, int))[1].shape == (4,)
    with pytest.raises(ValueError, match="already"):
        copy.set_venv(venv())


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="directory="):
        ValueMemoryCallback(save_every=10)
    with pytest.raises(ValueError, match="VecValueMemory"):
        model(venv()).learn(64, callback=ValueMemoryCallback())
    with pytest.raises(FileNotFoundError, match="nothing was saved"):
        model(wrapped(corridor.store())).learn(64, callback=ValueMemoryCallback(resume_from=tmp_path))
