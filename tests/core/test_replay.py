"""Replay against the oracle, backup by backup: every order, need and budget, on graphs with much to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
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
    store, oracle = pair(dim=8, k=4, tau=0.3, min_novelty=0.4, equation=equation, trace=trace, gamma=0.9)
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


@given(
    seed=seeds,
    ahead=st.sampled_from([(1e-10, False), (0.0, True), (1e-10, True), (0.05, True)]),
    need=st.sampled_from(["frequency", "uniform", "starts"]),
    budget=st.sampled_from([1, 2, 3, 5, 8, 13, 40]),
    equation=st.sampled_from(["stopping", "return"]),
)
def test_replay_that_looks_ahead_is_that_of_the_oracle(
    seed: int, ahead: tuple[float, bool], need: Any, budget: int, equation: Any
) -> None:
    """Which memory every backup is of, what it comes to, and what a veto makes of the sleep afterwards."""
    store, oracle = pair(dim=8, k=4, tau=0.3, min_novelty=0.4, equation=equation, gamma=0.9)
    steps, offsets = wander(seed, [8, 3, 7, 9, 2, 8], noise=0.2)
    key = np.random.default_rng(seed).normal(size=8)
    for one in (store, oracle):
        one.observe(steps, offsets)
        one.add_terminal("late", key, low=0.0, high=0.8)
    floor, extend = ahead
    for spent in range(2):
        starts = store.ids[spent : 4 + spent].tolist() if need == "starts" else need
        actual = store.replay(budget, 1e-4, need=starts, floor=floor, extend=extend)
        expected = oracle.replay(budget, 1e-4, need=starts, floor=floor, extend=extend)
        assert actual.trail == expected.trail
        assert actual.backups == expected.backups
        close(actual.residual, expected.residual, "residual", {"rtol": 1e-5, "atol": 1e-9})
        same_state(store, oracle)
    for one in (store, oracle):
        one.veto(episode=3)
    same_state(store, oracle)


def line(n: int = 100, **numbers: Any) -> sw.ValueStore:
    """A way of n places to a reward of 1, awake replay undone: every memory that leads on owes."""
    store = sw.ValueStore(sw.Config(dim=n, k=1, epsilon=1e-3, gamma=0.9, equation="return", **numbers))
    store.observe(np.eye(n, dtype=np.float32))
    store.add_terminal("end", np.eye(n)[n - 1], low=0.5, high=1.0)
    return store


def test_replay_with_a_floor_and_extension_runs_forwards_where_nothing_is_owed() -> None:
    """From where one is, place by place, up to the longest that a backup may be, and then anew from there."""
    store = line()
    store.replay(tol=0)
    before = store.digest(), store.values.tobytes()
    alone = store.replay(70, need=[0], floor=1e-10)
    assert alone.trail == (0,) * 70, "one memory is needed most"
    report = store.replay(70, need=[0], floor=1e-10, extend=True)
    assert report.trail[:64] == tuple(range(64))
    assert report.trail[64:] == (0, 1, 2, 3, 4, 5)
    assert (report.backups, report.stopped, report.converged, report.residual) == (70, "budget", True, 0)
    assert store.values.tobytes() == before[1], "a store that has converged is as it was"
    assert store.replay().trail == ()


@pytest.mark.parametrize(("drives", "trail"), [((0.5, 0.3, 0.2), (0, 1, 2)), ((0.5, 0.1, 0.4), (0, 2, 1, 0))])
def test_a_backup_of_several_steps_is_worth_the_sum_over_its_places(drives: Any, trail: tuple[int, ...]) -> None:
    """0 → 1 → 2 → 3, g = γP from each to the next, need g^i, and i owes at first g·drive of i + 1: 0 comes first.

    To continue it by 1 is worth g·(g·r_2) for 1 and 1·(g·g·r_2) for 0 again, to go on with 2 is worth g²·(g·r_3).
    """
    store = line(4)
    store.replay(tol=0)
    store.add_terminal("late", np.sqrt([0.0, *drives]), low=0.0, high=1.0)
    alone = sw.ValueStore.from_bytes(store.to_bytes())
    report = store.replay(20, need=[0], extend=True)
    assert report.trail == trail
    assert report.converged
    assert report.stopped == "converged"
    g = 0.9 / (1 + 1e-3)
    r1, r2, r3 = drives
    expected = [g * (r1 + g * (r2 + g * r3)), r1 + g * (r2 + g * r3), r2 + g * r3, r3]
    np.testing.assert_allclose(store.values[:4, 1], expected, rtol=1e-5)
    assert alone.replay(20, need=[0]).backups == (6 if trail[1] == 1 else 4)


def test_looking_ahead_gives_the_same_bits_on_any_number_of_threads() -> None:
    digests = set[str]()
    for threads in (1, 2, 5):
        store, _ = crowd("return")
        report = store.replay(60, need=store.ids[:3], floor=1e-10, extend=True, num_threads=threads)
        assert (report.backups, len(report.trail), report.swept) == (60, 60, 0)
        digests.add(store.digest())
    assert len(digests) == 1


def test_time_is_recorded_as_a_budget_with_a_floor_too() -> None:
    """It has no other end, converged or not; nor has it where all that is needed owes nothing and leads nowhere."""
    store = line(keep_episodes=True)
    assert store.replay(seconds=0.005, need=[3], floor=1e-10, extend=True).stopped == "seconds"
    assert store.replay(seconds=5, need=[99], floor=1e-10, tol=1e6).stopped == "converged"
    before = store.digest()
    store.observe(np.ones((1, 100)), episode_ids=[77])
    store.veto(episode=77)
    assert store.digest() == before


@pytest.mark.parametrize("ahead", [{"floor": 0.25}, {"extend": True}, {"floor": 0.25, "extend": True}])
def test_a_journal_repeats_what_looked_ahead(ahead: Any, tmp_path: Path) -> None:
    store = sw.ValueStore.open(tmp_path / "store", line(4).config)
    store.become(line(4))
    store.replay(tol=0)
    store.add_terminal("late", np.sqrt([0.0, 0.5, 0.3, 0.2]), low=0.0, high=1.0)
    plain = sw.ValueStore.from_bytes(store.to_bytes())
    store.replay(2, need=[0], **ahead)
    plain.replay(2, need=[0])
    assert plain.values.tobytes() != store.values.tobytes()
    digest, frozen = store.digest(), store.to_bytes()
    (journal,) = (tmp_path / "store" / "journal").iterdir()
    said = journal.read_bytes()
    assert (b'"floor":0.25' in said, b'"extend":true' in said) == ("floor" in ahead, "extend" in ahead)
    assert sw.ValueStore.open(tmp_path / "store", readonly=True).digest() == digest
    assert sw.ValueStore.from_bytes(frozen).digest() == digest


def test_a_floor_never_takes_a_value_out_of_its_bounds() -> None:
    """No backup does, whatever chose it: with drives up to 1 no value leaves [0, 1] (stopping), [0, 10] (return)."""
    for equation, most in (("stopping", 1.0), ("return", 10.0)):
        store, _ = crowd(equation)
        for start in range(5):
            store.replay(40, need=[int(store.ids[17 * start])], floor=0.2, extend=True)
            assert store.values.min() >= 0
            assert store.values.max() <= most * (1 + 1e-6)


def crowd(equation: str = "stopping") -> tuple[Any, Any]:
    """220 memories that lead to 30 others each: enough associations for replay to prefer sweeps."""
    store, oracle = pair(dim=6, k=16, tau=-0.9, power=1, min_novelty=0.02, max_out=30, gamma=0.9, equation=equation)
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
        store, _ = pair(dim=8, k=4, tau=0.3, min_novelty=0.4, gamma=0.9)
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
