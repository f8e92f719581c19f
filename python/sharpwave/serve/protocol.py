"""Connections of the server, with a deadline for each part of a request before it reaches the application.

uvicorn's protocol reads requests of any length for as long as they like to come. This one bounds what is read without
getting on (a request line, headers, lines between pieces of a body, trailers), the time until headers are there, the
time that an answer waits for its reader, and how many connections there are: when there are too many, the one that
has been waited for the longest is closed, never one whose request is being answered.
"""

from __future__ import annotations

import asyncio
import resource
from time import monotonic
from typing import Any

from sharpwave._lazy import MissingExtra
from sharpwave.serve.limits import Limits, Refused

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError as error:
    raise MissingExtra(f"uvicorn and httptools are needed ({error}): pip install 'sharpwave[serve]'") from None

_SPARE = 64
"""Open files of a server that are not connections."""


def protocol(limits: Limits) -> type[HttpToolsProtocol]:
    """The class of connections for these limits, as ``uvicorn.Config(http=…)`` takes it."""
    too_long = Refused(431, f"headers must not be longer than {limits.headers} bytes")
    most = min(limits.connections, max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE))

    class Connection(HttpToolsProtocol):
        """One connection."""

        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            self._loose = 0  # bytes since the last that got a request on
            self._requests = 0
            self._refused = Refused(400, "this is no HTTP request")
            self._timer: asyncio.TimerHandle | None = None
            self._writing: asyncio.TimerHandle | None = None
            self._since = monotonic()

        # A connection

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            self._wait_for_headers()
            if len(self.connections) > most:
                waited_for = [one for one in self.connections if isinstance(one, Connection) and one.is_waited_for()]
                min(waited_for, key=lambda one: one._since).transport.abort()  # itself, at the latest

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop("_timer")
            self._stop("_writing")
            super().connection_lost(exc)

        def is_waited_for(self) -> bool:
            """Whether it is the client's turn: to send a request, or the rest of one."""
            return not self._is_asked() or self.cycle.more_body

        def _is_asked(self) -> bool:
            """Whether a request has not been answered yet."""
            return self._requests > 0 and not self.cycle.response_complete

        # What comes

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            if self._timer is None and not self._is_asked():
                self._wait_for_headers()
            self._loose += len(data)
            super().data_received(data)
            if self._loose > limits.headers and not self.transport.is_closing():
                self._refuse(too_long)

        def on_headers_complete(self) -> None:
            self._stop("_timer")
            if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > limits.headers:
                self._refused = too_long
                raise self._refused
            self._got_on()
            super().on_headers_complete()
            self._requests += 1

        def on_body(self, body: bytes) -> None:
            self._got_on()
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._stop("_timer")
            self._got_on()
            super().on_message_complete()

        def on_response_complete(self) -> None:
            self._since = monotonic()
            super().on_response_complete()

        def send_400_response(self, msg: str) -> None:
            del msg
            self._refuse(self._refused)

        def _got_on(self) -> None:
            self._loose = 0

        def _wait_for_headers(self) -> None:
            self._since = monotonic()
            self._timer = self.loop.call_later(limits.arrival, self._late)

        def _late(self) -> None:
            self._timer = None
            if self.transport.is_closing():
                return
            if self._loose:
                self._refuse(Refused(408, f"headers must be there within {limits.arrival:g} seconds", "TimeoutError"))
            else:
                self.transport.close()

        # What goes

        def pause_writing(self) -> None:
            super().pause_writing()
            self._writing = self.loop.call_later(limits.seconds, self.transport.abort)

        def resume_writing(self) -> None:
            self._stop("_writing")
            super().resume_writing()

        def _stop(self, name: str) -> None:
            timer: asyncio.TimerHandle | None = getattr(self, name)
            if timer is not None:
                timer.cancel()
                setattr(self, name, None)

        def _refuse(self, refused: Refused) -> None:
            """Answer without the application, and close the connection."""
            body, headers = refused.answer()
            lines = [f"HTTP/1.1 {refused.status} ", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
            self.transport.write("\r\n".join(lines).encode() + body)
            self.transport.close()

    return Connection
