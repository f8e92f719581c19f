"""The client for programs that run an event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sharpwave.store import ValueStore

ASKED = (
    *("search", "value", "score", "explain", "recall", "recall_many", "associate"),
    *("observe", "insert", "replay", "veto", "digest", "frozen", "flush"),
)


class AsyncStore:
    """The verbs of a store as coroutines; each call has a thread of its own meanwhile.

    >>> store = sw.serve.AsyncStore(sw.serve.Client("http://127.0.0.1:8808"))
    >>> scores = await store.score(steps)

    Any `ValueStore` will do, one that lives here too: no call holds the GIL while it works or waits.

    Args:
        store: whom to ask; it stays usable beside.
        threads: how many calls at once.
    """

    def __init__(self, store: ValueStore, threads: int = 16) -> None:
        self.store = store
        self._threads = ThreadPoolExecutor(threads, "sharpwave-async")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in ASKED:
            raise AttributeError(f"AsyncStore has no {name!r}; it has {sorted(ASKED)}, and `.store`")
        method = getattr(self.store, name)

        @functools.wraps(method)
        async def call(*arguments: Any, **options: Any) -> Any:
            work = functools.partial(method, *arguments, **options)
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

        return call

    def close(self) -> None:
        """Wait for the calls under way; the store stays open."""
        self._threads.shutdown(wait=True)
