"""Exact top-16 and those who compute it: sharpwave and its peers, each given the same memories and the same queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
import sharpwave as sw
import torch
from numpy.typing import NDArray

from benches.python.data import DIM, Rows

K = 16
SCORES = 1 << 25
"""How many scores NumPy and torch hold at once; more are computed in parts."""

Ids = NDArray[np.int64]
Search = Callable[[Rows, int], Ids]
"""Ids (B, 16) of queries (B, d), on so many threads."""


def filled(rows: Rows) -> sw.ValueStore:
    """A store that holds the rows."""
    store = sw.ValueStore(sw.Config(dim=DIM, keep_episodes=False))
    store.insert(rows)
    return store


def searches(rows: Rows) -> tuple[dict[str, Search], dict[str, str]]:
    """What each peer does to search `rows`, and why a peer is missing."""
    calls, missing = dict[str, Search](), dict[str, str]()
    for peer in PEERS:
        try:
            # Both modes of faiss search one index.
            calls[peer] = _by_blas(calls["faiss"]) if peer == "faiss-blas" else search_of(peer, rows)
        except ImportError as error:
            missing[peer] = f"does not install here: {error}"
    return calls, missing


def search_of(peer: str, rows: Rows) -> Search:
    """What one peer does, ready to be asked."""
    return PEERS[peer](rows)


def _sharpwave(rows: Rows) -> Search:
    store = filled(rows)
    return lambda queries, threads: store.search(queries, K, num_threads=threads)[0]


def _faiss(rows: Rows) -> Search:
    index = faiss.IndexFlatIP(DIM)
    index.add(rows)
    return lambda queries, _: index.search(queries, K)[1]


def _faiss_blas(rows: Rows) -> Search:
    return _by_blas(_faiss(rows))


def _by_blas(search: Search) -> Search:
    def forced(queries: Rows, threads: int) -> Ids:
        with forced_blas():
            return search(queries, threads)

    return forced


def _numpy(rows: Rows) -> Search:
    return lambda queries, _: np.concatenate([_numpy_top(part @ rows.T) for part in _parts(queries, len(rows))])


def _torch(rows: Rows) -> Search:
    tensor = torch.from_numpy(rows)

    def search(queries: Rows, _: int) -> Ids:
        with torch.inference_mode():
            found = [torch.topk(torch.from_numpy(part) @ tensor.T, K).indices for part in _parts(queries, len(rows))]
        return torch.cat(found).numpy()

    return search


def _usearch(rows: Rows) -> Search:
    from usearch.index import MetricKind, search

    return lambda queries, threads: np.atleast_2d(
        search(rows, queries, K, MetricKind.IP, exact=True, threads=threads).keys.astype(np.int64)
    )


@contextmanager
def forced_blas() -> Iterator[None]:
    """faiss avoids BLAS on small batches, and is then up to nine times slower than itself: the better mode counts."""
    before = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = 1
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = before


def agreement(rows: Rows, queries: Rows, ours: Ids, theirs: Ids) -> float:
    """The share of places where both name the same memory, or two whose cosines float32 cannot tell apart."""
    same = ours == theirs
    query, place = np.nonzero(~same)
    cosines: list[Any] = [
        np.einsum("nd,nd->n", queries[query].astype(np.float64), rows[ids[query, place]].astype(np.float64))
        for ids in (ours, theirs)
    ]
    same[query, place] = np.abs(cosines[0] - cosines[1]) < 1e-6
    return float(same.mean())


def _numpy_top(scores: NDArray[np.float32]) -> Ids:
    found = np.argpartition(scores, -K, axis=1)[:, -K:]
    order = np.argsort(-np.take_along_axis(scores, found, 1), axis=1, kind="stable")
    return np.take_along_axis(found, order, 1)


def _parts(queries: Rows, memories: int) -> list[Rows]:
    size = max(1, SCORES // memories)
    return [queries[first : first + size] for first in range(0, len(queries), size)]


PEERS: dict[str, Callable[[Rows], Search]] = {
    "sharpwave": _sharpwave,
    "faiss": _faiss,
    "faiss-blas": _faiss_blas,
    "numpy": _numpy,
    "torch": _torch,
    "usearch": _usearch,
}
