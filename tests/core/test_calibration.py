"""Calibration: τ, the redundancy range, the ranges of terminals and of edge support, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import sharpwave as sw
from agree import close, pair, same_views
from hypothesis import given
from hypothesis import strategies as st
from worlds import one_hot, seeds, wander


@given(seed=seeds, sizes=st.lists(st.integers(1, 9), min_size=2, max_size=9), noise=st.sampled_from([0.05, 0.4, 2.0]))
def test_calibration_is_that_of_the_oracle(seed: int, sizes: list[int], noise: float) -> None:
    store, oracle = pair(dim=8)
    steps, offsets = wander(seed, sizes, noise=noise)
    found, expected = store.calibrate(steps, offsets), oracle.calibrate(steps, offsets)
    for name, number in expected.items():
        close(found[name], number, name)
        close(getattr(store.config, name), number, name)
    key = np.random.default_rng(seed).normal(size=8)
    store.add_terminal("measured", key)
    oracle.add_terminal("measured", key)
    (channel,) = oracle.state.channels
    close(store.channel_ranges["measured"], (channel.low, channel.high), "range")


def test_a_large_sample_is_strided() -> None:
    store, oracle = pair(dim=4)
    steps, _ = wander(0, [2500], dim=4)
    assert store.calibrate(steps)["tau"] == pytest.approx(oracle.calibrate(steps)["tau"], rel=1e-6)
    store.add_terminal("measured", np.ones(4))
    oracle.add_terminal("measured", np.ones(4))
    close(store.channel_ranges["measured"], (oracle.state.channels[0].low, oracle.state.channels[0].high), "range")


def test_without_calibration_the_ranges_are_the_defaults() -> None:
    store = sw.ValueStore(sw.Config(dim=4))
    store.add_terminal("raw", np.ones(4))
    store.add_terminal("half", np.ones(4), high=0.5)
    assert store.channel_ranges == {"raw": (0.0, 1.0), "half": (0.0, 0.5)}
    assert (store.config.d_lo, store.config.d_hi) == (0.52, 0.79)


def test_steps_that_are_all_alike_leave_a_store_that_works() -> None:
    store = sw.ValueStore(sw.Config(dim=4))
    store.calibrate(np.ones((6, 4)), [0, 3, 6])
    assert store.config.tau < 1
    assert (store.config.d_lo, store.config.d_hi) == (0.52, 0.79)
    store.observe(one_hot([0, 1, 2], 4))
    assert sw.ValueStore.from_bytes(store.to_bytes()).digest() == store.digest()


def test_calibration_needs_an_empty_store() -> None:
    store = sw.ValueStore(sw.Config(dim=4))
    store.add_terminal("t", np.ones(4))
    with pytest.raises(ValueError, match="empty"):
        store.calibrate(np.eye(4))


@given(seed=seeds, noise=st.sampled_from([0.1, 0.4, 0.8]))
def test_the_edge_range_is_that_of_the_oracle(seed: int, noise: float) -> None:
    """More than 32 pairs, predicted before each write, so that the histograms hold."""
    store, oracle = pair(dim=8, k=5, tau=0.1, min_novelty=0.5)
    rng = np.random.default_rng(seed)
    for number in range(4):
        steps, offsets = wander(seed + number, rng.integers(3, 9, size=4).tolist(), noise=noise)
        store.observe(steps, offsets)
        oracle.observe(steps, offsets)
    store.add_channel("s")
    oracle.add_channel("s")
    assert oracle.state.pairs >= 32
    same_views(store, oracle, *wander(seed + 9, [8, 8], noise=noise))
