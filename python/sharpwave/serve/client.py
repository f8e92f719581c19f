"""The client of a store on a server."""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import time
from typing import Any

from sharpwave import EmbedderError, FormatError, _coerce
from sharpwave.serve import tokens, wire
from sharpwave.serve.remote import RemoteStore, key_for
from sharpwave.serve.verbs import Data

AGAIN = (502, 503, 504)
WAITED: dict[str, type[OSError]] = {"503": TimeoutError, "504": TimeoutError, "507": OSError}

KINDS: dict[str, type[Exception]] = {
    "ValueError": ValueError,
    "TypeError": TypeError,
    "KeyError": KeyError,
    "EmbedderError": EmbedderError,
    "FormatError": FormatError,
    "MemoryError": MemoryError,
    "PermissionError": PermissionError,
    "OSError": OSError,
    "TimeoutError": TimeoutError,
}


class Held:
    """A connection of one thread. It is closed when the thread or the link ends."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection, self.process = connection, os.getpid()

    def __del__(self) -> None:
        self.connection.close()


class HttpLink:
    """One connection per thread, made when it is needed. Requests that fail on the way are sent again.

    A write carries a key of its own, so that the server carries it out once, however often it is sent.
    """

    def __init__(self, url: str, token: str | None, timeout: float, patience: float) -> None:
        scheme, self._host, self._port = tokens.origin(url)
        self.url, self._secure = f"{scheme}://{tokens.parsed(url).netloc}", scheme == "https"
        self.token, self.timeout, self.patience = token, timeout, patience
        self._local = threading.local()

    def call(self, verb: str, arguments: Data) -> Data:
        return wire.unpack(self._send("POST", f"/v1/{verb}", wire.pack(arguments), key_for(verb)))

    def snapshot(self) -> bytes:
        return bytes(self._send("GET", "/v1/snapshot", b"", None))

    def become(self, snapshot: bytes) -> None:
        self._send("PUT", "/v1/snapshot", snapshot, key_for("become"))

    def get(self, path: str) -> bytes:
        """The body at some other path of the server."""
        return bytes(self._send("GET", path, b"", None))

    def close(self) -> None:
        self._drop()

    def __str__(self) -> str:
        return self.url

    # One request

    def _send(self, method: str, path: str, body: bytes, key: str | None) -> bytearray:
        headers = {"Content-Type": wire.BINARY, "Accept": wire.BINARY}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if key is not None:
            headers["Idempotency-Key"] = key
        end = time.monotonic() + self.patience
        pause = 0.02
        while True:
            used = self._own() is not None
            try:
                status, later, answer = self._exchange(method, path, body, headers)
                if status not in AGAIN and not later:
                    break
                failure = f"{status}: {_error(answer)[1]}"
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                if used:  # the server has closed an idle connection: retry at once on a new one
                    continue
                failure = f"{type(error).__name__}: {error}"
            if time.monotonic() + pause > end:
                kind = WAITED.get(failure[:3], ConnectionError)
                raise kind(f"{self.url} did not answer within {self.patience:g} seconds ({failure})")
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 — so that not all come back at once
            pause = min(2 * pause, 1.0)
        if status != 200:
            kind, message = _error(answer)
            if status == 401 and self.token is None:
                message += f" (this client has none: give token=, or {tokens.TOKEN} and {tokens.ORIGINS})"
            raise KINDS.get(kind, RuntimeError)(message)
        return answer

    def _exchange(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bool, bytearray]:
        """The status, whether to send it again later, and the body."""
        connection = self._connection()
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        length = response.length
        if length is None:
            answer = bytearray(response.read())
        else:
            answer = bytearray(length)
            room, got = memoryview(answer), 0
            while got < length:
                step = response.readinto(room[got:])
                if not step:
                    raise http.client.IncompleteRead(bytes(answer[:got]), length - got)
                got += step
        if response.will_close:
            self._drop()
        return response.status, response.headers["Retry-After"] is not None, answer

    def _own(self) -> Held | None:
        """This thread's connection; one that was made before a fork is the parent's."""
        held: Held | None = getattr(self._local, "held", None)
        return held if held is not None and held.process == os.getpid() else None

    def _connection(self) -> http.client.HTTPConnection:
        held = self._own()
        if held is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            held = self._local.held = Held(kind(self._host, self._port, timeout=self.timeout))
        return held.connection

    def _drop(self) -> None:
        self._local.held = None


class Client(RemoteStore):
    """A served store: what `ValueStore` has, this has, with the same arguments, results and errors.

    >>> store = sw.serve.Client("http://127.0.0.1:8808")
    >>> reward = sw.InstrumentalReward(store, embedder, learn="propose")

    It may be shared between threads and pickles as its address, without its token. What fails on the way is sent again,
    with growing pauses; a write is done once however often it is sent, also when the server was killed and started
    again in between.

    Args:
        url: such as ``http://127.0.0.1:8808``.
        token: that of the server; by default the value of ``SHARPWAVE_TOKEN`` in the environment, if
            ``SHARPWAVE_TOKEN_ORIGIN`` names this url there (or several, with blanks between them).
        timeout: seconds for one attempt.
        patience: seconds after which no further attempt is made.
        pickle_token: let a pickle of this client have the token, readable by everybody who has the pickle. Without,
            the process that loads it takes its own from the environment.

    Raises:
        ValueError: the url or the token is not valid. No request is sent before the first call.
        ConnectionError: (of any call) the server could not be reached in time.
        TimeoutError: (of any call) the server was reached but was too busy to answer in time.
        PermissionError: (of any call) the server refuses the token.
    """

    __slots__ = ("_http", "_pickle_token")
    _http: HttpLink
    _pickle_token: bool

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 120.0,
        patience: float = 60.0,
        pickle_token: bool = False,
    ) -> None:
        token = tokens.of_environment(url) if token is None else tokens.checked(token)
        self._http = HttpLink(url, token, _coerce.number("timeout", timeout), _coerce.number("patience", patience))
        self._pickle_token = _coerce.flag("pickle_token", pickle_token)
        super().__init__(self._http)

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._http.url

    def health(self) -> dict[str, Any]:
        """The server's status and version."""
        return json.loads(self._http.get("/health"))

    def metrics(self) -> str:
        """The server's counters in the format of Prometheus."""
        return self._http.get("/metrics").decode()

    def __reduce__(self) -> tuple[Any, ...]:
        token = self._http.token if self._pickle_token else None
        return _client, (self._http.url, token, self._http.timeout, self._http.patience)


def _client(url: str, token: str | None, timeout: float, patience: float) -> Client:
    return Client(url, token, timeout=timeout, patience=patience, pickle_token=token is not None)


def _error(answer: bytes | bytearray) -> tuple[str, str]:
    """The kind and the line of an error."""
    try:
        found = json.loads(bytes(answer))
        return str(found.get("kind", "RuntimeError")), str(found["error"])
    except (ValueError, KeyError, AttributeError, TypeError):
        return "RuntimeError", bytes(answer[:200]).decode(errors="replace")
