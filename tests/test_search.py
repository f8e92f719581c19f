"""Search is exact: the ids and cosines of the canonical dot product, ties to the lower id."""

from __future__ import annotations

import numpy as np
import pytest
import sharpwave as sw
from oracle.arithmetic import dot, normalise


def crowd(n: int, dim: int, kind: str) -> np.ndarray:
    """Keys that are hard to tell apart: copies, tight clusters, no structure at all, one dominant direction."""
    rng = np.random.default_rng(dim)
    if kind == "copies":
        return rng.normal(size=(n // 5, dim))[rng.integers(n // 5, size=n)]
    if kind == "clusters":
        return rng.normal(size=(20, dim))[rng.integers(20, size=n)] + 1e-3 * rng.normal(size=(n, dim))
    if kind == "cone":
        return rng.normal(size=dim) + 0.1 * rng.normal(size=(n, dim))
    return rng.normal(size=(n, dim))


@pytest.mark.parametrize("dim", [1, 3, 31, 32, 33, 100, 384])
@pytest.mark.parametrize("kind", ["copies", "clusters", "cone", "noise"])
def test_search_is_exact(dim: int, kind: str) -> None:
    keys = crowd(1500, dim, kind).astype(np.float32)
    store = sw.ValueStore(sw.Config(dim=dim, keep_episodes=False))
    ids = store.insert(keys)
    store.observe(keys[:40] + np.float32(0.01))  # merges move keys
    queries = np.concatenate([keys[:20], crowd(20, dim, "noise").astype(np.float32)])
    for batch, k in ((40, 16), (1, 1), (7, 60)):
        found, cosines = store.search(queries[:batch], k=k)
        for row in range(batch):
            s = dot(normalise(queries[row]), store.keys)
            order = np.argsort(-s, kind="stable")[:k]
            assert found[row].tolist() == store.ids[order].tolist()
            assert cosines[row].tobytes() == s[order].tobytes()
    assert len(ids) == len(keys)


def test_the_report_says_which_way_a_search_went() -> None:
    dim = 64
    noise = sw.ValueStore(sw.Config(dim=dim, keep_episodes=False))
    noise.insert(crowd(3000, dim, "noise").astype(np.float32))
    same = sw.ValueStore(sw.Config(dim=dim, keep_episodes=False))
    same.insert(np.ones((3000, dim), np.float32))
    queries = crowd(40, dim, "noise").astype(np.float32)
    told_apart, not_at_all = noise.search_report(queries, k=8), same.search_report(queries, k=8)
    for report in (told_apart, not_at_all):
        assert report.int8 + report.bf16 + report.f32 + report.plain == len(queries)
    assert (told_apart.kernel is None) == (told_apart.plain == 40)
    assert 40 * 8 <= told_apart.compared <= 40 * len(noise)
    assert (not_at_all.plain, not_at_all.compared) == (40, 40 * len(same))
