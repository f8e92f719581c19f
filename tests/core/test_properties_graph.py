"""What must always hold (docs/model.md §8, 1 to 6): associations and values."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
from hypothesis import given
from hypothesis import strategies as st
from worlds import lived, matrix, one_hot, seeds, wander

GAMMA = 0.7


# ---------------------------------------------------------------------- 1: rows of P


@given(
    seed=seeds,
    trace=st.sampled_from([0.0, 0.5, 1.0]),
    epsilon=st.sampled_from([1e-3, 0.02, 1.0]),
    capacity=st.sampled_from([None, 8]),
    max_out=st.sampled_from([1, 3, 32]),
)
def test_rows_of_P_are_non_negative_and_sum_to_at_most_one(seed: int, **numbers: Any) -> None:
    store = lived(seed, **numbers)
    for step in range(4):
        if step == 1:
            store.veto(episode=seed % 6)
        elif step == 2:
            store.veto(memory=int(store.ids[~store.is_terminal][seed % 3]))
        elif step == 3:
            store.observe(*wander(seed + 1, [5, 5]))
        P = matrix(store)
        assert (P >= 0).all()
        assert (P.sum(1) <= 1).all()
        assert (P.diagonal() == 0).all()
        assert (np.count_nonzero(P, axis=1) <= numbers["max_out"]).all()


# ---------------------------------------------------------------------- 2: empirical frequencies


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=8), min_size=1, max_size=6))
def test_one_hot_P_is_the_empirical_frequency(paths: list[list[int]]) -> None:
    """φ = 1/(1 + ε) for the memory itself: C carries its square and n its first power, so P carries 1/(1 + ε) once."""
    epsilon = 1e-3
    store = sw.ValueStore(sw.Config(dim=6, epsilon=epsilon, k=1, min_novelty=0.5))
    memory: dict[int, int] = {}
    for path in paths:
        memory |= dict(zip(path, store.observe(one_hot(path, 6)).memory_ids.tolist(), strict=True))
    taken = Counter(step for path in paths for step in pairwise(path))
    leaving = Counter(a for path in paths for a, _ in pairwise(path))
    expected = {(memory[a], memory[b]): n / leaving[a] for (a, b), n in taken.items() if a != b}
    source, target, weight = store.edges()
    found = dict(zip(zip(source.tolist(), target.tolist(), strict=True), weight * (1 + epsilon), strict=True))
    assert found == pytest.approx(expected, rel=1e-12)


# ---------------------------------------------------------------------- 3: the backup contracts


def fixed_point(store: sw.ValueStore) -> np.ndarray:
    """Iterate the value equation in float64 until nothing changes."""
    P, r = matrix(store), store.drives.astype(np.float64)
    v = r.copy()
    for _ in range(400):
        ahead = store.config.gamma * P @ v
        v = np.maximum(r, ahead) if store.config.equation == "stopping" else r + ahead
    return v


@given(
    seed=seeds,
    order=st.sampled_from(["prioritized", "reverse", "full"]),
    need=st.sampled_from(["frequency", "uniform", "starts"]),
    budget=st.sampled_from([0, 3, 20, None]),
    tol=st.sampled_from([1e-2, 1e-5]),
    equation=st.sampled_from(["stopping", "return"]),
    threads=st.integers(1, 2),
)
def test_the_residual_bounds_the_distance_to_the_fixed_point(
    seed: int, order: Any, need: Any, budget: int | None, tol: float, equation: Any, threads: int
) -> None:
    store = lived(seed, gamma=0.9, trace=0.5, equation=equation)
    store.add_terminal("late", np.ones(8))
    report = store.replay(budget, tol, order, store.ids[:2] if need == "starts" else need, num_threads=threads)
    distance = float(np.abs(store.values - fixed_point(store)).max())
    slack = 1e-5  # of float32 values, times 1/(1 − γ)
    assert distance <= report.residual + slack
    assert report.converged == (report.residual <= tol)
    if budget is None:
        assert report.converged
    else:
        assert report.backups <= budget


@given(seed=seeds)
def test_every_order_and_thread_count_reaches_one_fixed_point(seed: int) -> None:
    results = []
    for order in ("prioritized", "reverse", "full"):
        for threads in (1, 2):
            store = lived(seed, gamma=0.9)
            store.add_terminal("late", np.ones(8))
            store.replay(tol=1e-6, order=order, num_threads=threads)
            results.append(store.values)
    for values in results[1:]:
        np.testing.assert_allclose(values, results[0], atol=1e-5)
    assert results[0].tobytes() == results[1].tobytes()


@given(seed=seeds)
def test_the_backup_is_a_contraction(seed: int) -> None:
    """|Tu − Tw| ≤ γ|u − w|, seen through the rows of the store's own P."""
    store = lived(seed)
    P, r = matrix(store), store.drives.astype(np.float64)
    u, w = np.random.default_rng(seed).normal(size=(2, *r.shape))
    stopping = np.abs(np.maximum(r, GAMMA * P @ u) - np.maximum(r, GAMMA * P @ w)).max()
    returned = np.abs(GAMMA * P @ (u - w)).max()
    assert max(stopping, returned) <= GAMMA * np.abs(u - w).max() + 1e-12


@given(seed=seeds)
def test_a_second_sleep_does_nothing(seed: int) -> None:
    store = lived(seed)
    before = store.digest()
    report = store.replay(tol=1e-6)
    assert report.backups == 0
    assert store.digest() == before


# ---------------------------------------------------------------------- 4 and 5: the two equations


@given(seed=seeds)
def test_stopping_values_lie_between_the_drive_and_the_best_drive(seed: int) -> None:
    store = lived(seed)
    assert (store.values >= store.drives - 1e-6).all()
    assert (store.values <= store.drives.max(0) + 1e-6).all()


@given(steps=st.integers(0, 6))
def test_moving_mass_onto_oneself_never_raises_the_value(steps: int) -> None:
    """0 → 1 is seen twice; then one of the moves is replaced by staying at 0."""

    def value(paths: list[list[int]]) -> float:
        store = sw.ValueStore(sw.Config(dim=3, k=1, min_novelty=0.5))
        store.add_channel("s")
        for path in paths:
            drives = np.full((len(path), 1), np.nan)
            drives[np.array(path) == 1] = 1.0
            store.observe(one_hot(path, 3), drives=drives)
        store.replay(tol=1e-7)
        return float(store.values[0, 0])

    moved = value([[0, 1], [0, 1], [0, *[0] * steps]])
    assert moved <= value([[0, 1], [0, 1], [0, 1]])
    assert (moved < value([[0, 1], [0, 1]])) == (steps > 0)


@given(seed=seeds)
def test_return_values_are_the_dense_solution(seed: int) -> None:
    store = lived(seed, equation="return", trace=0.5)
    solved = np.linalg.solve(np.eye(len(store)) - GAMMA * matrix(store), store.drives.astype(np.float64))
    np.testing.assert_allclose(store.values, solved, atol=1e-5)


@given(seed=seeds, scale=st.floats(0.0, 3.0))
def test_return_values_are_linear_and_monotone_in_the_drive(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    steps, offsets = wander(seed, [6, 5, 7])
    first, second = rng.normal(size=(2, len(steps), 1)).astype(np.float32)

    def values(drives: np.ndarray) -> np.ndarray:
        store = sw.ValueStore(sw.Config(dim=8, k=5, min_novelty=0.6, equation="return"))
        store.add_channel("s")
        store.observe(steps, offsets, drives=drives)
        store.replay(tol=1e-7)
        return store.values.astype(np.float64)

    np.testing.assert_allclose(
        values(first + np.float32(scale) * second), values(first) + scale * values(second), atol=1e-4
    )
    assert (values(first + np.abs(second)) >= values(first) - 1e-6).all()


# ---------------------------------------------------------------------- 6: a chain


@given(
    T=st.integers(2, 20),
    trace=st.sampled_from([0.0, 0.5, 1.0]),
    epsilon=st.sampled_from([1e-3, 0.02]),
    gamma=st.sampled_from([0.5, 0.7, 0.95]),
)
def test_a_chain_is_worth_gamma_to_the_distance(T: int, trace: float, epsilon: float, gamma: float) -> None:
    """Exactly without a trace; with one, up to what ε takes from the longer ways."""
    store = sw.ValueStore(sw.Config(dim=T, k=1, gamma=gamma, trace=trace, epsilon=epsilon))
    store.add_channel("end")
    report = store.observe(one_hot(range(T), T), drives=[[np.nan]] * (T - 1) + [[1.0]])
    assert report.counts["new"] == T
    assert report.backups == T - 1
    distance = np.arange(T)[::-1]
    exact = (gamma / (1 + epsilon)) ** distance
    if trace == 0:
        np.testing.assert_allclose(store.values[:, 0], exact, rtol=1e-5)
    else:
        assert (store.values[:, 0] >= exact * (1 - 1e-5)).all()
        assert (store.values[:, 0] <= gamma**distance * (1 + 1e-5)).all()


@given(T=st.integers(2, 12))
def test_orders_of_a_chain_cost_what_they_should(T: int) -> None:
    def fresh() -> sw.ValueStore:
        store = sw.ValueStore(sw.Config(dim=T, k=1))
        store.observe(one_hot(range(T), T))
        store.add_terminal("end", one_hot([T - 1], T)[0], low=0.5, high=1.0)
        return store

    tol = 1e-9  # until nothing changes
    assert fresh().replay(tol=tol, order="reverse").backups == T - 1
    assert fresh().replay(tol=tol, order="prioritized").backups == T - 1
    assert fresh().replay(tol=tol, order="full").backups == (T - 1) ** 2
