"""The ledger: which write requests were carried out, so that one that is sent again is not carried out again.

A caller that got no answer (the connection broke, the server died) cannot know whether its write was done. It sends the
same request with the same key once more, and the ledger makes that safe, also when the server was killed in between:

1. Before a write, the ledger notes its key and where the store's journal ends: the *intent*.
2. The store does the write, which appends records to its journal.
3. The ledger notes the result under the key; then the caller is answered.

Every write takes these steps, one write after the other, and no write begins before the ledger has settled the one
before it. So at most one intent is open at any moment, it is the last write, and it was never acknowledged: every
record behind the noted end belongs to it. A server that starts and finds an open intent cuts these records off, as a
torn record would be. The store is then what it was before that write; sent again, the write is done as if for the first
time, and its report is exact. If the server was killed after 3, the key is found and its result is given again. So
nothing acknowledged is lost, and nothing is done twice.

A note that cannot be written (the disk is full, somebody locks the file) is *owed*. Until it is written, no write is
acknowledged and none is begun; each that is asked for tries again to write what is owed.

The cut is made only where that reasoning holds: the lock file must still name the dead server (somebody else may have
written since), the journal must be the same one, and the intent must be the last request that was noted. Otherwise the
outcome of that one request is not known to anybody, and sending it again is refused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from sharpwave.serve import wire
from sharpwave.store import SNAPSHOT, ValueStore

FILE = "requests.sqlite"
VERSION = 1
"""With ledgers of version 0, writes continued although an intent was still open."""
Data = dict[str, Any]
Statement = tuple[str, tuple[Any, ...]]


class Conflict(ValueError):
    """The key was used for another request, or the outcome of its request is unknown."""


class Unsettled(OSError):
    """The ledger cannot be written to, so no write is acknowledged. Sent again with its key, the write is done once."""


class Ledger:
    """Keys of writes and what became of them: in memory, or in a file in a store's directory.

    The one thread that writes to the store writes to it.

    Args:
        directory: of the store; None: in memory, for a store in memory.
        power: wait for the disk, as the store does.
        keep: how many results are remembered; the oldest are forgotten.

    Raises:
        Unsettled: (of any method) the file cannot be read or written; what was to be noted is owed.
    """

    def __init__(self, directory: Path | None, *, power: bool = False, keep: int = 16_384) -> None:
        self.directory, self.keep = directory, keep
        self._where = ":memory:" if directory is None else str(directory / FILE)
        self._owner = b""
        self._owed: Statement | None = None
        self._lock = threading.Lock()
        if directory is not None:  # readable by the owner only; SQLite gives its other files the same mode
            os.close(os.open(self._where, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        with self._worded():
            self._file = sqlite3.connect(self._where, timeout=10, check_same_thread=False, isolation_level=None)
        try:
            self._run("PRAGMA journal_mode=WAL")
            self._run(f"PRAGMA synchronous={'FULL' if power else 'NORMAL'}")
            self._run(
                "CREATE TABLE IF NOT EXISTS request (number INTEGER PRIMARY KEY, key TEXT UNIQUE, hash BLOB, "
                "state TEXT, journal TEXT, size INTEGER, owner BLOB, result BLOB, at REAL)"
            )
            if self._run("PRAGMA user_version")[0][0] < VERSION:
                self._run("UPDATE request SET state = 'unknown' WHERE state = 'intent'")
                self._run(f"PRAGMA user_version={VERSION}")
        except BaseException:
            self._file.close()
            raise

    # Before the store is opened, and after

    def recover(self) -> str | None:
        """Undo the write that a dead server left without an answer; says in a line what was done, if anything.

        Call it before the store is opened. It may be called again after it failed.

        Raises:
            BlockingIOError: somebody is writing to the store.
        """
        opened = self._run(
            "SELECT key, state, journal, size, owner, result, number = (SELECT max(number) FROM request) FROM request "
            "WHERE state IN ('intent', 'replacing') ORDER BY number"
        )
        if not opened or self.directory is None:
            return None
        key, state, journal, size, owner, result, last = opened[-1]
        with (self.directory / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(error.errno, "somebody is writing to the store", str(self.directory)) from None
            alone = len(opened) == 1 and last and lock.read() == owner
            path = self.directory / "journal" / journal
            same = path.is_file() and _journal_of(self.directory) == journal
            if alone and state == "replacing" and ValueStore.load(self.directory).digest() == result:
                self._run(*_noted(key, wire.pack({})))
                return f"request {key!r} was carried out and not answered: the store is what it was to become"
            if not alone or not same:
                self._run("UPDATE request SET state = 'unknown' WHERE state IN ('intent', 'replacing')")
                return f"the outcome of request {key!r} is not known: the store was written to or compacted since"
            cut = path.stat().st_size - size
            if cut > 0:
                with path.open("r+b") as file:
                    file.truncate(size)
                    os.fsync(file.fileno())
            self._run(*_forgotten(key))
        return f"{max(cut, 0)} bytes of a request that was never answered were cut off the journal"

    def opened(self) -> None:
        """The store is open: intents now record the holder of its lock. Those that were not recovered stay unknown."""
        if self.directory is not None:
            self._owner = (self.directory / "lock").read_bytes()
            self._run("UPDATE request SET state = 'unknown' WHERE state IN ('intent', 'replacing')")

    # One write

    def find(self, key: str, fingerprint: bytes) -> Data | None:
        """The result of a request that was carried out, or None.

        Raises:
            Conflict: the key was another request's, or nobody knows what became of this one.
        """
        self.settle()
        rows = self._run("SELECT hash, state, result FROM request WHERE key = ?", (key,))
        if not rows:
            return None
        was, state, result = rows[0]
        if state == "unknown":
            raise Conflict(f"nobody knows whether request {key!r} was carried out: look before you send it anew")
        if was != fingerprint:
            raise Conflict(f"key {key!r} was used for another request")
        if state == "failed":
            raise Conflict(f"request {key!r} failed after a part of it was carried out: {result.decode()}")
        return wire.unpack(result)

    def intend(self, key: str, fingerprint: bytes, becomes: str | None = None) -> None:
        """Record the write that is about to begin, and where the journal ends.

        Args:
            becomes: the digest of the store that is to take the place of this one, by a snapshot, whole or not at all.
        """
        self.settle()
        self._run(
            "DELETE FROM request WHERE state = 'done' AND number < (SELECT max(number) FROM request) + 2 - ?",
            (self.keep,),
        )
        # If this fails, the file may hold the intent all the same: it must be removed before the next write begins.
        self._owed = _forgotten(key)
        state = "intent" if becomes is None else "replacing"
        self._run(
            "INSERT INTO request (key, hash, state, journal, size, owner, result, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (key, fingerprint, state, *self._end(), self._owner, becomes, time.time()),
        )
        self._owed = None

    def done(self, key: str, result: Data | None) -> None:
        """Note what came of it; None: nobody will ask for it, and nothing is remembered."""
        self._owe(_forgotten(key) if result is None else _noted(key, wire.pack(result)))

    def failed(self, key: str, message: str | None) -> None:
        """Nothing came of it and it may be tried again; or, with a message, it failed after a part was done."""
        failed = "UPDATE request SET state = 'failed', result = ? WHERE key = ?"
        self._owe(_forgotten(key) if message is None else (failed, (message.encode(), key)))

    def settle(self) -> None:
        """Write the entry that could not be written before."""
        if self._owed is not None:
            self._owe(self._owed)

    def journal_size(self) -> int:
        """The size of the store's journal, in bytes."""
        return self._end()[1]

    def close(self) -> None:
        """Close the file. `recover` settles an entry that still cannot be written."""
        with contextlib.suppress(Unsettled):
            self.settle()
        with self._lock:
            self._file.close()

    def _owe(self, statement: Statement) -> None:
        self._owed = statement
        self._run(*statement)
        self._owed = None

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock, self._worded():
            return self._file.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _worded(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # The lower byte is the kind, the others say more of it.
            kind = (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR) & 0xFF
            full, locked = sqlite3.SQLITE_FULL, (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            number = errno.ENOSPC if kind == full else errno.EAGAIN if kind in locked else errno.EIO
            said = f"the ledger of requests cannot be read and written ({error}), and no write is taken until it can"
            raise Unsettled(number, said, self._where) from error

    def _end(self) -> tuple[str, int]:
        """The journal that is written to, and its size."""
        if self.directory is None:
            return "", 0
        with os.scandir(self.directory / "journal") as entries:
            journals = {entry.name: entry for entry in entries if entry.name.endswith(".log")}
        latest = max(journals)
        return latest, journals[latest].stat().st_size


def _noted(key: str, result: bytes) -> Statement:
    return "UPDATE request SET state = 'done', result = ? WHERE key = ?", (result, key)


def _forgotten(key: str) -> Statement:
    return "DELETE FROM request WHERE key = ?", (key,)


def _journal_of(directory: Path) -> str:
    """The file name of the journal that the snapshot goes on with."""
    with (directory / SNAPSHOT).open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return f"{json.loads(header['__metadata__']['state'])['journal']:08d}.log"
