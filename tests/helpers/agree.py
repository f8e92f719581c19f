"""Comparing a store with the oracle: integers and texts exactly, numbers within what rounding can do.

Both use the same canonical arithmetic, so keys agree bit for bit. Above the keys everything is float64 in fixed orders;
where the order of a sum is left open the last bit may differ, hence 1e-12 for what stays in float64, and a few units in
the last place (1e-6) for what is rounded to float32 on the way or when it is returned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sharpwave as sw
from oracle import Oracle, Settings, View

WIDE = {"rtol": 1e-12, "atol": 1e-15}  # float64 all the way
NARROW = {"rtol": 1e-6, "atol": 1e-9}  # rounded to float32


def pair(**numbers: Any) -> tuple[sw.ValueStore, Oracle]:
    """A store and an oracle of the same config."""
    return sw.ValueStore(sw.Config(**numbers)), Oracle(Settings(**numbers))


def close(actual: Any, expected: Any, what: str, tolerance: dict[str, float] = NARROW) -> None:
    """The arrays are equal within the tolerance."""
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), **tolerance, err_msg=what)


def same(actual: Any, expected: Any, what: str) -> None:
    """The arrays are equal."""
    np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected), err_msg=what)


def same_state(store: sw.ValueStore, oracle: Oracle) -> None:
    """Everything that a store shows of its state."""
    assert len(store) == len(oracle)
    assert list(store.channels) == oracle.channels
    same(store.ids, oracle.ids, "ids")
    same(store.keys, oracle.keys, "keys")
    same(store.counts, oracle.counts, "counts m_i")
    same(store.is_terminal, oracle.is_terminal, "is_terminal")
    assert store.texts == oracle.texts
    close(store.mass, oracle.mass, "mass n_i", WIDE)
    close(store.drives, oracle.drives, "drives r_iq")
    source, target, weight = store.edges()
    source_o, target_o, weight_o = oracle.edges()
    same(source, source_o, "edge sources")
    same(target, target_o, "edge targets")
    close(weight, weight_o, "P_ij", WIDE)
    close(store.values, oracle.values, "values v_iq")
    close(store.baseline, oracle.baseline, "baseline b_q")


def same_scores(actual: sw.Scores, expected: Any) -> None:
    """Totals, pays and gates."""
    for name in ("support", "edge", "redundancy"):
        close(getattr(actual, name), getattr(expected, name), name)
    close(actual.step, expected.step, "step", {"rtol": 1e-5, "atol": 1e-8})
    close(actual.total, expected.total, "total", {"rtol": 1e-5, "atol": 1e-7})


def same_views(actual: sw.View, expected: View, steps: Any, offsets: Any, **score_kwargs: Any) -> None:
    """Search, value and score of two views."""
    ids, sims = actual.search(steps, k=5)
    ids_o, sims_o = expected.search(steps, k=5)
    same(ids, ids_o, "search ids")
    same(sims, sims_o, "search cosines")
    Phi, sigma = actual.value(steps)
    Phi_o, sigma_o = expected.value(steps)
    close(Phi, Phi_o, "Φ", {"rtol": 1e-5, "atol": 1e-8})
    close(sigma, sigma_o, "σ")
    same_scores(actual.score(steps, offsets, **score_kwargs), expected.score(steps, offsets, **score_kwargs))
