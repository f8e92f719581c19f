"""The ledger: which write requests were carried out, so that one that is sent again is not carried out again.

A caller that got no answer (the connection broke, the server died) cannot know whether its write was done. It sends the
same request with the same key once more, and the ledger makes that safe, also when the server was killed in between:

1. Before a write, the ledger notes its key and where the store's journal ends: the *intent*.
2. The store does the write, which appends records to its journal.
3. The ledger notes the result under the key; then the caller is answered.

Writes go one after the other, so at most one intent is open at any moment. A server that starts and finds one knows
that its write was never acknowledged, and that every record behind the noted end belongs to it: they are cut off, as a
torn record would be. The store is then what it was before that write; sent again, the write is done as if for the first
time, and its report is exact. If the server was killed after 3, the key is found and its result is given again. So
nothing acknowledged is lost, and nothing is done twice.

The cut is made only where that reasoning holds: the lock file must still name the dead server (somebody else may have
written since), and the journal must be the same one. Otherwise the outcome of that one request is not known to anybody,
and sending it again is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from sharpwave.serve import wire
from sharpwave.store import SNAPSHOT

FILE = "requests.sqlite"
Data = dict[str, Any]


class Conflict(ValueError):
    """A key that was used for another request, or whose outcome is not known."""


class Ledger:
    """Keys of writes and what became of them: in memory, or in a file in a store's directory.

    The one thread that writes to the store writes to it.

    Args:
        directory: of the store; None: in memory, for a store in memory.
        power: wait for the disk, as the store does.
        keep: how many results are remembered; the oldest are forgotten.
    """

    def __init__(self, directory: Path | None, *, power: bool = False, keep: int = 16_384) -> None:
        self.directory, self.keep = directory, keep
        where = ":memory:" if directory is None else directory / FILE
        self._file = sqlite3.connect(where, timeout=10, check_same_thread=False, isolation_level=None)
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute(f"PRAGMA synchronous={'FULL' if power else 'NORMAL'}")
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS request (number INTEGER PRIMARY KEY, key TEXT UNIQUE, hash BLOB, state TEXT, "
            "journal TEXT, size INTEGER, owner BLOB, result BLOB, at REAL)"
        )
        self._owner = b""
        self._lock = threading.Lock()

    # Before the store is opened, and after

    def recover(self) -> str | None:
        """Undo the write that a dead server left without an answer; says in a line what was done, if anything.

        Call it before the store is opened.

        Raises:
            BlockingIOError: somebody is writing to the store.
        """
        open_intent = self._file.execute(
            "SELECT key, journal, size, owner FROM request WHERE state = 'intent'"
        ).fetchone()
        if open_intent is None or self.directory is None:
            return None
        key, journal, size, owner = open_intent
        with (self.directory / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(error.errno, "somebody is writing to the store", str(self.directory)) from None
            path = self.directory / "journal" / journal
            if lock.read() != owner or not path.is_file() or _journal_of(self.directory) != journal:
                self._file.execute("UPDATE request SET state = 'unknown' WHERE key = ?", [key])
                return f"the outcome of request {key!r} is not known: the store was written to or compacted since"
            cut = path.stat().st_size - size
            if cut > 0:
                with path.open("r+b") as file:
                    file.truncate(size)
                    os.fsync(file.fileno())
            self._file.execute("DELETE FROM request WHERE key = ?", [key])
        return f"{max(cut, 0)} bytes of a request that was never answered were cut off the journal"

    def opened(self) -> None:
        """The store was opened: who holds its lock goes into every intent."""
        if self.directory is not None:
            self._owner = (self.directory / "lock").read_bytes()

    # One write

    def find(self, key: str, fingerprint: bytes) -> Data | None:
        """The result of a request that was carried out, or None.

        Raises:
            Conflict: the key was another request's, or nobody knows what became of this one.
        """
        with self._lock:
            row = self._file.execute("SELECT hash, state, result FROM request WHERE key = ?", [key]).fetchone()
        if row is None:
            return None
        was, state, result = row
        if state == "unknown":
            raise Conflict(f"nobody knows whether request {key!r} was carried out: look before you send it anew")
        if was != fingerprint:
            raise Conflict(f"key {key!r} was used for another request")
        if state == "failed":
            raise Conflict(f"request {key!r} failed after a part of it was carried out: {result.decode()}")
        return wire.unpack(result)

    def intend(self, key: str, fingerprint: bytes) -> None:
        """Note what is about to be done, and where the journal ends."""
        noted = (key, fingerprint, *self._end(), self._owner, time.time())
        with self._lock:
            self._file.execute(
                "INSERT INTO request (key, hash, state, journal, size, owner, at) VALUES (?, ?, 'intent', ?, ?, ?, ?)",
                noted,
            )

    def done(self, key: str, result: Data) -> None:
        """Note what came of it."""
        with self._lock:
            self._file.execute("UPDATE request SET state = 'done', result = ? WHERE key = ?", [wire.pack(result), key])
            self._file.execute(
                "DELETE FROM request WHERE state = 'done' AND number <= (SELECT max(number) FROM request) - ?",
                [self.keep],
            )

    def failed(self, key: str, message: str | None) -> None:
        """Nothing came of it and it may be tried again; or, with a message, it failed after a part was done."""
        with self._lock:
            if message is None:
                self._file.execute("DELETE FROM request WHERE key = ?", [key])
            else:
                self._file.execute(
                    "UPDATE request SET state = 'failed', result = ? WHERE key = ?", [message.encode(), key]
                )

    def journal_size(self) -> int:
        """Bytes of the store's journal."""
        return self._end()[1]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def _end(self) -> tuple[str, int]:
        """The journal that is written to, and its size."""
        if self.directory is None:
            return "", 0
        with os.scandir(self.directory / "journal") as entries:
            journals = {entry.name: entry for entry in entries if entry.name.endswith(".log")}
        latest = max(journals)
        return latest, journals[latest].stat().st_size


def _journal_of(directory: Path) -> str:
    """The file name of the journal that the snapshot goes on with."""
    with (directory / SNAPSHOT).open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return f"{json.loads(header['__metadata__']['state'])['journal']:08d}.log"
