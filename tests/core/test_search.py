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


def sentences(n: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """What embeddings of texts are like: topics of unequal size in a few directions that outweigh the rest."""
    topics = rng.normal(size=(200, dim)) / np.sqrt(1 + np.arange(dim))
    share = 1 / (1 + np.arange(200))
    found = topics[rng.choice(200, size=n, p=share / share.sum())]
    return (found + 0.7 * rng.normal(size=(n, dim)) / np.sqrt(1 + np.arange(dim))).astype(np.float32)


def divided() -> tuple[sw.ValueStore, np.ndarray]:
    rng = np.random.default_rng(3)
    store = sw.ValueStore(sw.Config(dim=48, keep_episodes=False))
    store.insert(sentences(6000, 48, rng))
    store.partition()
    return store, sentences(100, 48, rng)


def test_more_blocks_find_more_and_all_of_them_everything() -> None:
    store, queries = divided()
    assert store.blocks == 77
    exact, cosines = store.search(queries, 10)
    recalls = list[float]()
    for nprobe in (1, 4, 16, 76):
        found, _ = store.search(queries, 10, nprobe)
        recalls.append(float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)])))
        report = store.search_report(queries, 10, nprobe)
        assert abs(report.recall - recalls[-1]) < 0.1  # of every second query
        assert (report.blocks, report.probed) == (100, 100 * nprobe)
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.9 < 0.95 < recalls[2]
    for nprobe in (77, 1000):
        found, same = store.search(queries, 10, nprobe)
        assert found.tolist() == exact.tolist()
        assert same.tobytes() == cosines.tobytes()
    assert store.search_report(queries, 10, 77).recall == store.search_report(queries, 10).recall == 1.0


def test_a_division_is_beside_the_state_and_follows_it() -> None:
    store, queries = divided()
    digest, view = store.digest(), store.frozen()
    store.partition(blocks=30, seed=1)
    assert (store.blocks, view.blocks, store.digest()) == (30, 77, digest)
    loaded = sw.ValueStore.from_bytes(store.to_bytes())
    assert loaded.blocks is None
    (new,) = store.insert(queries[:1])
    found, cosines = store.search(queries[:1], 1, nprobe=1)
    assert found.item() == new
    assert cosines.item() == pytest.approx(1.0)


def test_a_division_refuses_bad_arguments() -> None:
    store = sw.ValueStore(sw.Config(dim=4, keep_episodes=False))
    with pytest.raises(ValueError, match=r"^blocks: "):
        store.partition()
    store.insert(np.eye(4, dtype=np.float32))
    with pytest.raises(ValueError, match=r"^nprobe: .*partition\(\)"):
        store.search(np.ones((1, 4), np.float32), nprobe=1)
    for blocks in (0, 5):
        with pytest.raises(ValueError, match=r"^blocks: "):
            store.partition(blocks)
    store.partition(2)
    with pytest.raises(ValueError, match=r"^nprobe: "):
        store.search(np.ones((1, 4), np.float32), nprobe=0)
