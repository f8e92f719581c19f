"""The Gymnasium wrapper, on real environments: what it pays is what the model says, and freezing it freezes it."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import corridor
import gymnasium as gym
import numpy as np
import pytest
import sharpwave as sw
from gymnasium.utils.env_checker import check_env
from sharpwave.envs.gymnasium import RandomFeatures, StepReward, ValueMemory, sample_observations

FORWARD = [1] * (corridor.CELLS - 1)
WANDERING = [1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1]


def wrapped(store: sw.ValueStore, limit: int = 40, **options: Any) -> ValueMemory:
    return ValueMemory(corridor.Corridor(limit), store, corridor.as_they_are, **options)


def episode(env: ValueMemory, actions: list[int]) -> tuple[list[float], np.ndarray, dict[str, Any]]:
    """Rewards, observations (T + 1, d) and the last info of one episode; it must end with the last action."""
    observation, _ = env.reset(seed=0)
    rewards, seen, info, done = [], [observation], {}, False
    for action in actions:
        assert not done
        observation, reward, terminated, truncated, info = env.step(action)
        rewards.append(float(reward))
        seen.append(observation)
        done = terminated or truncated
    assert done
    return rewards, np.stack(seen), info


def warned(env: gym.Env[Any, Any]) -> set[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env, skip_render_check=True)
    return {str(warning.message) for warning in caught if "different from the unwrapped" not in str(warning.message)}


@pytest.mark.parametrize("name", ["CartPole-v1", "MountainCarContinuous-v0"])
def test_gymnasiums_own_checker_finds_nothing_that_the_bare_environment_lacks(name: str) -> None:
    env = gym.make(name)
    embedder = RandomFeatures.fitted(sample_observations(env), dim=32)
    memory = ValueMemory(gym.make(name), sw.ValueStore(sw.Config(dim=32)), embedder)
    assert warned(memory) == warned(gym.make(name))
    for seed in range(2):  # and with a store that knows something
        memory.reset(seed=seed)
        memory.action_space.seed(seed)
        for _ in range(60):
            if any(memory.step(memory.action_space.sample())[2:4]):
                memory.reset()
    memory.sleep()
    assert warned(memory) == warned(gym.make(name))


def test_potential_is_the_models_step_by_step_and_telescopes() -> None:
    store = corridor.store(walks=2)
    env = wrapped(store, discount=0.9, weight=2.0, update_memory=False)
    rewards, seen, info = episode(env, WANDERING)
    given = np.zeros(len(rewards))
    given[-1] = 1.0
    scores = store.score(seen, functional="potential", discount=0.9, context=1)
    np.testing.assert_allclose((np.array(rewards) - given) / 2, scores.step[1:], atol=1e-6)
    values, _ = store.value(seen)
    assert values[0, 0] > 0.3
    discounted = sum(0.9**t * pay for t, pay in enumerate((np.array(rewards) - given) / 2))
    assert discounted == pytest.approx(-values[0, 0], abs=1e-6)
    assert info["sharpwave/episode"]["length"] == len(WANDERING)
    assert info["sharpwave/episode"]["environment"] == 1


def test_an_episode_that_is_cut_off_keeps_the_potential_of_where_it_stood() -> None:
    store = corridor.store(walks=2)
    rewards, seen, _ = episode(wrapped(store, limit=3, discount=0.9, update_memory=False), [1, 1, 1])
    values = store.value(seen)[0][:, 0]
    np.testing.assert_allclose(rewards, 0.9 * values[1:] - values[:-1], atol=1e-6)
    assert values[-1] > 0.5


def test_the_best_policy_stays_the_best_under_potentials_of_any_store() -> None:
    rng = np.random.default_rng(0)
    states, actions, discount = 7, 3, 0.9
    after = rng.integers(0, states + 1, (states, actions))  # the last state is where episodes terminate
    given = rng.normal(size=(states, actions))
    places = rng.normal(size=(states + 1, 5)).astype(np.float32)
    store = sw.ValueStore(sw.Config(dim=5, gamma=0.8, min_novelty=0.05))
    memory = StepReward(store, corridor.as_they_are, discount=discount, weight=3.0)
    for _ in range(20):
        walk = rng.integers(0, states + 1, 9)
        store.observe(places[walk], drives={"reward": rng.random(9)})
    store.replay()
    before = np.repeat(np.arange(states), actions)
    over = after.ravel() == states
    pays = memory.relabel(places[before], places[after.ravel()], over).reshape(states, actions)
    assert np.abs(pays).max() > 0.3

    def solve(rewards: np.ndarray) -> np.ndarray:
        q = np.zeros((states, actions))
        for _ in range(500):
            q = rewards + discount * np.append(q.max(axis=1), 0.0)[after]
        return q

    plain, shaped = solve(given), solve(given + pays)
    potential = 3.0 * store.value(places[:states])[0][:, 0]
    np.testing.assert_allclose(shaped, plain - potential[:, None], atol=1e-5)
    assert (shaped.argmax(axis=1) == plain.argmax(axis=1)).all()


@pytest.mark.parametrize("functional", ["progress", "coverage"])
def test_dense_pay_of_an_episode_so_far_is_that_of_the_whole(functional: Any) -> None:
    store = corridor.store(walks=2)
    env = wrapped(store, functional=functional, update_memory=False)
    rewards, seen, _ = episode(env, WANDERING)
    rewards[-1] -= 1.0
    scores = store.score(seen, functional=functional, context=1)
    assert scores.total[0] > 0.1
    np.testing.assert_allclose(rewards, scores.step[1:], atol=1e-7)


def test_pay_at_the_end_is_what_the_episode_earned() -> None:
    store = corridor.store(walks=2)
    rewards, seen, _ = episode(wrapped(store, functional="coverage", pays="end", update_memory=False), WANDERING)
    assert rewards[:-1] == [0.0] * (len(rewards) - 1)
    assert rewards[-1] == pytest.approx(1.0 + store.score(seen, functional="coverage").total[0])


def test_what_was_used_pays_less_with_habituation() -> None:
    env = wrapped(corridor.store(walks=2), functional="coverage", habituation={"eta": 3.0}, sleep_every=0)
    first, second = (sum(episode(env, FORWARD)[0]) for _ in range(2))
    assert 1.0 < second < first - 0.05


def test_episodes_become_memories_and_their_reward_becomes_value() -> None:
    store = corridor.store()
    env = wrapped(store, sleep_every=2)
    assert len(store) == 0
    for _ in range(2):
        rewards, _, _ = episode(env, FORWARD)
    assert env.memory.last_sleep is not None
    assert env.memory.last_sleep.converged
    assert store.episodes_observed == 2
    assert len(store) == corridor.CELLS
    values = store.value(np.eye(corridor.CELLS, dtype=np.float32))[0][:, 0]
    assert (np.diff(values) > 0).all()
    assert values[-1] == pytest.approx(1.0, abs=0.03)
    # The first walk met an empty store; the second was already shown the way by the awake replay of the first.
    assert rewards[0] > 0


def test_frozen_it_pays_and_learns_nothing() -> None:
    store = corridor.store(walks=1)
    env = wrapped(store)
    env.update_memory = False
    digest = store.digest()
    rewards, _, info = episode(env, FORWARD)
    assert store.digest() == digest
    assert rewards[0] > 0
    assert info["sharpwave/support"] > 0
    env.update_memory = True
    episode(env, FORWARD)
    assert store.digest() != digest


def test_rarity_pays_for_the_mth_step_that_a_memory_takes_in() -> None:
    store = corridor.store()
    env = wrapped(store, weight=0.0, rarity=0.5, remember="rewarded")
    actions, met, expected, cell = [1, 1, 0, 1, 0, 0, 1, 1, 1, 1], dict[int, int](), [], 0
    for action in actions:
        cell += 1 if action else -1
        met[cell] = met.get(cell, 0) + 1
        expected.append(0.5 / met[cell] ** 0.5)
    env.reset()
    found, info = [], {}
    for action in actions:
        _, reward, *_, info = env.step(action)
        found.append(reward)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert info["sharpwave/rarity"] == pytest.approx(2 * expected[-1])
    assert len(store) == len(met)
    assert store.counts.sum() == len(actions)
    env.update_memory = False  # frozen, nothing is counted or paid for
    digest = store.digest()
    env.reset()
    assert env.step(1)[1] == 0.0
    assert store.digest() == digest


def test_what_rarity_counts_changes_no_value() -> None:
    plain, counting = corridor.store(), corridor.store()
    for store, rarity in ((plain, 0.0), (counting, 0.1)):
        env = wrapped(store, rarity=rarity, remember="rewarded", sleep_every=2)
        for actions in (FORWARD, WANDERING):
            episode(env, actions)
    cells = np.eye(corridor.CELLS, dtype=np.float32)
    np.testing.assert_allclose(counting.value(cells)[0], plain.value(cells)[0], atol=1e-6)
    assert counting.counts.sum() > plain.counts.sum()


def test_only_rewarded_episodes_are_remembered_if_so_wished() -> None:
    store = corridor.store()
    env = wrapped(store, limit=5, remember="rewarded")
    episode(env, [0, 0, 0, 0, 0])
    assert store.episodes_observed == 0
    episode(env, FORWARD)
    assert store.episodes_observed == 1


def test_an_episode_that_was_given_up_leaves_nothing() -> None:
    store = corridor.store()
    env = wrapped(store)
    env.reset()
    env.step(1)
    env.reset()
    assert store.episodes_observed == 0
    episode(env, FORWARD)
    assert store.episodes_observed == 1
    assert len(store) == corridor.CELLS


def test_it_goes_on_from_where_it_was_saved(tmp_path: Path) -> None:
    first = wrapped(corridor.store(), functional="coverage", habituation={"episodes": 4}, sleep_every=2)
    episode(first, FORWARD)
    first.save(tmp_path / "kept")
    second = wrapped(corridor.store(), functional="coverage", habituation={"episodes": 4}, sleep_every=2)
    second.restore(tmp_path / "kept")
    assert second.store.digest() == first.store.digest()
    assert second.memory.state_dict() == first.memory.state_dict()
    assert episode(first, WANDERING)[0] == episode(second, WANDERING)[0]
    assert second.store.digest() == first.store.digest()
    with pytest.raises(FileNotFoundError, match="nothing was saved"):
        second.restore(tmp_path)


def test_the_engine_pickles_with_its_store() -> None:
    memory = wrapped(corridor.store(walks=1)).memory
    twin = pickle.loads(pickle.dumps(memory))
    assert twin.store.digest() == memory.store.digest()
    assert twin.state_dict() == memory.state_dict()


def test_a_wrapped_environment_is_made_again_from_its_spec() -> None:
    env = ValueMemory(gym.make("CartPole-v1"), sw.ValueStore(sw.Config(dim=8)), lambda rows: np.ones((len(rows), 8)))
    assert env.spec is not None
    again = env.spec.make()
    assert isinstance(again, ValueMemory)
    again.reset(seed=0)
    assert again.store is env.store


def test_one_store_stays_one_in_every_environment_and_copy_of_it() -> None:
    store, table = corridor.store(), sw.Habituation()
    embedder = RandomFeatures(np.zeros(4), np.ones(4), dim=corridor.CELLS)

    def wrap(env: gym.Env[Any, Any]) -> ValueMemory:
        return ValueMemory(env, store, embedder, functional="coverage", habituation=table)

    vector: Any = gym.make_vec("CartPole-v1", 3, vectorization_mode="sync", wrappers=[wrap])
    spec = vector.envs[0].spec
    outer = gym.wrappers.RecordEpisodeStatistics(wrap(gym.make("CartPole-v1")))
    assert outer.spec is not None
    assert spec is not None
    again: Any = gym.make_vec(spec, 2, vectorization_mode="sync")
    found: list[Any] = [*vector.envs, spec.make(), *again.envs, outer.spec.make().env, spec.make().spec.make()]
    found.append(copy.deepcopy(found[0]))
    for env in found:
        assert env.store is store
        assert env.memory.embedder is embedder
        assert env.memory.habituation is table
    vector.reset(seed=0)
    for _ in range(60):
        vector.step(np.ones(3, np.int64))
    assert store.episodes_observed >= 9
    assert copy.deepcopy(store) is not store  # of itself it is copied


def test_a_deep_copy_goes_on_from_the_middle_of_an_episode() -> None:
    env = wrapped(corridor.store(walks=1), update_memory=False)
    env.reset()
    env.step(1)
    twin = copy.deepcopy(env)
    assert [env.step(1)[1] for _ in range(3)] == [twin.step(1)[1] for _ in range(3)]
    twin.update_memory = True
    assert not env.update_memory
    assert len(env.memory._running[0].steps) == len(twin.memory._running[0].steps) == 5


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_process_that_has_a_copy_of_the_store_is_told_and_learns_nothing_alone(
    start: str, capfd: pytest.CaptureFixture[str]
) -> None:
    store = corridor.store()

    def learns() -> Any:
        return ValueMemory(corridor.Corridor(), store, corridor.as_they_are)

    def frozen() -> Any:
        return ValueMemory(corridor.Corridor(), store, corridor.as_they_are, update_memory=False)

    with pytest.raises((EOFError, OSError)):
        gym.vector.AsyncVectorEnv([learns], context=start).reset()
    assert "this process has a copy of its parent's store" in capfd.readouterr().err
    if start == "fork":  # it may read
        vector = gym.vector.AsyncVectorEnv([frozen, frozen], context=start)
        vector.reset(seed=0)
        vector.step(np.ones(2, np.int64))
        vector.close()


def test_a_specification_with_a_store_in_memory_does_not_leave_the_process() -> None:
    env = ValueMemory(gym.make("CartPole-v1"), corridor.store(), RandomFeatures(np.zeros(4), np.ones(4), dim=12))
    with pytest.raises(TypeError, match="serve it"):
        pickle.dumps(env.spec)


@pytest.mark.parametrize("remember", ["all", "rewarded"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_reward_that_is_not_finite_counts_as_none_with_a_warning(bad: float, remember: Any) -> None:
    memory = StepReward(corridor.store(), corridor.as_they_are, remember=remember)
    cells = [corridor.one_hot(n) for n in range(4)]
    memory.begin(np.stack([cells[0]] * 2))
    with pytest.warns(RuntimeWarning, match=f"environment 1 gave the reward {bad}"):
        paid = memory.step(np.stack([cells[1]] * 2), [1.0, bad], [False] * 2, [False] * 2)
    assert paid.environment.tolist() == [1.0, 0.0]
    assert paid.reward[1] == pytest.approx(paid.instrumental[1])
    ended = memory.step(np.stack([cells[2]] * 2), [0.5, bad], [True] * 2, [False] * 2)
    assert ended.episodes[1]["environment"] == 0.0
    assert memory.store.episodes_observed == (2 if remember == "all" else 1)
    assert np.isfinite(memory.store.values).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"functional": "novelty"}, "functional must be one of"),
        ({"pays": "end"}, "constant of where the episode begins"),
        ({"functional": "mean"}, 'needs pays="end"'),
        ({"habituation": {}}, "habituation"),
        ({"discount": 1.5}, "discount"),
        ({"rarity": -0.1}, "rarity must not be negative"),
        ({"remember": "some"}, "remember"),
        ({"channel": "goal"}, "embedding channel"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], match: str) -> None:
    store = corridor.store()
    store.add_terminal("goal", corridor.one_hot(5))
    with pytest.raises(ValueError, match=match):
        wrapped(store, **options)


def test_a_store_of_another_embedder_is_refused() -> None:
    space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
    store = sw.ValueStore(sw.Config(dim=16))
    StepReward(store, RandomFeatures.for_space(space, dim=16, seed=1))
    with pytest.raises(sw.EmbedderError):
        StepReward(store, RandomFeatures.for_space(space, dim=16, seed=2))


def test_a_step_before_a_reset_is_refused() -> None:
    memory = StepReward(corridor.store(), corridor.as_they_are)
    with pytest.raises(ValueError, match="call reset first"):
        memory.step(corridor.one_hot(0)[None], [0.0], [False], [False])


# The embedder for Box spaces


def test_random_features_are_a_gaussian_kernel_of_the_standardised_distance() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 4)) * [1, 10, 0.1, 5] + [0, 3, 0, -2]
    embedder = RandomFeatures.fitted(rows, dim=4096, bandwidth=0.7)
    vectors = embedder(rows)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    z = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    squared = ((z[:, None] - z[None]) ** 2).sum(axis=-1)
    kernel = np.exp(-squared / (2 * 0.7**2 * 4))
    assert np.abs(vectors @ vectors.T - kernel).max() < 0.09  # five standard errors of 2,048 frequencies


def test_random_features_are_fixed_by_their_numbers() -> None:
    space = gym.spaces.Box(np.array([0, -2], np.float32), np.array([1, 2], np.float32))
    embedder = RandomFeatures.for_space(space, dim=32, seed=3)
    again = RandomFeatures.from_dict(embedder.to_dict())
    rows = np.array([[0.1, 1.5], [0.9, -1.0]], np.float32)
    np.testing.assert_array_equal(embedder(rows), again(rows))
    assert again.fingerprint == embedder.fingerprint
    assert RandomFeatures.for_space(space, dim=32, seed=4).fingerprint != embedder.fingerprint
    assert pickle.loads(pickle.dumps(embedder)).fingerprint == embedder.fingerprint


def test_coordinates_that_never_vary_say_nothing() -> None:
    rows = np.array([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
    embedder = RandomFeatures.fitted(rows, dim=16)
    np.testing.assert_array_equal(embedder(rows), embedder(rows + np.array([0.0, 7.0])))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: RandomFeatures.for_space(gym.spaces.Box(-np.inf, np.inf, (2,))), "no bounds"),
        (lambda: RandomFeatures.fitted(np.zeros((4, 2))), "no coordinate varies"),
        (lambda: RandomFeatures.fitted(np.zeros((1, 2))), "too few"),
        (lambda: RandomFeatures([0.0], [1.0], dim=7), "dim must be even"),
        (lambda: RandomFeatures([0.0], [1.0], bandwidth=0.0), "bandwidth"),
        (lambda: RandomFeatures([0.0], [1.0], dim=4)(np.zeros((3, 2))), "observations have shape"),
    ],
)
def test_what_cannot_be_embedded_is_named(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()
    with pytest.raises(TypeError, match="no Box"):
        RandomFeatures.for_space(gym.spaces.Discrete(3))
