"""Tuning: what is measured, what is chosen, and that neither depends on what it must not depend on."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
from agree import close, pair, same, same_state
from hypothesis import given, settings
from hypothesis import strategies as st
from sharpwave import foresight, granularity, tuning
from worlds import seeds, wander

DIM = 16
ROOMS = 12


def maze(seed: int = 0, episodes: int = 60, length: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Walks through twelve rooms with a lamp. It hardly shows in a step, and decides what follows.

    With the lamp lit the walk goes on to the next room, and the last room gives a drive of 1; without it goes back.
    """
    rng = np.random.default_rng(seed)
    places = np.random.default_rng(99)
    rooms, lamp = places.normal(size=(ROOMS, DIM)), places.normal(size=DIM)
    steps, drives = [], []
    for _ in range(episodes):
        room, lit = int(rng.integers(ROOMS)), bool(rng.integers(2))
        for _ in range(length):
            steps.append(rooms[room] + (0.25 if lit else -0.25) * lamp + 0.03 * rng.normal(size=DIM))
            drives.append(float(room == ROOMS - 1 and lit))
            room = min(room + 1, ROOMS - 1) if lit else max(room - 1, 0)
            lit = lit if rng.random() < 0.8 else not lit
    return np.array(steps, np.float32), np.arange(0, episodes * length + 1, length), np.array(drives, np.float32)


# Merging by a cosine --------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    seed=seeds,
    cosine=st.sampled_from([-0.5, 0.3, 0.8, 0.97, 1.0]),
    power=st.sampled_from([1, 2, 8]),
    tau=st.sampled_from([-0.3, 0.4]),
    calibrated=st.booleans(),
)
def test_merging_by_a_cosine_is_that_of_the_oracle(
    seed: int, cosine: float, power: int, tau: float, calibrated: bool
) -> None:
    store, oracle = pair(dim=8, k=5, tau=tau, power=power, merge_cosine=cosine)
    steps, offsets = wander(seed, [6, 7, 5], noise=0.2)
    if calibrated:
        store.calibrate(steps, offsets)
        oracle.calibrate(steps, offsets)
    close(store.config.merge_cosine, cosine, "merge cosine")
    ours, theirs = store.observe(steps, offsets), oracle.observe(steps, offsets)
    same(ours.memory_ids, theirs.memory_ids, "memories")
    same_state(store, oracle)


def test_a_merge_cosine_of_one_merges_nothing_and_survives_saving() -> None:
    steps, offsets, _ = maze()
    store = sw.ValueStore(sw.Config(dim=DIM, merge_cosine=1.0))
    assert store.observe(steps, offsets).counts["merged"] == 0
    again = sw.ValueStore.from_bytes(store.to_bytes())
    assert again.config.merge_cosine == 1.0
    assert again.digest() == store.digest()


def test_without_a_merge_cosine_a_snapshot_is_as_it_was_before_there_was_one() -> None:
    assert b"merge_cosine" not in sw.ValueStore(sw.Config(dim=4)).to_bytes()


def test_a_merge_cosine_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match="merge_cosine"):
        sw.Config(dim=4, merge_cosine=1.5)


@given(novelty=st.floats(0, 1), power=st.integers(1, 8), tau=st.floats(-0.5, 0.9))
def test_every_novelty_has_its_merge_cosine(novelty: float, power: int, tau: float) -> None:
    config = sw.Config(dim=8, min_novelty=novelty, power=power, tau=tau)
    as_cosine = dataclasses.replace(config, merge_cosine=min(1.0, granularity.merge_cosine(config)))
    steps, offsets = wander(3, [9, 9], noise=0.3)
    found = [sw.ValueStore(c).observe(steps, offsets).counts for c in (config, as_cosine)]
    assert found[0] == found[1]


# What is measured -----------------------------------------------------------------------------------


@given(
    values=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=30),
)
def test_prediction_is_the_weighted_share_of_pairs_in_order(values: list[tuple[int, int, int]]) -> None:
    value, reached, episode = (np.array(column, np.float64) for column in zip(*values, strict=True))
    measured = foresight.prediction(value, reached, episode.astype(np.int64))
    good = total = 0.0
    for v, r in zip(value, reached, strict=True):
        for w, s in zip(value, reached, strict=True):
            if r > s:
                total += r - s
                good += (r - s) * (1.0 if v > w else 0.5 if v == w else 0.0)
    if total == 0:
        assert np.isnan(measured.value)
    else:
        assert measured.value == pytest.approx(good / total)


def test_the_error_is_that_of_drawing_episodes_anew() -> None:
    """Against 1500 new draws of 60 episodes of 8 steps, whose steps share most of what they are."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(1500):
        common = rng.normal(size=60).repeat(8)
        reached = (common + 0.3 * rng.normal(size=480) > 0).astype(float)
        value = 0.5 * common + rng.normal(size=60).repeat(8) + 0.3 * rng.normal(size=480)
        found.append(foresight.prediction(value, reached, np.arange(60).repeat(8)))
    spread = np.std([m.value for m in found])
    assert np.mean([m.error for m in found]) == pytest.approx(spread, rel=0.1)


@given(seed=seeds, equation=st.sampled_from(["stopping", "return"]), discount=st.sampled_from([0.5, 1.0]))
def test_what_is_still_reached_is_what_its_definition_says(seed: int, equation: str, discount: float) -> None:
    rng = np.random.default_rng(seed)
    offsets = np.array([0, 4, 5, 5, 9])
    drives = np.where(rng.random((9, 2)) < 0.4, np.nan, rng.random((9, 2)))
    found = foresight.still_reached(drives, offsets, discount, equation)
    for first, end in pairwise(offsets.tolist()):
        for t in range(first, end):
            for q in range(2):
                later = [
                    discount ** (u - t - 1) * drives[u, q] for u in range(t + 1, end) if drives[u, q] == drives[u, q]
                ]
                expected = np.nan if not later else max(later) if equation == "stopping" else sum(later)
                np.testing.assert_allclose(found[t, q], expected, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:the store has no channel")
def test_the_prediction_is_what_edge_support_compares_with() -> None:
    """E = clip((⟨μ, x⟩ − e_lo)/(e_hi − e_lo), 0, 1), so that E tells ⟨μ, x⟩ where it is not clipped."""
    store = sw.ValueStore(sw.Config(dim=DIM, merge_cosine=0.99, e_lo=-1.9, e_hi=1.9))
    steps, offsets, _ = maze(episodes=2, length=9)  # too few transitions for a range of its own
    store.observe(steps, offsets)
    other, _, _ = maze(seed=1, episodes=1, length=9)
    mu = foresight.predictions(store, other[:-1])
    agreement = np.einsum("nd,nd->n", mu, foresight.unit_rows(other[1:]))
    edge = store.score(other, functional="mean", context=False).edge[1:]
    known = np.linalg.norm(mu, axis=1) > 0
    assert known.any()
    np.testing.assert_allclose(edge[known], (agreement[known] + 1.9) / 3.8, atol=1e-5)


def test_next_steps_are_ranked_among_all_and_nothing_known_is_chance() -> None:
    steps, offsets, _ = maze()
    empty = sw.ValueStore(sw.Config(dim=DIM))
    assert foresight.next_step(empty, steps, offsets).value == 0.5
    chain = np.eye(DIM, dtype=np.float32)
    store = sw.ValueStore(sw.Config(dim=DIM))
    store.observe(chain)
    assert foresight.next_step(store, chain, np.array([0, DIM])).value == 1.0


@pytest.mark.parametrize("equation", ["stopping", "return"])
def test_values_at_another_gamma_are_those_of_a_store_of_that_gamma(equation: Any) -> None:
    steps, offsets, drives = maze()
    stores = []
    for gamma in (0.5, 0.9):
        store = sw.ValueStore(sw.Config(dim=DIM, merge_cosine=0.99, gamma=gamma, equation=equation))
        store.add_channel("goal")
        store.observe(steps, offsets, drives=drives[:, None])
        store.replay(tol=1e-7)
        stores.append(store)
    np.testing.assert_allclose(tuning.solved(stores[0], 0.9), stores[1].values, atol=2e-6)


# What is chosen -------------------------------------------------------------------------------------

GRID = {"merge_cosine": [0.6, 0.98], "power": [2, 8], "k": [16, 1]}


def test_a_world_that_merging_blurs_is_told_apart() -> None:
    steps, offsets, drives = maze()
    tuned = sw.tune(steps, offsets, drives={"goal": drives}, grid=GRID)
    by = {(t.merge_cosine, t.power, t.k): t for t in tuned.table}
    assert tuned.config.merge_cosine == 0.98
    assert by[0.98, 8, 1].memories >= 2 * ROOMS > by[0.6, 8, 1].memories
    assert by[0.98, 8, 1].next_step > by[0.6, 8, 1].next_step + 0.03
    assert "chosen" in str(tuned)


@settings(max_examples=12)
@given(seed=seeds, drawn=st.booleans())
def test_order_copies_and_threads_do_not_change_the_choice(seed: int, drawn: bool) -> None:
    steps, offsets, drives = maze(episodes=16)
    rng = np.random.default_rng(seed)
    order = rng.permutation(16) if drawn else rng.integers(16, size=30)
    if not drawn:
        order = np.concatenate([order, np.arange(16)])
    spans = [np.arange(offsets[e], offsets[e + 1]) for e in order]
    place = np.concatenate(spans)
    before = sw.get_num_threads()
    expected = sw.tune(steps, offsets, drives=drives, grid=GRID)
    try:
        sw.set_num_threads(1 + seed % 3)
        found = sw.tune(steps[place], np.arange(0, len(place) + 1, 12), drives=drives[place], grid=GRID)
    finally:
        sw.set_num_threads(before)
    assert found.config == expected.config
    np.testing.assert_equal(
        [dataclasses.astuple(t) for t in found.table], [dataclasses.astuple(t) for t in expected.table]
    )


def test_a_grid_of_one_is_returned() -> None:
    steps, offsets, _ = maze(episodes=8)
    one = {"merge_cosine": [0.7], "k": [3], "power": [5], "gamma": [0.4]}
    config = sw.tune(steps, offsets, grid=one, config=sw.Config(dim=DIM, rho=0.5)).config
    assert (config.merge_cosine, config.k, config.power, config.gamma, config.rho) == (0.7, 3, 5, 0.4, 0.5)
    store = sw.ValueStore(sw.Config(dim=DIM))
    store.calibrate(steps, offsets, check=False)
    assert config.tau == pytest.approx(store.config.tau, abs=1e-6)


def test_without_channels_the_next_step_decides_alone() -> None:
    steps, offsets, drives = maze()
    for given_drives in (None, np.zeros_like(drives)):
        tuned = sw.tune(steps, offsets, drives=given_drives, grid=GRID)
        assert np.isnan([t.value for t in tuned.table]).all()
        assert tuned.table[tuned.chosen].next_step >= max(t.next_step for t in tuned.table) - tuning.SAME


def trial(value: float, next_step: float, error: float = 0.02) -> sw.Trial:
    return sw.Trial(0.9, 16, 2, 0.7, 10, value, error, next_step, 0.01)


@pytest.mark.parametrize(
    ("trials", "chosen"),
    [
        ([trial(0.80, 0.6), trial(0.79, 0.9), trial(0.70, 0.99)], 1),  # the third is more than an error behind
        ([trial(0.80, 0.6), trial(0.78, 0.9), trial(0.76, 0.99, 0.04)], 2),  # its own error counts too
        ([trial(0.80, 0.6), trial(0.79, 0.6), trial(0.81, 0.6)], 2),  # equal next steps: the higher value
        ([trial(0.80, 0.6), trial(0.80, 0.6)], 0),  # all equal: the first
        ([trial(np.nan, 0.6), trial(np.nan, 0.7)], 1),
        ([trial(0.6, 0.6, np.nan), trial(0.5, 0.7, np.nan)], 0),
    ],
)
def test_the_rule(trials: list[sw.Trial], chosen: int) -> None:
    assert tuning._choose(trials) == chosen


def test_terminals_are_predicted_too() -> None:
    steps, offsets, _ = maze()
    places = np.random.default_rng(99)
    goal = places.normal(size=(ROOMS, DIM))[-1] + 0.25 * places.normal(size=DIM)
    tuned = sw.tune(steps, offsets, terminals={"goal": goal}, grid=GRID)
    assert max(t.value for t in tuned.table) > 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": {"tau": [0.1]}}, "grid: no number 'tau'"),
        ({"grid": {"k": []}}, "grid: nothing to try of 'k'"),
        ({"grid": {"merge_cosine": [2.0]}}, "merge_cosine"),
        ({"offsets": [0, 12, 24, 36]}, "four different episodes"),
        ({"steps": np.full((720, DIM), np.nan)}, "steps.*row 0"),
        ({"drives": np.zeros(7)}, "drives must have shape"),
        ({"terminals": {"goal": np.ones(3)}}, r"terminals\['goal'\]"),
    ],
)
def test_errors_name_the_argument(change: dict[str, Any], message: str) -> None:
    steps, offsets, _ = maze()
    given_ = {"steps": steps, "offsets": offsets} | change
    if "offsets" in change:
        given_["steps"] = steps[:36]
    with pytest.raises(ValueError, match=message):
        sw.tune(**given_)


def test_only_some_of_many_steps_are_looked_at_evenly() -> None:
    steps, offsets, drives = maze()
    tuned = sw.tune(steps, offsets, drives=drives, grid={"k": [16]}, max_steps=240)
    assert tuned.steps == 120


# What calibration says ------------------------------------------------------------------------------


def test_calibrate_warns_where_merging_loses_what_comes_next() -> None:
    steps, offsets, _ = maze()
    store = sw.ValueStore(sw.Config(dim=DIM))
    with pytest.warns(RuntimeWarning, match=r"720 different steps become 12 memories.*next step ranks at 0\.\d\d"):
        found = store.calibrate(steps, offsets)
    assert (found["different"], found["memories"]) == (720, 12)
    assert len(store) == 0
    tuned = sw.ValueStore(sw.tune(steps, offsets, grid=GRID).config)
    found = tuned.calibrate(steps, offsets)  # a warning would be an error here
    assert found["memories"] == 24
    tuned.observe(steps, offsets)
    assert len(tuned) == 24


def test_few_episodes_are_counted_and_not_judged() -> None:
    steps, offsets, _ = maze(episodes=3)
    found = granularity.granularity(sw.Config(dim=DIM, merge_cosine=0.6), steps, offsets)
    assert (found.different, found.warning) == (36, None)
    assert np.isnan(found.next_step.value)


def test_memories_of_steps_with_other_drives_are_counted() -> None:
    """Two memories of two different steps each, one of them torn; copies and a step alone do not count."""
    steps = np.eye(6, dtype=np.float32)[[0, 1, 2, 3, 4, 4, 5]]
    memories = np.array([7, 7, 8, 8, 9, 9, -1])
    drives = np.array([[0.0], [1.0], [0.9], [1.0], [0.0], [1.0], [0.0]])
    assert granularity.mixed_memories(steps, drives, memories) == (1, 2)
    assert granularity.mixed_memories(steps, np.full((7, 1), np.nan), memories) == (0, 0)
    assert "1 of 2 memories" in granularity.mixed_warnings(steps, drives, memories)[0]
    assert granularity.mixed_warnings(steps, np.zeros((7, 1)), memories) == []


def test_one_memory_for_many_steps_is_said() -> None:
    """Copies count once, and eight of forty are no more than a fifth."""
    steps = np.eye(40, dtype=np.float32)[[*range(40), 0, 0]]
    ids = np.arange(42)
    ids[40:] = ids[0]
    assert not granularity.crowded_warnings(steps, ids)
    ids[:8] = 0
    assert not granularity.crowded_warnings(steps, ids)
    ids[8] = 0
    (said,) = granularity.crowded_warnings(steps, ids)
    assert said.startswith("one memory holds 9 of 40 different steps")
    ids[:9] = -1  # dropped
    assert not granularity.crowded_warnings(steps, ids)
