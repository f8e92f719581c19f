"""From a store to a faiss index and back: the same vectors, the same answers."""

from __future__ import annotations

import sys

import faiss
import numpy as np
import pytest
import sharpwave as sw
from sharpwave import interop
from sharpwave._lazy import MissingExtra
from worlds import lived

DIM = 24


def rows(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def agree(store: sw.ValueStore, index: faiss.Index, names: dict[int, int] | None = None, k: int = 10) -> None:
    """Both give the same neighbours, but for near-ties that rounding decides."""
    queries = rows(200, seed=9, dim=store.dim)
    ids, cosines = store.search(queries, k)
    found, ids_f = index.search(queries, k)
    if index.metric_type == faiss.METRIC_L2:
        found = 1.0 - found / 2.0
    np.testing.assert_allclose(found, cosines, atol=2e-6)
    if names is not None:
        ids_f = np.vectorize(names.__getitem__)(ids_f)
    clear = np.abs(np.diff(cosines, axis=1, prepend=np.inf, append=-np.inf)) > 4e-6
    clear = clear[:, :-1] & clear[:, 1:]
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(ids_f[clear], ids[clear])


def test_a_store_becomes_an_index() -> None:
    store = sw.ValueStore(sw.Config(dim=DIM))
    store.insert(rows(500))
    index = interop.to_faiss(store, batch=64)
    assert type(faiss.downcast_index(index)) is faiss.IndexFlatIP
    assert index.ntotal == 500
    np.testing.assert_array_equal(index.reconstruct_n(0, 500), store.keys)
    agree(store, index)


def test_ids_are_kept_where_they_have_holes() -> None:
    store = lived(3, episodes=20, capacity=30)
    store.remove_channel("a")
    assert not np.array_equal(store.ids, np.arange(len(store)))
    index = interop.to_faiss(store.frozen(), batch=7)
    agree(store, index, k=5)
    for i, key in zip(store.ids.tolist(), store.keys, strict=True):
        np.testing.assert_array_equal(index.reconstruct(i), key)


def test_an_empty_store_becomes_an_empty_index() -> None:
    assert interop.to_faiss(sw.ValueStore(sw.Config(dim=DIM))).ntotal == 0


@pytest.mark.parametrize("kind", ["Flat", "HNSW8,Flat", "IVF4,Flat"])
@pytest.mark.parametrize("metric", [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2])
def test_an_index_becomes_a_store(kind: str, metric: int) -> None:
    vectors = rows(300)
    index = faiss.index_factory(DIM, kind, metric)
    index.train(vectors)
    index.add(vectors)
    if kind.startswith("IVF"):
        index.nprobe = 4
    if kind.startswith("HNSW"):
        index.hnsw.efSearch = 300
    store, memory_ids, faiss_ids = interop.from_faiss(index, batch=64)
    np.testing.assert_array_equal(memory_ids, store.ids)
    np.testing.assert_array_equal(faiss_ids, np.arange(300))
    np.testing.assert_allclose(store.keys, vectors, atol=1e-7)
    agree(store, index)


def test_the_ids_of_an_index_are_given_back() -> None:
    ids = np.random.default_rng(1).permutation(10_000)[:300].astype(np.int64)
    index = faiss.IndexIDMap(faiss.IndexFlatIP(DIM))
    index.add_with_ids(rows(300), ids)
    store = sw.ValueStore(sw.Config(dim=DIM))
    store.add_terminal("end", rows(1, seed=5)[0])
    there, memory_ids, faiss_ids = interop.from_faiss(index, store)
    assert there is store
    np.testing.assert_array_equal(faiss_ids, ids)
    np.testing.assert_array_equal(memory_ids, store.ids[1:])
    queries = rows(50, seed=9)
    names = dict(zip(memory_ids.tolist(), ids.tolist(), strict=True)) | {0: -1}
    _, expected = index.search(queries, 1)
    found, _ = store.search(queries, 2)
    first = [next(names[i] for i in pair if names[i] != -1) for pair in found.tolist()]
    assert first == expected[:, 0].tolist()


def test_there_and_back() -> None:
    store = lived(4, episodes=12)
    back = interop.from_faiss(interop.to_faiss(store), batch=5)
    np.testing.assert_array_equal(back.faiss_ids, store.ids)
    names = dict(zip(store.ids.tolist(), back.memory_ids.tolist(), strict=True))
    agree(back.store, interop.to_faiss(store), names, k=5)


def test_quantised_vectors_come_as_they_decode() -> None:
    vectors = rows(300)
    index = faiss.index_factory(DIM, "SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    store = interop.from_faiss(index, normalise=True).store
    assert 0 < np.abs(store.keys - vectors).max() < 0.02


def test_what_is_refused_is_refused_in_one_line_and_writes_nothing() -> None:
    store = sw.ValueStore(sw.Config(dim=DIM))
    long = faiss.IndexFlatIP(DIM)
    long.add(np.concatenate([rows(100), 2 * rows(1)]))
    with pytest.raises(ValueError, match=r"^index: vector 100, of norm 2, is not of unit norm; normalise=True .*$"):
        interop.from_faiss(long, store, batch=32)
    assert len(store) == 0
    assert len(interop.from_faiss(long, store, normalise=True).store) == 101
    zero = faiss.IndexFlatIP(DIM)
    zero.add(np.zeros((1, DIM), np.float32))
    with pytest.raises(ValueError, match="vector 0, of norm 0, is not a direction"):
        interop.from_faiss(zero, normalise=True)
    with pytest.raises(ValueError, match=r"^index: its metric must be the inner product or L2, got metric_type 2$"):
        interop.from_faiss(faiss.IndexFlat(DIM, faiss.METRIC_L1))
    with pytest.raises(ValueError, match="dimension 24, the store of 8"):
        interop.from_faiss(faiss.IndexFlatIP(DIM), sw.Config(dim=8))
    with pytest.raises(TypeError, match=r"index must be a faiss\.Index, got ndarray"):
        interop.from_faiss(rows(3))
    with pytest.raises(TypeError, match="store must be a ValueStore or a Config, got str"):
        interop.from_faiss(faiss.IndexFlatIP(DIM), "store")  # type: ignore[arg-type]
    for call in (lambda: interop.to_faiss(store, batch=0), lambda: interop.from_faiss(long, batch=0)):
        with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
            call()
    named = faiss.index_factory(DIM, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT)
    named.train(rows(300))
    named.add_with_ids(rows(300), 7 * np.arange(300))
    with pytest.raises(ValueError, match=r"^index: the ids in a IndexIVFFlat must be 0 … n−1; .*IndexIDMap$"):
        interop.from_faiss(named)
    with pytest.raises(KeyError, match="unknown memory 999"):
        store._core.keys_of(np.array([999]))
    shards = faiss.IndexShards(DIM)
    shards.add_shard(faiss.IndexFlatL2(DIM))
    shards.add(rows(10))
    with pytest.raises(ValueError, match=r"^index: a IndexShards does not give its vectors back: reconstruct not .*$"):
        interop.from_faiss(shards)


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra, match=r"pip install 'sharpwave\[faiss\]'"):
        interop.to_faiss(sw.ValueStore(sw.Config(dim=DIM)))
