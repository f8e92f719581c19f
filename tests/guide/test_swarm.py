"""Weights, resampling and the estimate of the divergence, by themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharpwave.guide.swarm import normalised, potential, systematic

log_weights = st.lists(st.floats(-30, 30), min_size=1, max_size=16).map(np.array)


@given(log_weights, st.floats(-500, 500))
def test_weights_do_not_change_with_a_shift_of_all_increments(logs: np.ndarray, shift: float) -> None:
    weights, mean = normalised(logs)
    shifted, moved = normalised(logs + shift)
    np.testing.assert_allclose(shifted, weights, rtol=1e-9, atol=1e-12)
    assert weights.sum() == pytest.approx(1.0)
    assert moved - mean == pytest.approx(shift, abs=1e-6)
    assert mean == pytest.approx(np.log(np.mean(np.exp(logs))), abs=1e-9)


@given(log_weights)
def test_resampling_is_unbiased_and_never_off_by_one(logs: np.ndarray) -> None:
    weights, _ = normalised(logs)
    count = len(weights)
    places = (np.arange(2000) + 0.5) / 2000
    drawn = np.array([np.bincount(systematic(weights, u), minlength=count) for u in places])
    assert (drawn.sum(1) == count).all()
    assert (np.abs(drawn - count * weights) < 1 + 1e-9).all()
    np.testing.assert_allclose(drawn.mean(0), count * weights, atol=2e-3)


@given(log_weights, st.floats(0, 1, exclude_max=True))
def test_parents_are_ascending_and_have_weight(logs: np.ndarray, uniform: float) -> None:
    weights, _ = normalised(logs)
    parents = systematic(weights, uniform)
    assert (np.diff(parents) >= 0).all()
    assert (weights[parents] > 0).all()


def test_only_what_is_positive_is_gated() -> None:
    pay, ahead, gate = np.array([1.0, 0.0, -1.0, 1.0]), np.array([1.0, 2.0, 0.5, -3.0]), np.array([0.5, 0.0, 0.1, 0.0])
    assert potential(pay, ahead, gate).tolist() == [1.0, 0.0, -0.5, -2.0]
