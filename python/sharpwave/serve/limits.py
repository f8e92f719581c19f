"""The limits of a server: who may ask, the size of bodies, requests at the same time, and the time of a request."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Generator, MutableMapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from sharpwave import _coerce
from sharpwave.serve.metrics import Metrics
from sharpwave.serve.wire import JSON, to_json

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """Bounds of a server.

    Args:
        body: bytes of a request's body; beyond it, 413.
        snapshot: bytes of a snapshot that is sent to be taken over; beyond it, 413.
        answer: numbers in one answer (queries × k, paths × depth); beyond it, 413.
        concurrent: requests that are answered at once; beyond it, 503 with Retry-After. One whose body is still on its
            way is none of them.
        connections: at once; beyond it, or beyond the files that the process may open, the one whose client has let the
            server wait the longest is closed.
        headers: bytes of a request before its body; beyond it, 431.
        arriving: bytes of all bodies that are on their way; beyond it, the one that began first is answered with 408.
        arrival: seconds until the headers of a request are there; beyond it, 408.
        seconds: from the first byte of a request until its answer; beyond it, 504. A write that was begun is finished
            all the same: sent again with its key, it gives its result.
    """

    body: int = 64 << 20
    snapshot: int = 8 << 30
    answer: int = 32 << 20
    concurrent: int = 512
    connections: int = 8192
    headers: int = 32 << 10
    arriving: int = 1 << 30
    arrival: float = 10.0
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("body", "snapshot", "answer", "concurrent", "connections", "headers", "arriving"):
            if _coerce.whole(name, getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("arrival", "seconds"):
            if not 0 < _coerce.number(name, getattr(self, name)) < float("inf"):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


class Refused(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        kind: the exception that a client raises for it.
        later: whether the same request may be answered if it is sent again a moment later.
    """

    def __init__(self, status: int, message: str, kind: str = "ValueError", *, later: bool = False) -> None:
        super().__init__(message)
        self.status, self.kind, self.later = status, kind, later or status == 503

    def answer(self) -> tuple[bytes, dict[str, str]]:
        """The body, ``{"error": one line, "kind": an exception's name}``, and the headers."""
        body = to_json({"error": one_line(self), "kind": self.kind})
        headers = {"content-type": JSON, "content-length": str(len(body))}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.later:
            headers["retry-after"] = "1"
        if self.status in (408, 413, 504):  # the rest of the body is not read
            headers["connection"] = "close"
        return body, headers


def one_line(error: object) -> str:
    """What an exception says, in one line."""
    said = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(said).split()) or type(error).__name__


def is_loopback(host: str) -> bool:
    """Whether a name or an address is one of the loopback interface."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """The outermost layer of the app. It enforces the limits.

    Args:
        token: that every request but the one for health must bear; None: everybody is let in.
        hosts: names under which it may be asked, beside those of the loopback address; None: any.
    """

    def __init__(
        self, app: App, limits: Limits, token: str | None, metrics: Metrics, hosts: Collection[str] | None
    ) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self._token = None if token is None else token.encode()
        self._hosts = None if hosts is None else frozenset(name.lower() for name in hosts)
        self._active = 0
        self._arriving: dict[asyncio.Timeout, int] = {}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = perf_counter(), 500
        started = False

        async def answering(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
            await send(message)

        try:
            self._let_in(scope)
            end = asyncio.get_running_loop().time() + self.limits.seconds
            messages = await self._body(scope, receive, end)
            async with asyncio.timeout_at(end):
                with self._place(scope):
                    await self.app(scope, _again(messages, receive), answering)
        except TimeoutError:
            if not started:
                status = 504
                await refuse(send, Refused(504, f"no answer within {self.limits.seconds:g} seconds", "TimeoutError"))
        except Refused as refused:
            if not started:
                status = refused.status
                await refuse(send, refused)
        self.metrics.answered(scope["path"], status, perf_counter() - began)

    def _let_in(self, scope: MutableMapping[str, Any]) -> None:
        headers = dict(scope["headers"])
        self._from_here(headers, [value for name, value in scope["headers"] if name == b"host"])
        if self._token is not None and scope["path"] != "/health":
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.lstrip(b" "), self._token):
                raise Refused(401, "a bearer token is needed: Authorization: Bearer …", "PermissionError")
        length = headers.get(b"content-length")
        if length is not None and (not length.isdigit() or len(length) > 19 or int(length) > self._most(scope)):
            raise Refused(413, f"the body must not be longer than {self._most(scope)} bytes")

    def _from_here(self, headers: dict[bytes, bytes], hosts: list[bytes]) -> None:
        """Refuse requests that a page of another site makes a browser send: other host names and other origins."""
        where = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
        if self._hosts is not None:
            name = (where[1:].partition("]")[0] if where.startswith("[") else where.partition(":")[0]).rstrip(".")
            if name not in self._hosts and not is_loopback(name):
                raise Refused(421, f"this server is not {one_line(where)!r}: see --allowed-host", "PermissionError")
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower() not in (f"http://{where}", f"https://{where}"):
            raise Refused(403, "requests from pages of another origin are not answered", "PermissionError")
        site, mode = headers.get(b"sec-fetch-site", b"none"), headers.get(b"sec-fetch-mode")
        if site not in (b"none", b"same-origin") and mode != b"navigate":
            raise Refused(403, "requests from pages of another site are not answered", "PermissionError")

    async def _body(self, scope: MutableMapping[str, Any], receive: Receive, end: float) -> deque[Message]:
        """All of it, before the request takes a place: so slow ones do not hold the places of others."""
        messages: deque[Message] = deque()
        got = 0
        try:
            async with asyncio.timeout_at(end) as mine:
                self._arriving[mine] = 0
                try:
                    while True:
                        messages.append(await receive())
                        got += len(messages[-1].get("body", b""))
                        if got > self._most(scope):
                            raise Refused(413, f"the body must not be longer than {self._most(scope)} bytes")
                        if not messages[-1].get("more_body", False):
                            return messages
                        self._arriving[mine] = got
                        self._make_room(mine)
                finally:
                    del self._arriving[mine]
        except TimeoutError:
            raise Refused(408, "the body took too long to arrive", "TimeoutError", later=True) from None

    def _make_room(self, mine: asyncio.Timeout) -> None:
        """Drop the oldest incomplete body, other than this one, if all of them together are too large."""
        oldest = next((end for end, got in self._arriving.items() if got and end is not mine), None)
        if oldest is not None and sum(self._arriving.values()) > self.limits.arriving:
            self._arriving[oldest] = 0
            oldest.reschedule(asyncio.get_running_loop().time())

    @contextlib.contextmanager
    def _place(self, scope: MutableMapping[str, Any]) -> Generator[None]:
        """Hold one of the places for requests that are answered at the same time."""
        if self._active >= self.limits.concurrent and scope["path"] not in ("/health", "/metrics"):
            raise Refused(503, f"{self.limits.concurrent} requests are being answered: try again", "TimeoutError")
        self._active += 1
        self.metrics.active.set(self._active)
        try:
            yield
        finally:
            self._active -= 1
            self.metrics.active.set(self._active)

    def _most(self, scope: MutableMapping[str, Any]) -> int:
        return self.limits.snapshot if scope["path"] == "/v1/snapshot" else self.limits.body


def _again(messages: deque[Message], receive: Receive) -> Receive:
    """What was received, and what comes after it."""

    async def receiving() -> Message:
        return messages.popleft() if messages else await receive()

    return receiving


async def refuse(send: Send, refused: Refused) -> None:
    """Answer with an error."""
    body, headers = refused.answer()
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
