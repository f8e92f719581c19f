"""The client for programs that run an event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sharpwave.serve.verbs import VERBS
from sharpwave.store import ValueStore

COROUTINES = frozenset({"frozen", *(verb.name for verb in VERBS.values() if verb.method is not None)})


class AsyncStore:
    """The verbs of a store as coroutines. Each call runs in a thread.

    >>> store = sw.serve.AsyncStore(sw.serve.Client("http://127.0.0.1:8808"))
    >>> scores = await store.score(steps)

    Works with every `ValueStore`, also one in this process: no call holds the GIL while it computes or waits.

    Args:
        store: the store; it can be used directly too.
        threads: how many calls run at the same time.
    """

    def __init__(self, store: ValueStore, threads: int = 16) -> None:
        self.store = store
        self._threads = ThreadPoolExecutor(threads, "sharpwave-async")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in COROUTINES:
            raise AttributeError(f"AsyncStore has no {name!r}; it has {sorted(COROUTINES)}, and `.store`")
        method = getattr(self.store, name)

        @functools.wraps(method)
        async def call(*arguments: Any, **options: Any) -> Any:
            work = functools.partial(method, *arguments, **options)
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

        return call

    def close(self) -> None:
        """Wait for the calls under way; the store stays open."""
        self._threads.shutdown(wait=True)
