"""What a server does not take: strangers, bodies too large, more at once than it can hold, requests without an end."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from sharpwave import coerce
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
        concurrent: requests at once; beyond it, 503 with Retry-After.
        seconds: from the first byte of a request until its answer; beyond it, 504. A write that was begun is finished
            all the same: sent again with its key, it gives its result.
    """

    body: int = 64 << 20
    snapshot: int = 8 << 30
    answer: int = 32 << 20
    concurrent: int = 512
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("body", "snapshot", "answer", "concurrent"):
            if coerce.whole(name, getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < coerce.number("seconds", self.seconds) < float("inf"):
            raise ValueError(f"seconds must be positive, got {self.seconds}")


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


def one_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    said = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(said).split()) or type(error).__name__


class Guard:
    """The outermost layer of the app: who is let in, how many, how much, how long.

    Args:
        token: that every request but the one for health must bear; None: everybody is let in.
    """

    def __init__(self, app: App, limits: Limits, token: str | None, metrics: Metrics) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self._bearer = None if token is None else f"Bearer {token}".encode()
        self._active = 0

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
            self._active += 1
            self.metrics.active.set(self._active)
            try:
                async with asyncio.timeout(self.limits.seconds):
                    await self.app(scope, self._bounded(scope, receive), answering)
            finally:
                self._active -= 1
                self.metrics.active.set(self._active)
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
        if self._bearer is not None and scope["path"] != "/health":
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self._bearer):
                raise Refused(401, "a bearer token is needed: Authorization: Bearer …", "PermissionError")
        if self._active >= self.limits.concurrent and scope["path"] not in ("/health", "/metrics"):
            raise Refused(503, f"{self.limits.concurrent} requests are being answered: try again", "TimeoutError")
        length = headers.get(b"content-length")
        if length is not None and (not length.isdigit() or int(length) > self._most(scope)):
            raise Refused(413, f"the body must not be longer than {self._most(scope)} bytes")

    def _most(self, scope: MutableMapping[str, Any]) -> int:
        return self.limits.snapshot if scope["path"] == "/v1/snapshot" else self.limits.body

    def _bounded(self, scope: MutableMapping[str, Any], receive: Receive) -> Receive:
        """Also a body that does not say how long it is."""
        got = 0

        async def bounded() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self._most(scope):
                raise Refused(413, f"the body must not be longer than {self._most(scope)} bytes")
            return message

        return bounded


async def refuse(send: Send, refused: Refused) -> None:
    """Answer with an error."""
    body, headers = refused.answer()
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
