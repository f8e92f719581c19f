"""Replay against the oracle, backup by backup: every order, need and budget, on graphs with much to do."""

from __future__ import annotations

from typing import Any

import numpy as np
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
