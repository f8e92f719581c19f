"""Exact top-16 beside its peers, in one run: `make bench`.

One thread each. `faiss` runs in both its modes (its own kernels, and forced to BLAS), because which is faster
depends on the batch; compare with the faster of the two. Ids must agree up to exact ties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import faiss
import numpy as np
import pytest
import sharpwave as sw
from numpy.typing import NDArray

DIM, K = 384, 16
SIZES = (10_000, 100_000)
BATCHES = (1, 32, 256)

Rows = NDArray[np.float32]


def clustered(n: int, seed: int) -> Rows:
    """(n, 384) unit rows around 2000 centres, as embeddings of sentences lie."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2000, DIM)).astype(np.float32)
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, len(centres), n)] + rng.normal(size=(n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module", params=SIZES)
def memories(request: pytest.FixtureRequest) -> Rows:
    return clustered(request.param, seed=1)


@pytest.fixture(scope="module")
def store(memories: Rows) -> sw.ValueStore:
    store = sw.ValueStore(sw.Config(dim=DIM, keep_episodes=False))
    store.insert(memories)
    return store


@pytest.fixture(scope="module")
def index(memories: Rows) -> Any:
    index = faiss.IndexFlatIP(DIM)
    index.add(memories)
    return index


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("peer", ["sharpwave", "faiss", "faiss-blas"])
def test_search(benchmark: Any, store: sw.ValueStore, index: Any, peer: str, batch: int) -> None:
    queries = clustered(batch, seed=2)
    before = faiss.cvar.distance_compute_blas_threshold
    searches: dict[str, Callable[[], Any]] = {
        "sharpwave": lambda: store.search(queries, K, num_threads=1),
        "faiss": lambda: index.search(queries, K)[::-1],
        "faiss-blas": lambda: index.search(queries, K)[::-1],
    }
    benchmark.group = f"search {len(store)} × {batch}"
    if peer == "faiss-blas":
        faiss.cvar.distance_compute_blas_threshold = 1
    try:
        ids, _ = benchmark(searches[peer])
    finally:
        faiss.cvar.distance_compute_blas_threshold = before
    exact, _ = store.search(queries, K)
    assert (ids == exact).mean() > 0.999  # near-ties fall differently in another arithmetic


@pytest.mark.parametrize("verb", ["search", "score", "observe"])
def test_verbs(benchmark: Any, store: sw.ValueStore, verb: str) -> None:
    """Scoring and writing beside the search alone: 16 episodes of 16 steps."""
    steps, offsets = clustered(256, seed=3), np.arange(0, 257, 16)
    benchmark.group = f"256 steps, {len(store)} memories"
    if verb == "observe":
        benchmark.pedantic(store.observe, (steps, offsets), rounds=5)
    elif verb == "score":
        benchmark(lambda: store.score(steps, offsets, num_threads=1))
    else:
        benchmark(lambda: store.search(steps, K, num_threads=1))
