"""A cache of embeddings by the content of the text, in memory and, if asked, on disk."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._fork import renewed_in_children

_parents: list[sqlite3.Connection] = []
"""Connections that came across a fork: of no use here, and never to be closed here."""


def text_key(text: str) -> bytes:
    """16 bytes of the SHA-256 of a text (surrogates included)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


class EmbeddingCache:
    """Vectors by ``(namespace, content of the text)``; the least recently used are forgotten.

    Args:
        path: an SQLite file to keep vectors in beside memory; made if missing. Several processes
            may share it. A file that cannot be used is reported once and then done without: a
            cache must not stop a training run.
        max_bytes: of vectors in memory.

    Safe to share between threads and across a fork, also while another thread uses it; pickles by its settings.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, max_bytes: int = 1 << 28):
        # The file it names now: a later chdir makes it no other.
        self.path = None if path is None else Path(path).absolute()
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self._memory: OrderedDict[tuple[str, bytes], NDArray[np.float32]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._broken = False
        renewed_in_children(self)

    def _before_fork(self) -> None:
        self._lock.acquire()  # no thread is within SQLite, whose own locks would stay held in the child

    def _after_fork_in_parent(self) -> None:
        self._lock.release()

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        if self._connection is not None:
            # Closing it would clear away the log that the parent still writes.
            _parents.append(self._connection)
            self._connection = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["max_bytes"])

    def __len__(self) -> int:
        return len(self._memory)

    def embed(
        self,
        namespace: str,
        texts: list[str],
        compute: Callable[[list[str]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """Rows for ``texts``, each different missing text computed once.

        ``namespace`` is the fingerprint of whatever computes, precision included. Equal texts get
        bit-identical rows.
        """
        keys = [(namespace, text_key(text)) for text in texts]
        found = self._get(set(keys))
        missing: dict[tuple[str, bytes], str] = {}
        for key, text in zip(keys, texts, strict=True):
            if key not in found:
                missing.setdefault(key, text)
        self.hits += len(texts) - len(missing)
        self.misses += len(missing)
        if missing:
            rows = compute(list(missing.values()))
            fresh = dict(zip(missing, rows, strict=True))
            found.update(fresh)
            self._put(fresh)
        if not texts:
            return compute([])
        return np.stack([found[key] for key in keys])

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _get(self, keys: set[tuple[str, bytes]]) -> dict[tuple[str, bytes], NDArray[np.float32]]:
        found: dict[tuple[str, bytes], NDArray[np.float32]] = {}
        with self._lock:
            for key in keys:
                row = self._memory.get(key)
                if row is not None:
                    self._memory.move_to_end(key)
                    found[key] = row
            absent = [key for key in keys if key not in found]
            if absent and self.path is not None:
                stored = self._read(absent)
                found.update(stored)
                self._remember(stored)
        return found

    def _put(self, rows: dict[tuple[str, bytes], NDArray[np.float32]]) -> None:
        with self._lock:
            self._remember(rows)
            connection = self._open()
            if connection is None:
                return
            try:
                with connection:
                    connection.executemany(
                        "INSERT OR REPLACE INTO embedding VALUES (?, ?, ?)",
                        [(ns, key, row.astype("<f4").tobytes()) for (ns, key), row in rows.items()],
                    )
            except sqlite3.Error as error:
                self._give_up(error)

    def _remember(self, rows: dict[tuple[str, bytes], NDArray[np.float32]]) -> None:
        for key, row in rows.items():
            if key not in self._memory:
                self._memory[key] = np.array(row, dtype=np.float32)
                self._bytes += row.nbytes
        while self._bytes > self.max_bytes and self._memory:
            _, old = self._memory.popitem(last=False)
            self._bytes -= old.nbytes

    def _read(self, keys: list[tuple[str, bytes]]) -> dict[tuple[str, bytes], NDArray[np.float32]]:
        connection = self._open()
        if connection is None:
            return {}
        found: dict[tuple[str, bytes], NDArray[np.float32]] = {}
        try:
            for namespace in sorted({ns for ns, _ in keys}):
                mine = [key for ns, key in keys if ns == namespace]
                for first in range(0, len(mine), 500):
                    part = mine[first : first + 500]
                    marks = ",".join("?" * len(part))
                    rows = connection.execute(
                        f"SELECT key, row FROM embedding WHERE namespace = ? AND key IN ({marks})",
                        [namespace, *part],
                    )
                    for key, blob in rows:
                        if len(blob) and len(blob) % 4 == 0:
                            found[namespace, bytes(key)] = np.frombuffer(blob, "<f4")
        except sqlite3.Error as error:
            self._give_up(error)
        return found

    def _open(self) -> sqlite3.Connection | None:
        if self.path is None or self._broken:
            return None
        if self._connection is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                connection = sqlite3.connect(self.path, timeout=10, check_same_thread=False)
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS embedding (namespace TEXT, key BLOB, row BLOB, "
                    "PRIMARY KEY (namespace, key)) WITHOUT ROWID"
                )
                self._connection = connection
            except (sqlite3.Error, OSError) as error:
                self._give_up(error)
        return self._connection

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        warnings.warn(
            f"the embedding cache {self.path} cannot be used ({error}); going on without it",
            RuntimeWarning,
            stacklevel=4,
        )


def as_cache(cache: EmbeddingCache | str | os.PathLike[str] | bool | None) -> EmbeddingCache | None:
    """What a ``cache=`` argument stands for."""
    if isinstance(cache, EmbeddingCache):
        return cache
    if cache is None or cache is False:
        return None
    return EmbeddingCache(None if cache is True else cache)


def plain_config(embedder: Any, kind: str, *names: str) -> dict[str, Any]:
    """An embedder's kind, path, attributes ``names`` and cache as plain data, for `from_config`.

    Raises:
        ValueError: it was built from a loaded model.
    """
    if embedder.path is None:
        raise ValueError("an embedder built from a loaded model has no plain configuration")
    cache: EmbeddingCache | None = embedder.cache
    kept = False if cache is None else True if cache.path is None else str(cache.path)
    return {"kind": kind, "path": embedder.path, **{n: getattr(embedder, n) for n in names}, "cache": kept}


def rows_of(
    cache: EmbeddingCache | None,
    namespace: Callable[[], str],
    texts: list[str],
    compute: Callable[[list[str]], NDArray[np.float32]],
    dim: int,
) -> NDArray[np.float32]:
    """``(n, dim)`` rows for ``texts``, each different one computed once, through ``cache`` if there is one.

    ``namespace`` is asked for only then: a model's fingerprint takes time.
    """
    if not texts:
        return np.zeros((0, dim), np.float32)
    if cache is None:
        unique = list(dict.fromkeys(texts))
        rows = dict(zip(unique, compute(unique), strict=True))
        return np.stack([rows[text] for text in texts])
    return cache.embed(namespace(), texts, compute)
