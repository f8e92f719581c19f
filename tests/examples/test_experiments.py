"""The experiments of docs/replay.md in a short form: what is claimed there of their long form must hold here too."""

from __future__ import annotations

import numpy as np
import pytest

from examples import degradation, replay_maze, sample_efficiency


@pytest.mark.parametrize("world", [replay_maze.track(), replay_maze.maze()], ids=lambda world: world.name)
def test_replay_runs_backwards_from_a_reward(world: replay_maze.World) -> None:
    """Share of significant sequences at the goal, three rats: most are reverse ones, and more than at the start."""
    rats = [replay_maze.live(world, seed, runs=12) for seed in range(3)]
    goal, start = (np.mean([replay_maze.shares(rat, at) for rat in rats], axis=0) for at in ("goal", "start"))
    assert goal[1] > 0.6
    assert goal[1] > start[1]
    assert goal[0] < 0.2, "hardly any is a forward one"
    assert start[0] < 0.2, "nor before a run"


def test_forward_replay_before_a_run_takes_a_floor_and_extension() -> None:
    """Share of significant forward sequences at the start of the track, ten rats of 30 runs."""
    found = {kind: replay_maze.found(replay_maze.track(), 10, kind)["forward, start"] for kind in replay_maze.KINDS}
    for kind, without in replay_maze.PAIRS:
        assert replay_maze.interval(found[kind])[1] > 0.3 > replay_maze.CHANCE
        assert replay_maze.interval(found[kind] - found[without])[1] > 0.3, "more than without"
    for kind in ("default", "floor", "extension", "trials"):
        assert found[kind].mean() < 0.1, "neither does it without the other"


def test_forward_replay_before_a_run_through_the_maze_is_above_chance() -> None:
    """The same of twenty rats in the maze, whose runs end at the goal."""
    kind, without = replay_maze.PAIRS[1]
    found, others = (replay_maze.found(replay_maze.maze(), 20, each)["forward, start"] for each in (kind, without))
    assert replay_maze.interval(found)[1] > replay_maze.CHANCE
    assert replay_maze.interval(found - others)[1] > 0, "more than without"


@pytest.mark.parametrize("world", [replay_maze.track(), replay_maze.maze()], ids=lambda world: world.name)
@pytest.mark.parametrize("kind", replay_maze.PLOTTED)
def test_reverse_replay_grows_with_the_reward_and_vanishes_without(world: replay_maze.World, kind: str) -> None:
    found = replay_maze.changes(world, 2, kind)
    assert not found["not received"].any()
    assert not found["as before"].any()
    assert (found["four times"] >= np.maximum(found["zero received"], 8)).all()
    if kind == "default":
        assert (found["four times"] > found["zero received"]).all()


def test_a_sequence_is_significant_if_shuffles_have_none_so_long() -> None:
    rng = np.random.default_rng(0)
    assert replay_maze.longest([5, 4, 3, 2, 7, 6, 1], -1) == 4
    assert replay_maze.longest([], 1) == 0
    assert replay_maze.significant(range(10), 1, rng)
    assert not replay_maze.significant(range(10), -1, rng)
    chance = [replay_maze.significant(np.random.default_rng(s).permutation(10).tolist(), 1, rng) for s in range(200)]
    assert np.mean(chance) < 0.06


def test_an_episode_observed_is_worth_more_than_one_step_learning() -> None:
    """Moves in 20 episodes on the chain: fewer than Q-learning needs, with and without sleep."""
    world = sample_efficiency.chain()
    moves = {name: sample_efficiency.lengths(world, name, 4).sum(1) for name in sample_efficiency.AGENTS}
    best = moves["Q-learning"]
    for name in ("store, awake replay", "store, and sleep"):
        assert (moves[name] < 0.6 * best).all()


def test_damage_degrades_scores_gradually() -> None:
    """Property 11, on one world: no cliff before half of the memories are gone."""
    found = degradation.measure(0, tests=120)
    deleted = found["share deleted"]
    correlation = np.array([deleted[share][0] for share in degradation.DELETED])
    error = np.array([deleted[share][1] for share in degradation.DELETED])
    assert deleted[0.0] == (1.0, 0.0)
    assert (correlation[:4] > 0.85).all()
    assert (np.diff(correlation) < 0.03).all()
    assert correlation[-1] > 0.4
    assert (np.diff(error) > -0.02).all()
    assert error[-1] < 0.6
    noisy = [found["noise on keys"][noise][0] for noise in degradation.NOISE]
    assert noisy[1] > 0.85
    levels = [found["levels of values"][n][0] for n in degradation.LEVELS]
    assert levels[0] > 0.999
    assert levels[2] > 0.9
