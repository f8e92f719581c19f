"""The server process: it listens, answers, and on a signal ends without loss."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Collection, Generator
from typing import Any

from sharpwave._lazy import require
from sharpwave.serve.app import create_app
from sharpwave.serve.limits import Limits, is_loopback
from sharpwave.serve.protocol import protocol
from sharpwave.serve.service import Service
from sharpwave.serve.tokens import TOKEN, checked


def serve(
    service: Service,
    host: str = "127.0.0.1",
    port: int = 8808,
    *,
    token: str | None = None,
    limits: Limits | None = None,
    allowed_hosts: Collection[str] = (),
    grace: float = 30.0,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; then answer what was begun, write what was acknowledged, and close the store.

    Args:
        host: an address of this machine. One that others can reach needs a token.
        port: 0 for any that is free.
        token: by default the value of ``SHARPWAVE_TOKEN`` in the environment.
        allowed_hosts: names under which the server may be asked, beside those of the loopback address and `host`.
            Where others can reach it (and need a token), any name will do if none is given.
        grace: seconds for requests that are being answered when the end comes. A write that has begun is finished
            in any case.
        ready: called with the url once requests are answered.

    Raises:
        ValueError: the address can be reached from elsewhere and there is no token, or the token is empty.
        OSError: the address is taken, or none of this machine's.
    """
    uvicorn = require("uvicorn", "serve")
    token = os.environ.get(TOKEN) if token is None else token
    check_address(host, port, token)
    bounds = limits or Limits()
    names = {host, *allowed_hosts} if allowed_hosts or is_loopback(host) else None
    taken = listening(host, port)
    try:
        config = uvicorn.Config(
            create_app(service, limits=bounds, token=token, allowed_hosts=names),
            http=protocol(bounds),
            ws="none",
            access_log=False,
            log_level="warning",
            lifespan="on",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, round(grace)),
            server_header=False,
            date_header=False,
        )
        server = _server(uvicorn, config, lambda: ready and ready(address(taken)))
        server.run(sockets=[taken])
    finally:
        taken.close()
        service.close()


def check_address(host: str, port: int, token: str | None) -> None:
    """A ValueError if the port or the token is none, or the token is missing where it is needed."""
    if not 0 <= port < 1 << 16:
        raise ValueError(f"port must lie in [0, 65535], got {port}")
    if token is not None:
        checked(token)
    if token is None and not is_loopback(host):
        raise ValueError(f"{host} can be reached from elsewhere: give a --token, or {TOKEN} in the environment")


def listening(host: str, port: int) -> socket.socket:
    """A socket that waits for connections."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, where = found[0]
        return socket.create_server(where[:2], family=family, backlog=2048)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), f"{host}:{port}") from None


def address(taken: socket.socket) -> str:
    """The url of a socket."""
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server(uvicorn: Any, config: Any, ready: Callable[[], Any]) -> Any:
    class Server(uvicorn.Server):
        """Returns at the end. Uvicorn's own handler raises the signal again, which would end the process."""

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None]:
            try:
                before = {which: signal.signal(which, self.handle_exit) for which in (signal.SIGINT, signal.SIGTERM)}
            except ValueError:  # not in the main thread: the caller ends the server
                before = {}
            try:
                yield
            finally:
                for which, handler in before.items():
                    signal.signal(which, handler)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if self.started:
                ready()

    return Server(config)
