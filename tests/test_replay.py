"""Replay against the oracle, backup by backup: every order, need and budget, on graphs with much to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from agree import close, pair, same, same_state
from hypothesis import given
from hypothesis import strategies as st
from worlds import seeds, wander


@given(
    seed=seeds,
    order=st.sampled_from(["prioritized", "prioritized", "reverse", "full"]),
    need=st.sampled_from(["frequency", "uniform", "starts"]),
    budget=st.sampled_from([1, 2, 3, 5, 8, 13, 30, None]),
    equation=st.sampled_from(["stopping", "return"]),
    trace=st.sampled_from([0.0, 0.5]),
)
def test_replay_is_that_of_the_oracle(
    seed: int, order: Any, need: Any, budget: int | None, equation: Any, trace: float
) -> None:
    """A terminal that comes late leaves every memory with successors to be backed up."""
    store, oracle = pair(dim=8, k=4, tau=0.3, novelty=0.4, equation=equation, trace=trace, gamma=0.9)
    steps, offsets = wander(seed, [8, 3, 7, 9, 2, 8], noise=0.2)
    key = np.random.default_rng(seed).normal(size=8)
    for one in (store, oracle):
        one.observe(steps, offsets)
        one.add_terminal("late", key, low=0.0, high=0.8)
    for spent in range(2):
        starts = store.ids[spent : 4 + spent].tolist() if need == "starts" else need
        actual = store.replay(budget, 1e-4, order, starts)
        expected = oracle.replay(budget, 1e-4, order, starts)
        same(actual.backups, expected.backups, "backups")
        close(actual.residual, expected.residual, "residual", {"rtol": 1e-5, "atol": 1e-9})
        assert actual.converged == expected.converged
        same_state(store, oracle)


def crowd(equation: str = "stopping") -> tuple[Any, Any]:
    """220 memories that lead to 30 others each: enough associations for replay to prefer sweeps."""
    store, oracle = pair(dim=6, k=16, tau=-0.9, power=1, novelty=0.02, max_out=30, gamma=0.9, equation=equation)
    rng = np.random.default_rng(5)
    steps = rng.normal(size=(220, 6)).astype(np.float32)
    for one in (store, oracle):
        one.add_channel("s")
        one.observe(steps, drives=np.where(np.arange(220)[:, None] % 37 == 3, 1.0, np.nan))
    assert len(store) > 200
    assert len(store.edges()[0]) > 5000
    return store, oracle


@pytest.mark.parametrize("budget", [None, 100, 700])
def test_replay_sweeps_once_much_of_the_graph_is_active(budget: int | None) -> None:
    """A terminal makes everything dirty: sweeps at once. A few drives do not: pushes, until what they reach is many."""
    store, oracle = crowd()
    for one in (store, oracle):
        one.add_terminal("late", np.ones(6), low=0.0, high=0.8)
    actual, expected = store.replay(budget), oracle.replay(budget)
    same(actual.backups, expected.backups, "backups")
    assert actual.swept == actual.backups > 0
    same_state(store, oracle)
    assert actual.stopped == ("converged" if budget is None else "budget")


def test_replay_pushes_before_it_sweeps() -> None:
    """One new drive: its predecessors, then theirs, and soon nearly everyone's."""
    store, oracle = crowd("return")
    store.replay(tol=1e-7), oracle.replay(tol=1e-7)
    for one in (store, oracle):
        one.observe(np.asarray(store.keys[100:101]), drives=[[50.0]])
    actual, expected = store.replay(tol=1e-5), oracle.replay(tol=1e-5)
    same(actual.backups, expected.backups, "backups")
    assert 0 < actual.swept < actual.backups
    same_state(store, oracle)


def test_a_sleep_that_is_stopped_goes_on_as_if_it_had_not_been() -> None:
    """The marks are the queue: a hundred short sleeps make the pushes of a long one, in the same order."""
    stores = []
    for budget in (None, 1, 7):
        store, _ = pair(dim=8, k=4, tau=0.3, novelty=0.4, gamma=0.9)
        store.observe(*wander(3, [8, 3, 7, 9, 2, 8], noise=0.2))
        store.add_terminal("late", np.ones(8), low=0.0, high=0.8)
        backups = 0
        while not (report := store.replay(budget)).converged:
            assert report.stopped == "budget"
            backups += report.backups
        stores.append((backups + report.backups, store.digest()))
    assert stores[0] == stores[1] == stores[2]
    assert stores[0][0] > 20


def test_no_time_is_no_backups_and_history_repeats_what_was_done() -> None:
    """How far a sleep gets in a time is chance; what it did is recorded as a budget, so that a veto repeats it."""
    store, oracle = crowd()
    for one in (store, oracle):
        one.add_terminal("late", np.ones(6), low=0.0, high=0.8)
    before = store.values
    report = store.replay(seconds=0)
    assert (report.backups, report.stopped, report.converged) == (0, "seconds", False)
    assert store.values.tobytes() == before.tobytes()
    cut = store.replay(tol=0, seconds=0.01)
    store.observe(np.ones((1, 6)), episode_ids=[77])
    oracle.replay(0)
    oracle.replay(cut.backups, tol=0)
    oracle.observe(np.ones((1, 6)), episode_ids=[77])
    for one in (store, oracle):
        one.veto(episode=77)
    same_state(store, oracle)


def test_bad_seconds_are_refused() -> None:
    store, _ = pair(dim=4)
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds"):
            store.replay(seconds=seconds)
