"""Approximate search at a recall: each index with the cheapest setting that reaches it, against the exact scan.

Recall is that of the 16 nearest, against the exact ones, over the 1,024 queries that are also timed. Indexes are built
with their usual parameters, on one thread; the build is timed too, for that is what a store that learns has to pay. An
index is kept in `runs/bench/`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from benches.python import timing
from benches.python.data import DIM, KEPT, Rows
from benches.python.exact import Ids, K, filled

RECALLS = (0.95, 0.99)
STEPS = tuple((size,) for size in (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024))
"""How many candidates a walk along a graph keeps."""
LEAVES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""How many parts of a partition are looked at."""

Setting = tuple[int, ...]


@dataclass
class Index:
    """One that was built: what searches with a setting, and the settings from cheap to dear."""

    search: Callable[[Rows, Setting], Ids]
    settings: Sequence[Setting]
    seconds: float = 0.0


def faiss_hnsw(rows: Rows, path: Path) -> Index:
    """M = 32, efConstruction = 40 (its default)."""
    if not path.exists():
        index = faiss.IndexHNSWFlat(DIM, 32, faiss.METRIC_INNER_PRODUCT)
        index.add(rows)
        faiss.write_index(index, str(path))
    index = faiss.read_index(str(path))

    def search(queries: Rows, ef: Setting) -> Ids:
        index.hnsw.efSearch = ef[0]
        return index.search(queries, K)[1]

    return Index(search, STEPS)


def hnswlib(rows: Rows, path: Path) -> Index:
    """M = 16, ef_construction = 200 (its defaults)."""
    import hnswlib

    index = hnswlib.Index(space="ip", dim=DIM)
    if path.exists():
        index.load_index(str(path), max_elements=len(rows))
    else:
        index.init_index(max_elements=len(rows), M=16, ef_construction=200, random_seed=0)
        index.add_items(rows, num_threads=1)
        index.save_index(str(path))

    def search(queries: Rows, ef: Setting) -> Ids:
        index.set_ef(ef[0])
        return index.knn_query(queries, K, num_threads=1)[0].astype(np.int64)

    return Index(search, STEPS)


def usearch(rows: Rows, path: Path) -> Index:
    """bf16, connectivity 16, expansion_add 128 (its defaults)."""
    from usearch.index import Index as Graph

    graph = Graph(ndim=DIM, metric="ip", dtype="bf16")
    if path.exists():
        graph.load(str(path))
    else:
        graph.add(np.arange(len(rows)), rows, threads=1)
        graph.save(str(path))

    def search(queries: Rows, expansion: Setting) -> Ids:
        graph.expansion_search = expansion[0]
        return graph.search(queries, K, threads=1).keys.astype(np.int64)

    return Index(search, STEPS)


def scann(rows: Rows, path: Path) -> Index:
    """A tree of √N leaves, asymmetric hashing of two dimensions a block; leaves and exact comparisons are tuned."""
    from scann import scann_ops_pybind

    if not path.exists():
        path.mkdir()
        builder = scann_ops_pybind.builder(rows, K, "dot_product")
        leaves, sample = round(len(rows) ** 0.5), min(len(rows), 100_000)
        builder = builder.tree(num_leaves=leaves, num_leaves_to_search=10, training_sample_size=sample)
        builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
        builder.set_n_training_threads(1).build().serialize(str(path))
    searcher = scann_ops_pybind.load_searcher(str(path))

    def search(queries: Rows, setting: Setting) -> Ids:
        leaves, compared = setting
        found = searcher.search_batched(queries, leaves_to_search=leaves, pre_reorder_num_neighbors=compared)
        return found[0].astype(np.int64)

    return Index(search, [(leaves, compared) for compared in (50, 100, 200, 400) for leaves in LEAVES])


def exact_scan(rows: Rows, _: Path) -> Index:
    """sharpwave without an index: every memory, at recall 1."""
    store = filled(rows)
    return Index(lambda queries, _: store.search(queries, K, num_threads=1)[0], [(0,)])


def partitioned(rows: Rows, _: Path) -> Index:
    """sharpwave's partitioned search, √N blocks, in so many of them."""
    store = filled(rows)
    store.partition(num_threads=1)
    return Index(
        lambda queries, blocks: store.search(queries, K, blocks[0], num_threads=1)[0],
        [(blocks,) for blocks in LEAVES],
    )


BUILDERS: dict[str, Callable[[Rows, Path], Index]] = {
    "sharpwave": exact_scan,
    "sharpwave-partitioned": partitioned,
    "scann": scann,
    "faiss-hnsw": faiss_hnsw,
    "hnswlib": hnswlib,
    "usearch": usearch,
}


SMALL, SMALL_ONLY = 100_000, ("hnswlib", "usearch")
"""Peers that are not built over more memories than that."""


def built(name: str, rows: Rows) -> tuple[dict[str, Index], dict[str, str]]:
    """The indexes over rows that go by `name`, and why one is missing."""
    indexes, missing = dict[str, Index](), dict[str, str]()
    for peer, build in BUILDERS.items():
        if len(rows) > SMALL and peer in SMALL_ONLY:
            missing[f"{peer}, {len(rows):,}"] = "its build takes minutes, and no bar asks for it"
            continue
        path = (KEPT / f"{peer}-{name}-{len(rows)}").resolve()
        about = path.with_name(path.name + ".json")
        if path.exists() and not about.exists():  # left by a build that was stopped
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        begun = time.process_time()
        try:
            with timing.threads(1):
                indexes[peer] = build(rows, path)
        except ImportError as error:
            missing[peer] = f"does not install here: {error}"
            continue
        if not about.exists() or not path.exists():  # what is not kept is built every time
            about.write_text(json.dumps({"seconds": time.process_time() - begun}))
        indexes[peer].seconds = json.loads(about.read_text())["seconds"]
    return indexes, missing


def tuned(index: Index, queries: Rows, exact: Ids) -> dict[float, tuple[Setting, float]]:
    """For each recall asked for, the fastest setting that reaches it (by one call each), and the recall that it has."""
    found = dict[float, tuple[float, Setting, float]]()
    passed: Setting = ()
    for setting in index.settings:
        if setting[1:] == passed[1:] and passed:  # a dearer one of a series that has reached all
            continue
        begun = time.process_time()
        ids = index.search(queries, setting)
        taken, recall = time.process_time() - begun, recalled(ids, exact)
        for wanted in RECALLS:
            if recall >= wanted and (wanted not in found or taken < found[wanted][0]):
                found[wanted] = taken, setting, recall
        if recall >= max(RECALLS):
            passed = setting
    return {wanted: (setting, recall) for wanted, (_, setting, recall) in found.items()}


def recalled(found: Ids, exact: Ids) -> float:
    """The share of the exact neighbours that were found."""
    hits = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), exact.tolist(), strict=True))
    return hits / exact.size
