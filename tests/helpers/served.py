"""A server process, as `sharpwave serve` starts it, that can be killed and started again at its address.

`ask_app` sends requests to an app without a server.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx
from sharpwave.serve import Client, Limits, Service, create_app


class Server:
    """Serves `store`; the port stays the same when it is started again."""

    def __init__(self, store: Path, *options: str, dim: int | None = 48) -> None:
        self.store, self.options = store, [*options, *([] if dim is None else ["--dim", str(dim)])]
        self.port, self.said = 0, list[str]()
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "sharpwave.cli", "serve", str(self.store), "--port", str(self.port)]
        self.process = subprocess.Popen([*command, *self.options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        while " memories at " not in (line := self.process.stdout.readline()):
            assert line, "the server did not start"
            self.said.append(line.strip())
        self.url = line.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])

    def client(self, **options: object) -> Client:
        return Client(self.url, **options)  # type: ignore[arg-type]

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.send_signal(signal.SIGKILL)
        self._ended()

    def stop(self, which: int = signal.SIGTERM) -> int:
        """As a supervisor does; returns the exit code."""
        self.process.send_signal(which)
        return self._ended()

    def _ended(self) -> int:
        assert self.process.stdout is not None
        code = self.process.wait(timeout=60)
        self.said.extend(self.process.stdout.read().splitlines())
        self.process.stdout.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


def ask_app(service: Service, limits: Limits, work: Any, token: str | None = None) -> None:
    """Run `work` with a client of an app that has no server around it."""

    async def run() -> None:
        transport = httpx.ASGITransport(app=create_app(service, limits=limits, token=token))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await work(client)

    asyncio.run(run())
