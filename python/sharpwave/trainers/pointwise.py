"""Rewards for trainers that ask for one sample at a time, from many tasks or threads: what waits is scored together.

verl, OpenRLHF and verifiers call a reward function once a sample. An embedder that is called for each is slow, and what
spans a batch (the divergence of a group, sharing) does not exist for one. `BatchedReward` takes what was asked while
the last batch was scored, waits a moment for more, and makes one `score_texts` of it.

These trainers are configured with names, not with objects. `shared_reward` makes the reward that a file describes
(`InstrumentalReward.from_config`), once a process. Where each of several processes makes its own, its store should be a
served one (``store: http://…`` in the file, or ``store: ray:…``), so that all learn into one and all scores are
comparable.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sharpwave import _coerce
from sharpwave._batching import MicroBatcher
from sharpwave._moved import renamed
from sharpwave.reward import InstrumentalReward, RewardOutput
from sharpwave.reward.weights import TERMS
from sharpwave.text.chunkers import Text, pairs
from sharpwave.text.typicality import LATER, REFERENCE

CONFIG = "SHARPWAVE_REWARD"
Parts = dict[str, float]


@dataclass(frozen=True)
class _Sample:
    prompt: Text | None
    completion: Text
    columns: Mapping[str, Any]


class BatchedReward:
    """Scores concurrent requests as one batch. Safe to share between threads and event loops.

    >>> together = BatchedReward(reward)
    >>> together.ask(prompt, completion)["score"]
    >>> (await together.asked(prompt, completion))["score"]

    The parts of a sample are ``score``, which is what the trainer gets, the terms ``terminal``, ``instrumental`` and
    ``divergence`` in standard deviations of the base, ``support``, ``gated`` (what a gate T multiplies, of a protected
    reward), and ``scorable`` (1, or 0 for a completion that
    cannot be scored). A part that is missing is 0, so that all samples have all parts.

    Args:
        reward: scores the batches.
        wait: seconds that the first of a batch waits for others.
        most: the largest batch, in samples.
        sleep_every: the store sleeps after this many learned samples; 0: never.
        unscorable: the score of a completion that cannot be scored (it is empty, or nothing but a ``<think>`` block).
    """

    def __init__(
        self,
        reward: InstrumentalReward,
        *,
        wait: float = 0.005,
        most: int = 256,
        sleep_every: int = 256,
        unscorable: float = 0.0,
    ) -> None:
        if not isinstance(reward, InstrumentalReward):
            raise TypeError(f"reward must be a sharpwave.InstrumentalReward, got {type(reward).__name__}")
        self.reward = reward
        self.wait = _coerce.number("wait", wait)
        self.most = max(_coerce.count("most", most), 1)
        self.sleep_every = _coerce.count("sleep_every", sleep_every)
        self.unscorable = _coerce.number("unscorable", unscorable)
        self.batches = 0
        self.learned = 0
        self._batcher = MicroBatcher(self._score, wait=self.wait, most=self.most, name="sharpwave-together")

    def submit(
        self,
        prompt: Text | None,
        completion: Text,
        *,
        learn: bool = False,
        columns: Mapping[str, Any] | None = None,
    ) -> Future[Parts]:
        """Request a score without waiting for it; returns a future.

        Args:
            prompt, completion: texts or chat messages; None if there is no prompt.
            learn: whether the completion may enter the store in the way that the reward's ``learn`` says.
            columns: further arguments of a terminal. Each reaches it as a list with one entry per sample of the batch.
        """
        return self._batcher.submit(_Sample(prompt, completion, dict(columns or {})), learn)

    def ask(self, prompt: Text | None, completion: Text, **options: Any) -> Parts:
        """The score; waits for it."""
        return self.submit(prompt, completion, **options).result()

    async def asked(self, prompt: Text | None, completion: Text, **options: Any) -> Parts:
        """The score; the event loop continues in the meantime."""
        return await asyncio.wrap_future(self.submit(prompt, completion, **options))

    def many(
        self,
        prompts: Sequence[Text | None],
        completions: Sequence[Text],
        columns: Sequence[Mapping[str, Any]],
        **options: Any,
    ) -> list[Parts]:
        """The scores of several samples; waits for them."""
        waiting = [
            self.submit(prompt, completion, columns=column, **options)
            for prompt, completion, column in zip(*pairs(prompts, completions), columns, strict=True)
        ]
        return [answer.result() for answer in waiting]

    # In the batcher's thread

    def _score(self, learn: Hashable, batch: list[_Sample]) -> list[Parts]:
        names = sorted({name for sample in batch for name in sample.columns})
        columns: dict[str, Any] = {name: [sample.columns.get(name) for sample in batch] for name in names}
        if self.reward.typicality is not None and not self.reward.typicality.reads:
            columns[REFERENCE] = LATER  # these trainers ask for rewards before their reference pass
        out = self.reward.score_texts(
            [sample.prompt for sample in batch],
            [sample.completion for sample in batch],
            learn=bool(learn),
            columns=columns,
        )
        self.batches += 1
        if learn:
            before = self.learned
            self.learned += len(batch)
            if self.sleep_every and self.learned // self.sleep_every > before // self.sleep_every:
                self.reward.sleep()
        return [self._parts(out, row) for row in range(len(batch))]

    def _parts(self, out: RewardOutput, row: int) -> Parts:
        reward = float(out.reward[row])
        scorable = bool(np.isfinite(reward))
        found: Parts = {"score": reward if scorable else self.unscorable}
        for name in TERMS:
            found[name] = _finite(out.standardised.get(name), row)
        found["support"] = _finite(out.support, row)
        found["gated"] = _finite(out.factors.get("gated"), row)
        found["scorable"] = float(scorable)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        options = {name: getattr(self, name) for name in ("wait", "most", "sleep_every", "unscorable")}
        return _together, (self.reward, options)


def _together(reward: InstrumentalReward, options: dict[str, Any]) -> BatchedReward:
    return BatchedReward(reward, **options)


def _finite(values: Any, row: int) -> float:
    value = float("nan") if values is None else float(values[row])
    return value if np.isfinite(value) else 0.0


_made: dict[tuple[int, str], BatchedReward] = {}
_making = threading.Lock()


def _make_anew() -> None:
    """Renew the lock in a forked child, which does not have the thread that may hold it."""
    global _making
    _making = threading.Lock()


os.register_at_fork(after_in_child=_make_anew)


def shared(config: str | os.PathLike[str] | None = None, **options: Any) -> BatchedReward:
    """The reward that a YAML or JSON file describes, made once per process.

    Args:
        config: the file; by default the value of ``SHARPWAVE_REWARD`` in the environment.
        options: of `BatchedReward`. Those of the first call count.

    Raises:
        ValueError: no file was named.
        FileNotFoundError: there is no such file.
    """
    name = os.environ.get(CONFIG) if config is None else os.fspath(config)
    if not name:
        raise ValueError(f"no reward: name the file that describes it, or set {CONFIG}")
    key = (os.getpid(), str(Path(name).resolve()))
    with _making:
        if key not in _made:
            _made[key] = BatchedReward(InstrumentalReward.from_config(key[1]), **options)
        return _made[key]


@atexit.register
def forget() -> None:
    """Drop the rewards that `shared` made, and close their stores."""
    with _making:
        for key, together in list(_made.items()):
            del _made[key]
            if key[0] == os.getpid() and not together.reward.store.closed:
                together.reward.store.close()


__getattr__ = renamed(__name__, {"Together": "BatchedReward"})
