"""The successor representation, learned under a random walk, against the closed form; stopping against a solver."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sharpwave as sw
from hypothesis import given
from worlds import lived, matrix, seeds

GAMMA, EPSILON = 0.9, 1e-3


def torus(sides: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours (n, 2·dims) on a ring or a torus, and the closed form of M = (I − γP)⁻¹ for the symmetric walk.

    M is the convolution with the inverse Fourier transform of 1/(1 − γ·mean_d cos(2πk_d/n_d)) (Dayan 1993 for M).
    """
    places = np.array(list(itertools.product(*(range(side) for side in sides))))
    steps = [s * np.eye(len(sides), dtype=int)[d] for d in range(len(sides)) for s in (1, -1)]
    flat = np.ravel_multi_index
    neighbours = np.stack([flat(tuple(((places + step) % sides).T), sides) for step in steps], axis=1)
    waves = np.meshgrid(*(np.cos(2 * np.pi * np.arange(side) / side) for side in sides), indexing="ij")
    gamma = GAMMA / (1 + EPSILON)  # each association carries 1/(1 + ε)
    kernel = np.fft.ifftn(1 / (1 - gamma * np.mean(waves, axis=0))).real
    apart = (places[None] - places[:, None]) % sides
    return neighbours, kernel[tuple(np.moveaxis(apart, -1, 0))]


def learned(walk: np.ndarray, n: int) -> np.ndarray:
    """M as values: with a channel for every place that is 1 there alone, v_iq = Σ_t γ^t p(q after t from i)."""
    store = sw.ValueStore(sw.Config(dim=n, k=1, epsilon=EPSILON, gamma=GAMMA, equation="return", keep_episodes=False))
    store.insert(np.eye(n, dtype=np.float32))
    for q in range(n):
        store.add_channel(str(q))
    drives = np.full((len(walk), n), np.nan)
    drives[np.arange(len(walk)), walk] = 1.0
    store.observe(np.eye(n, dtype=np.float32)[walk], drives=drives)
    store.replay(tol=1e-6)
    return store.values


@pytest.mark.parametrize("sides", [(11,), (4, 5)], ids=["ring", "grid"])
def test_a_walk_that_takes_every_way_alike_learns_the_closed_form(sides: tuple[int, ...]) -> None:
    """A closed walk over every directed edge once (Hierholzer), so that P is exactly that of the random walk."""
    neighbours, M = torus(sides)
    left = [list(row) for row in neighbours]
    path, stack = [], [0]
    while stack:
        if left[stack[-1]]:
            stack.append(int(left[stack[-1]].pop()))
        else:
            path.append(stack.pop())
    walk = np.array(path[::-1])
    assert len(walk) == neighbours.size + 1
    np.testing.assert_allclose(learned(walk, len(M)), M, atol=2e-5)


@pytest.mark.parametrize("sides", [(11,), (4, 5)], ids=["ring", "grid"])
def test_a_random_walk_learns_the_closed_form_better_the_longer_it_is(sides: tuple[int, ...]) -> None:
    neighbours, M = torus(sides)
    rng = np.random.default_rng(0)
    errors = []
    for length in (300, 20_000):
        walk = np.zeros(length, int)
        for t in range(1, length):
            walk[t] = neighbours[walk[t - 1], rng.integers(neighbours.shape[1])]
        errors.append(float(np.abs(learned(walk, len(M)) - M).max()))
    assert errors[1] < 0.25  # of values up to 10·(1/n) and more: M sums to 10 a row
    assert errors[1] < errors[0] / 3


def stopped(P: np.ndarray, r: np.ndarray, gamma: float) -> np.ndarray:
    """Optimal stopping by policy iteration (Howard 1960): solve for the value of a set of stops, improve the set."""
    stop = np.ones(len(r), bool)
    while True:
        v = np.linalg.solve(np.eye(len(r)) - gamma * P * ~stop[:, None], np.where(stop, r, 0.0))
        better = r >= gamma * P @ v - 1e-12
        if (better == stop).all():
            return v
        stop = better


@given(seed=seeds)
def test_stopping_values_are_those_of_an_optimal_stopping_solver(seed: int) -> None:
    store = lived(seed, gamma=0.9, trace=0.5)
    P, r = matrix(store), store.drives.astype(np.float64)
    for q in range(r.shape[1]):
        np.testing.assert_allclose(store.values[:, q], stopped(P, r[:, q], 0.9), atol=2e-5)
