"""The oracle against what can be worked out by hand: an oracle that nobody checks is only a second opinion."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Habituation, Oracle, Settings
from oracle.arithmetic import LANES, Histogram, dot, dot1, kappa, median, normalise, splitmix64


def one_hot(path: list[int], d: int) -> np.ndarray:
    return np.eye(d, dtype=np.float32)[path]


# ---------------------------------------------------------------------- arithmetic


@given(st.integers(1, 100), st.integers(0, 2**32 - 1))
def test_dot_is_the_lane_by_lane_definition(d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, d)).astype(np.float32)
    lanes = [np.float32(0)] * LANES
    for i in range(d):
        lanes[i % LANES] = np.float32(lanes[i % LANES] + np.float32(x[i] * y[i]))
    half = LANES // 2
    while half:
        for i in range(half):
            lanes[i] = np.float32(lanes[i] + lanes[i + half])
        half //= 2
    assert dot1(x, y) == float(lanes[0])


@given(st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_dot_is_within_the_rounding_bound(d: int, seed: int) -> None:
    """A lane rounds a product and at most ⌈d/32⌉ sums, the tree five more: |error| ≤ (⌈d/32⌉ + 6)·u·Σ|x_i y_i|."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, d)).astype(np.float32)
    exact = x.astype(np.float64) @ y.astype(np.float64)
    magnitude = np.abs(x.astype(np.float64)) @ np.abs(y.astype(np.float64))
    assert abs(dot1(x, y) - exact) <= (-(-d // LANES) + 6) * 2.0**-24 * 1.01 * magnitude


def test_dot_of_a_row_does_not_depend_on_its_neighbours() -> None:
    keys = np.random.default_rng(0).normal(size=(9, 40)).astype(np.float32)
    assert [dot1(keys[0], key) for key in keys] == dot(keys[0], keys).tolist()


@pytest.mark.parametrize("row", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_normalise_refuses_rows_without_direction(row: list[float]) -> None:
    with pytest.raises(ValueError, match="direction"):
        normalise(row)


def test_normalise_survives_tiny_and_huge_rows() -> None:
    assert normalise(np.array([3e-38, 4e-38], np.float32)) == pytest.approx([0.6, 0.8])
    assert normalise(np.array([3e37, 4e37], np.float32)) == pytest.approx([0.6, 0.8])


def test_kappa_has_compact_support() -> None:
    assert [kappa(s, 0.2, 2) for s in (-1.0, 0.2, 0.6, 1.0, 1.5)] == pytest.approx([0, 0, 0.25, 1, 1])


def test_median_is_that_of_numpy() -> None:
    assert median(np.array([3, 1, 2], np.float32)) == 2
    assert median(np.array([4, 1, 2, 3], np.float32)) == 2.5
    assert median(np.zeros(0, np.float32)) == 0


def test_splitmix_is_the_published_sequence() -> None:
    """The first outputs of SplitMix64 seeded with 0."""
    golden = 0x9E3779B97F4A7C15
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [splitmix64(i * golden % 2**64) for i in range(3)] == published


def test_histogram_quantiles_are_bin_centres() -> None:
    histogram = Histogram()
    for cosine in (-1.0, 0.0, 0.001, 1.0):
        histogram.add(cosine)
    assert histogram.quantile(0.5) == pytest.approx(0.0025)
    assert histogram.quantile(0.1) == pytest.approx(-0.9975)
    assert histogram.quantile(0.9) == pytest.approx(0.9975)


# ---------------------------------------------------------------------- learning


@pytest.mark.parametrize("trace", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.02])
def test_a_chain_is_worth_gamma_to_the_distance(trace: float, epsilon: float) -> None:
    T, gamma = 7, 0.7
    o = Oracle(Settings(dim=T, gamma=gamma, trace=trace, epsilon=epsilon, k=1))
    o.add_channel("end")
    report = o.observe(one_hot(list(range(T)), T), drives=[[np.nan]] * (T - 1) + [[1.0]])
    assert report.outcome == ["new"] * T
    assert report.backups == T - 1
    if trace == 0 or epsilon == 0:
        step = gamma / (1 + epsilon)
        assert o.values[:, 0] == pytest.approx([step ** (T - 1 - t) for t in range(T)], rel=1e-6)
    assert o.replay().backups == 0


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=8), min_size=1, max_size=6))
def test_without_epsilon_P_is_the_empirical_frequency(paths: list[list[int]]) -> None:
    o = Oracle(Settings(dim=6, epsilon=0.0, k=1, min_novelty=0.5))
    memory = {}
    for path in paths:
        memory.update(zip(path, o.observe(one_hot(path, 6)).memory_ids, strict=True))
    transitions = Counter(step for path in paths for step in pairwise(path))
    leaving = Counter(a for path in paths for a, _ in pairwise(path))
    expected = {(memory[a], memory[b]): n / leaving[a] for (a, b), n in transitions.items() if a != b}
    source, target, weight = o.edges()
    assert dict(zip(zip(source, target, strict=True), weight, strict=True)) == expected


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_return_values_solve_the_linear_system(seed: int) -> None:
    rng = np.random.default_rng(seed)
    o = Oracle(Settings(dim=5, k=3, tau=0.1, equation="return", min_novelty=0.5, trace=0.4))
    o.add_terminal("a", rng.normal(size=5))
    o.add_channel("s")
    o.observe(rng.normal(size=(20, 5)), [0, 7, 20], drives=rng.normal(size=(20, 1)))
    o.replay(tol=1e-6)
    place = {i: n for n, i in enumerate(o.ids.tolist())}
    P = np.zeros((len(o), len(o)))
    for i, j, p in zip(*o.edges(), strict=True):
        P[place[i], place[j]] = p
    v = np.linalg.solve(np.eye(len(o)) - 0.7 * P, np.stack([o.state.drives(i) for i in o.state.memories]))
    assert o.values == pytest.approx(v, abs=1e-5)


def test_orders_of_a_chain_cost_what_the_model_says() -> None:
    T = 6

    def fresh() -> Oracle:
        o = Oracle(Settings(dim=T, k=1))
        o.observe(one_hot(list(range(T)), T))
        o.add_terminal("end", np.eye(T)[T - 1] + 1e-9, low=0.5, high=1.0)
        return o

    assert fresh().replay(order="reverse").backups == T - 1
    assert fresh().replay(order="prioritized").backups == T - 1
    assert fresh().replay(order="full").backups == (T - 1) ** 2
    assert fresh().replay(order="full", budget=7).backups == 7


def test_an_eviction_takes_the_row_and_the_column() -> None:
    o = Oracle(Settings(dim=4, k=1, capacity=3, half_life=1))
    o.observe(one_hot([0, 1, 2, 1, 2], 4))
    o.observe(one_hot([3], 4))
    assert o.ids.tolist() == [1, 2, 3]
    assert next(zip(*o.edges(), strict=True))[:2] == (1, 2)


# ---------------------------------------------------------------------- scoring


def line() -> Oracle:
    o = Oracle(Settings(dim=5, k=1, d_lo=0.5, d_hi=0.8))
    o.add_channel("end")
    o.observe(one_hot([0, 1, 2, 3], 5), drives=[[np.nan], [np.nan], [np.nan], [1.0]])
    return o


def test_coverage_pays_every_memory_once() -> None:
    o = line()
    v = o.values[:, 0].astype(np.float64)
    s = o.score(one_hot([0, 1, 2, 2, 3, 1, 4], 5))
    phi = 1 / 1.02
    assert s.step == pytest.approx([0, phi * v[1], phi * v[2], 0, phi * v[3], 0, 0])
    assert s.edge.tolist() == [0, 1, 1, 0, 1, 0, 0]
    assert s.redundancy.tolist() == [1, 1, 1, 0, 1, 0, 1]
    assert s.support[6] == 0


def test_harm_is_charged_in_full_every_time() -> None:
    s = line().score(one_hot([0, 3, 3], 5), weights=[-1.0])
    assert s.step == pytest.approx([0, -1 / 1.02, -1 / 1.02])


@pytest.mark.parametrize("context", [0, 1, 2])
def test_potential_telescopes(context: int) -> None:
    o = line()
    Phi = o.value(one_hot([0, 2, 1, 3], 5))[0][:, 0]
    s = o.score(one_hot([0, 2, 1, 3], 5), functional="potential", context=context, discount=0.9)
    start = max(context - 1, 0)
    length = len(s.step) - context
    assert sum(0.9**t * s.step[context + t] for t in range(length)) == pytest.approx(-Phi[start])


def test_habituation_forgets_after_its_window() -> None:
    o, table = line(), Habituation(episodes=2)
    full = o.score(one_hot([0, 1], 5), habituation=table)
    table.record(full)
    once = o.score(one_hot([0, 1], 5), habituation=table)
    assert once.total == pytest.approx(full.total / (1 + 1 / 1.02))
    for _ in range(2):
        table.record(o.score(one_hot([0, 4], 5)))
    assert o.score(one_hot([0, 1], 5), habituation=table).total == full.total


# ---------------------------------------------------------------------- history


def test_veto_is_as_if_never_seen() -> None:
    rng = np.random.default_rng(3)
    first, bad, last = (rng.normal(size=(6, 4)) for _ in range(3))
    clean, dirty = Oracle(Settings(dim=4)), Oracle(Settings(dim=4))
    for o, episodes in ((clean, [first, last]), (dirty, [first, bad, last])):
        o.add_terminal("t", [1, 0, 0, 0])
        for steps in episodes:
            o.observe(steps)
    made_before = dirty.state.next_id
    dirty.veto(episode=1)
    assert dirty.keys.tolist() == clean.keys.tolist()
    assert dirty.values.tolist() == clean.values.tolist()
    assert dirty.edges()[2] == clean.edges()[2]
    kept = Oracle(Settings(dim=4))
    kept.add_terminal("t", [1, 0, 0, 0])
    kept.observe(first)
    before = kept.ids.tolist()
    assert dirty.ids.tolist()[: len(before)] == before
    assert all(i >= made_before for i in dirty.ids.tolist()[len(before) :])


def test_veto_of_a_memory_cuts_the_episode() -> None:
    o = line()
    o.veto(memory=1)
    assert len(o) == 3
    assert [edge[:2] for edge in zip(*o.edges(), strict=True)] == [(5, 6)]


def test_a_drifting_consolidation_is_refused() -> None:
    o = Oracle(Settings(dim=4))
    o.calibrate(np.eye(4) + 0.1)
    o.add_channel("s")
    o.observe(np.eye(4), drives=[[0.5]] * 4, propose=True)
    assert len(o) == 0
    refused = o.replay(consolidate=True, max_drift=0.01)
    assert refused.refused
    assert len(o) == 0
    accepted = o.replay(consolidate=True, max_drift=10.0)
    assert (accepted.observed, len(o)) == (1, 4)
