"""Answers the requests of many clients about one store: batched reads, serialised writes, each write once.

What the HTTP server and the Ray actor have in common. Both hand over a verb and its arguments and get a future.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from sharpwave.config import Config
from sharpwave.serve import wire
from sharpwave.serve.batching import QueryBatcher
from sharpwave.serve.ledger import Ledger, Unsettled
from sharpwave.serve.verbs import VERBS, Data
from sharpwave.store import Durability, ValueStore

T = TypeVar("T")
Prepared = tuple[Callable[[], Data], str | None]

_LONG = 64 << 20


class Service:
    """Answers requests of many threads about one store.

    Args:
        store: it belongs to the service from now on: nothing else may write to it.
        readers: threads for reads that are not answered together.
        linger: see `QueryBatcher`.
        told: called with the number of requests and of rows whenever a batch was answered.

    Open a store that lives in a directory with `open`: it first completes or undoes the write of a killed server.
    """

    def __init__(
        self,
        store: ValueStore,
        *,
        ledger: Ledger | None = None,
        readers: int = 4,
        linger: float = 0.004,
        told: Callable[[int, int], None] | None = None,
    ) -> None:
        self.store = store
        directory = None if store.readonly else store.path
        self.ledger = ledger or Ledger(directory)
        self.ledger.opened()
        self.batcher = QueryBatcher(store, linger=linger, told=told)
        self._readers = ThreadPoolExecutor(readers, "sharpwave-reads")
        self._writer = ThreadPoolExecutor(1, "sharpwave-writes")
        self._doing: dict[str, tuple[bytes, Future[Data]]] = {}
        self._lock = threading.Lock()
        self._closed = False
        self.settled: str | None = None

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        config: Config | None = None,
        *,
        durability: Durability = "process",
        **options: Any,
    ) -> Self:
        """The service of a store that lives in a directory, made if it is not there and there is a config.

        Raises:
            As `ValueStore.open`.
        """
        path = Path(directory)
        ledger, settled = None, None
        if (path / "journal").is_dir():
            ledger = Ledger(path, power=durability == "power")
            settled = ledger.recover()
        store = ValueStore.open(path, config, durability=durability)
        service = cls(store, ledger=ledger or Ledger(path, power=durability == "power"), **options)
        service.settled = settled
        return service

    # Asking

    def submit(self, verb: str, arguments: Data, key: str | None = None) -> Future[Data]:
        """A future of the answer of a verb.

        Args:
            key: of a write: a second request of the same key is not carried out, but given the result of the first.

        Raises:
            KeyError: no such verb.
            TypeError, ValueError: an argument, as far as it is looked at before the store is asked.
        """
        if verb not in VERBS:
            raise KeyError(f"no verb {verb!r}, there are {sorted(VERBS)}")
        if self._closed:
            raise RuntimeError("the store is no longer served here")
        found = VERBS[verb]
        if found.kind == "batched":
            return self.batcher.submit(verb, arguments)
        arguments = found.checked(arguments)
        if found.kind == "read":
            return self._readers.submit(found.run, self.store, arguments)
        if verb == "flush":
            return self._writer.submit(self._flush)
        return self._write(verb, wire.pack(arguments), key, lambda: (partial(found.run, self.store, arguments), None))

    def call(self, verb: str, arguments: Data, key: str | None = None) -> Data:
        """The answer of a verb; waits for it."""
        return self.submit(verb, arguments, key).result()

    def read(self, work: Callable[[ValueStore], T]) -> Future[T]:
        """The result of a function that reads the store."""
        return self._readers.submit(work, self.store)

    def become(self, snapshot: bytes, key: str | None = None) -> Future[Data]:
        """Take over the content of a snapshot, once for each key."""

        def prepare() -> Prepared:
            other = ValueStore.from_bytes(snapshot)

            def run() -> Data:
                self.store.become(other)
                return {}

            return run, other.digest()

        return self._write("become", snapshot, key, prepare)

    # Writing

    def _write(self, name: str, packed: bytes, key: str | None, prepare: Callable[[], Prepared]) -> Future[Data]:
        """Carry out a write. All writes pass through here.

        Args:
            packed: the request, of which nothing is kept but a hash.
            prepare: called in turn; what is to be done then, and the digest of the store that will replace this one.
        """
        if self._closed:
            raise RuntimeError("the store is no longer served here")
        fingerprint = hashlib.blake2b(name.encode() + packed, digest_size=16).digest()
        if key is None:
            return self._writer.submit(self._once, None, fingerprint, len(packed), prepare)
        with self._lock:
            before = self._doing.get(key)
            if before is not None and before[0] == fingerprint:  # the same request is being carried out
                return before[1]
            future = self._writer.submit(self._once, key, fingerprint, len(packed), prepare)
            self._doing[key] = fingerprint, future
        future.add_done_callback(lambda _: self._forget(key, future))
        return future

    def _forget(self, key: str, future: Future[Data]) -> None:
        with self._lock:
            if key in self._doing and self._doing[key][1] is future:
                del self._doing[key]

    def _once(self, key: str | None, fingerprint: bytes, size: int, prepare: Callable[[], Prepared]) -> Data:
        self.ledger.settle()
        if key is not None and (found := self.ledger.find(key, fingerprint)) is not None:
            return found
        noted = uuid.uuid4().hex if key is None else key
        run, becomes = prepare()
        if becomes is None and self.ledger.journal_size() + 4 * size > _LONG:
            # Else the write itself might make the snapshot, after which it cannot be undone.
            self.store.flush()
        before = self._writes()
        self.ledger.intend(noted, fingerprint, becomes)
        try:
            result = run()
        except BaseException as error:
            begun = key is not None and self._writes() != before
            with contextlib.suppress(Unsettled):  # it is written later, and the caller gets the first error
                self.ledger.failed(noted, f"{type(error).__name__}: {error}" if begun else None)
            raise
        self.ledger.done(noted, None if key is None else result)
        return result

    def _flush(self) -> Data:
        """Once more is the same, and it makes a snapshot of what there is: also of what would have to be undone."""
        self.ledger.settle()
        self.store.flush()
        return {}

    def _writes(self) -> int:
        return self.store._writes()  # pyright: ignore[reportPrivateUsage]

    # Ending

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Finish the requests that were begun, then close the store. Closing twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._writer.shutdown(wait=True)
        self.batcher.close()
        self._readers.shutdown(wait=True)
        self.ledger.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
