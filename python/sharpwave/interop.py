"""Interop: from a store to a faiss index and back, for those who already hold one.

Both ways copy the vectors in batches. faiss is imported when it is used (`pip install 'sharpwave[faiss]'`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave._lazy import require
from sharpwave.config import Config
from sharpwave.store import ValueStore
from sharpwave.view import View

UNIT = 0.01
"""How far from 1 the norm of a vector may be that is taken as a direction."""


class Imported(NamedTuple):
    """A store filled from a faiss index, and which memory is which of its vectors."""

    store: ValueStore
    memory_ids: NDArray[np.int64]
    """(n,) the memory that each vector became, in the order of the index."""
    faiss_ids: NDArray[np.int64]
    """(n,) the id by which the index knows it."""


def to_faiss(store: View[Any], *, batch: int = 16_384) -> Any:
    """An exact faiss index over the memories of a store or a frozen view, terminals included.

    It is an `IndexFlatIP`; if the ids of the memories are not 0 … n−1 (after an eviction, a veto, a removed channel)
    it is wrapped in an `IndexIDMap2`. So its search gives the ids of memories, and `reconstruct` takes them. Queries
    have to be of unit norm to give cosines: faiss does not normalise. Later writes do not reach the index.
    """
    faiss = require("faiss", "faiss")
    batch = _positive("batch", batch)
    moment = store.frozen()
    ids, core = moment.ids, moment._core  # pyright: ignore[reportPrivateUsage]
    index = faiss.IndexFlatIP(moment.dim)
    named = not np.array_equal(ids, np.arange(len(ids)))
    if named:
        index = faiss.IndexIDMap2(index)
    for first in range(0, len(ids), batch):
        some = ids[first : first + batch]
        keys = core.keys_of(some)
        if named:
            index.add_with_ids(keys, some)
        else:
            index.add(keys)
    return index


def from_faiss(
    index: Any,
    store: ValueStore | Config | None = None,
    *,
    normalise: bool = False,
    batch: int = 16_384,
) -> Imported:
    """The vectors of a faiss index as memories of a store; see `ValueStore.insert`.

    Args:
        index: one that gives its vectors back: Flat, HNSW, IVF, scalar or product quantised (what they decode to); as
            it is or in an `IndexIDMap`.
        store: the store to append to, or the config of a new one; by default `Config(dim=index.d)`.
        normalise: take vectors of any norm for their direction. Without it they must be of unit norm, since on others
            the index and the store, which compares by cosine, would rank differently.
        batch: how many vectors are decoded and inserted at a time.

    A ValueError, before anything is written, for a metric other than the inner product and L2, and for vectors that
    the index does not give back or that are not of unit norm. Vectors are decoded twice, to check and to insert.
    """
    faiss = require("faiss", "faiss")
    normalise, batch = _coerce.flag("normalise", normalise), _positive("batch", batch)
    if not isinstance(index, faiss.Index):
        raise TypeError(f"index must be a faiss.Index, got {type(index).__name__}")
    if index.metric_type not in (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2):
        raise ValueError(f"index: its metric must be the inner product or L2, got metric_type {index.metric_type}")
    if store is None:
        store = Config(dim=index.d)
    if isinstance(store, Config):
        store = ValueStore(store)
    elif not isinstance(store, ValueStore):
        raise TypeError(f"store must be a ValueStore or a Config, got {type(store).__name__}")
    if store.dim != index.d:
        raise ValueError(f"index has vectors of dimension {index.d}, the store of {store.dim}")
    vectors, faiss_ids = _opened(faiss, index)
    parts = [slice(first, min(first + batch, index.ntotal)) for first in range(0, index.ntotal, batch)]
    for part in parts:  # all are looked at before one is written
        _check(vectors(part), faiss_ids[part], normalise)
    memory_ids = [store.insert(vectors(part)) for part in parts]
    return Imported(store, np.concatenate([np.empty(0, np.int64), *memory_ids]), faiss_ids)


def _opened(faiss: Any, index: Any) -> tuple[Callable[[slice], NDArray[np.float32]], NDArray[np.int64]]:
    """What reads some of the vectors, and the ids that all of them go by."""
    index, names = faiss.downcast_index(index), None
    if isinstance(index, faiss.IndexIDMap):
        names = faiss.vector_to_array(index.id_map)
        index = faiss.downcast_index(index.index)
    ids = np.arange(index.ntotal)
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:  # which has ids of its own, and silently leaves out those that are not 0 … n−1
        lists = [faiss.rev_swig_ptr(ivf.invlists.get_ids(n), ivf.get_list_size(n)).copy() for n in range(ivf.nlist)]
        if not np.array_equal(np.sort(np.concatenate(lists)), ids):
            raise ValueError(
                f"index: the ids in a {type(index).__name__} must be 0 … n−1; others go into an IndexIDMap"
            )
    elif len(ids):
        try:
            index.reconstruct(0)  # where this is not to be had, reconstruct_n ends the process
        except RuntimeError as error:
            reason = str(error).strip().rpartition(": ")[2]
            raise ValueError(f"index: a {type(index).__name__} does not give its vectors back: {reason}") from None

    def vectors(part: slice) -> NDArray[np.float32]:
        return index.reconstruct_n(part.start, part.stop - part.start)

    return vectors, ids if names is None else names


def _check(vectors: NDArray[np.float32], ids: NDArray[np.int64], normalise: bool) -> None:
    """Refuses what is no direction, and what is not of unit norm unless it may be normalised."""
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
    fits = np.isfinite(norms) & (norms > 0) if normalise else np.abs(norms - 1.0) <= UNIT
    if not fits.all():
        row = int(np.argmin(fits))
        wanted = "a direction" if normalise else "of unit norm; normalise=True takes its direction"
        raise ValueError(f"index: vector {ids[row]}, of norm {norms[row]:.4g}, is not {wanted}")


def _positive(name: str, value: Any) -> int:
    number = _coerce.whole(name, value)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number
