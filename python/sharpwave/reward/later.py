"""Scoring beside the training: what can be embedded or scored while the policy is still generating.

    ahead = reward.prepare(prompts, completions)     # embedded in the background: the call that scores them is quick
    later = reward.submit(prompts, completions)      # scored in the background; `later.result()` is a RewardOutput
    GRPOTrainer(reward_funcs=[reward.asynchronous(), judge], …)   # beside other coroutine rewards

One thread a reward does all of it, in the order in which it was asked for, so that the store learns the same as if it
had been asked in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar

from sharpwave._fork import renewed_in_children
from sharpwave.text.embedders import Joined

P = ParamSpec("P")
T = TypeVar("T")


class BackgroundScorer:
    """One thread that does what it is given, in order; a forked child has one of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._after_fork()
        renewed_in_children(self)

    def _after_fork(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, work: Callable[P, T], *given: P.args, **options: P.kwargs) -> Future[T]:
        """What ``work`` gives, when it is done."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, f"{self.name}-reward")
        return self._pool.submit(work, *given, **options)


class Scorer(Protocol):
    """What `AsyncReward` needs of a reward."""

    @property
    def name(self) -> str: ...

    @property
    def background(self) -> BackgroundScorer: ...

    def __call__(self, prompts: Any = None, completions: Any = None, **given: Any) -> list[float | None]: ...


class AsyncReward:
    """``async f(prompts=, completions=, …) -> list[float | None]`` of a reward, under its name; it pickles as it does.

    Attributes:
        reward: whose it is.
    """

    def __init__(self, reward: Scorer) -> None:
        self.reward = reward
        self.__name__ = reward.name

    async def __call__(self, prompts: Any = None, completions: Any = None, **given: Any) -> list[float | None]:
        """One number a completion; None where it cannot be scored."""

        def score() -> list[float | None]:
            return self.reward(prompts, completions, **given)

        return await asyncio.wrap_future(self.reward.background.submit(score))

    def __repr__(self) -> str:
        return f"AsyncReward({self.reward!r})"


def cached(embedder: Any) -> bool:
    """Whether an embedder, or each part of a joined one, keeps what it has embedded."""
    if isinstance(embedder, Joined):
        return all(cached(part) for part in embedder.parts)
    return getattr(embedder, "cache", None) is not None
