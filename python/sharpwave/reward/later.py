"""Scoring beside the training: what can be embedded or scored while the policy is still generating.

    ahead = reward.prepare(prompts, completions)     # embedded in the background: the call that scores them is quick
    later = reward.submit(prompts, completions)      # scored in the background; `later.result()` is a RewardOutput
    GRPOTrainer(reward_funcs=[reward.asynchronous(), judge], …)   # beside other coroutine rewards

One thread a reward does all of it, in the order in which it was asked for, so that the store learns the same as if it
had been asked in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sharpwave import coerce
from sharpwave.embed import Embedder, Joined
from sharpwave.episodes import Chunker, Text, chunk_batch
from sharpwave.reward.function import TrainerFunction
from sharpwave.reward.output import RewardOutput


class Later(TrainerFunction):
    """What `InstrumentalReward` does in a thread of its own; see core.py for the rest of it."""

    embedder: Embedder
    chunker: Chunker
    _pool: ThreadPoolExecutor | None

    def score_texts(
        self,
        prompts: Sequence[Text | None],
        completions: Sequence[Text],
        *,
        learn: bool | None = None,
        columns: Mapping[str, Any] | None = None,
    ) -> RewardOutput:
        raise NotImplementedError

    def submit(
        self,
        prompts: Sequence[Text | None],
        completions: Sequence[Text],
        *,
        learn: bool | None = None,
        columns: Mapping[str, Any] | None = None,
    ) -> Future[RewardOutput]:
        """`score_texts`, begun now and finished later; what was submitted first is scored first."""
        given = coerce.sequence("prompts", prompts), coerce.sequence("completions", completions)
        return self._thread().submit(self.score_texts, *given, learn=learn, columns=columns)

    def prepare(self, prompts: Sequence[Text | None], completions: Sequence[Text]) -> Future[int]:
        """Embed the steps of completions that are finished before their batch is, into the embedder's cache; gives how
        many steps there were. The call that scores them then finds their vectors.

        Raises:
            ValueError: the embedder has no cache to put them into.
        """
        if not cached(self.embedder):
            raise ValueError("prepare needs an embedder with a cache, such as SentenceTransformer(…, cache=True)")
        given = coerce.sequence("prompts", prompts), coerce.sequence("completions", completions)
        return self._thread().submit(self._embed, *given)

    def asynchronous(self) -> AsyncReward:
        """This reward as a coroutine function, for trainers that gather those: several rewards take their time
        together, such as this one and a judge behind HTTP."""
        return AsyncReward(self)

    def _embed(self, prompts: list[Text | None], completions: list[Text]) -> int:
        steps = chunk_batch(self.chunker, prompts, completions).steps
        self.embedder(steps)
        return len(steps)

    def _thread(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, f"{self.name}-reward")
        return self._pool


class AsyncReward:
    """``async f(prompts=, completions=, …) -> list[float | None]`` of a reward, under its name; it pickles as it does.

    Attributes:
        reward: whose it is.
    """

    def __init__(self, reward: Later) -> None:
        self.reward = reward
        self.__name__ = reward.name

    async def __call__(self, prompts: Any = None, completions: Any = None, **given: Any) -> list[float | None]:
        """One number a completion; None where it cannot be scored."""

        def score() -> list[float | None]:
            return self.reward(prompts, completions, **given)

        return await asyncio.wrap_future(self.reward._thread().submit(score))  # pyright: ignore[reportPrivateUsage]

    def __repr__(self) -> str:
        return f"AsyncReward({self.reward!r})"


def cached(embedder: Any) -> bool:
    """Whether an embedder, or each part of a joined one, keeps what it has embedded."""
    if isinstance(embedder, Joined):
        return all(cached(part) for part in embedder.parts)
    return getattr(embedder, "cache", None) is not None
