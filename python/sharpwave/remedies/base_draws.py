"""Remedy 3 with base samples that are drawn: once, when a prompt is first met, and kept; or for each batch anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave.reward import InstrumentalReward
from sharpwave.reward.measure import Scorable
from sharpwave.text.chunkers import Chunker, Text, chunk_batch

Draw = Callable[[list[Text | None]], tuple[Sequence[Text | None], Sequence[Text]]]


def draw_base(
    reward: InstrumentalReward, draw: Draw, cache: Path | str | None = None, *, each_step: bool = False
) -> None:
    """Let a reward's divergence draw base samples: of prompts that have none, or of every prompt for each batch.

    Without this, the completions of a prompt without samples are compared with all base samples. Call it after
    `InstrumentalReward.fit`, if that is called.

    Args:
        reward: it must have base samples, for the scale of its terms.
        draw: prompts to prompts and completions of the base policy, several of each prompt (eight, say). With an
            adapter in training, the base is the model with it switched off: ``with model.disable_adapter(): …``.
        cache: a ``.jsonl`` file to which each sample is added, ``{"prompt": …, "completion": …}``, and from which those
            that are there are read at once, so that a resumed run draws none again; None keeps them in memory alone.
        each_step: draw anew for each batch, and compare its completions with these alone: a generation more a batch,
            and no fixed samples that a policy could learn to resemble.

    Raises:
        ValueError: the reward has no base samples, a line of the cache is damaged, or ``each_step`` with a cache.
    """
    if reward.base is None:
        raise ValueError("the reward has no base samples: pass base=(prompts, completions) when it is made")
    if each_step and cache is not None:
        raise ValueError("each_step draws anew for each batch: there is nothing for a cache to keep")
    source = BaseDraws(
        draw, reward.chunker, reward.embedder, reward.store.dim, None if cache is None else Path(cache).absolute()
    )
    kept = source.read()
    if kept[1]:
        reward.base.add(kept[0], source.vectors(*kept))
    reward.base.draw = source
    reward.base.each_step = each_step


class BaseDraws:
    """Prompts to base samples, drawn and embedded; what `BaseSamples.draw` holds."""

    def __init__(self, draw: Draw, chunker: Chunker, embedder: Any, dim: int, cache: Path | None) -> None:
        self.draw = draw
        self.chunker = chunker
        self.embedder = embedder
        self.dim = dim
        self.cache = cache

    def __call__(self, prompts: list[Text | None]) -> tuple[Sequence[Text | None], NDArray[np.float32]]:
        """Prompts and vectors of E samples; their texts go to the cache."""
        asked, completions = self.draw(prompts)
        vectors = self.vectors(asked, completions)
        if self.cache is not None:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            with self.cache.open("a", encoding="utf-8") as file:
                for prompt, completion in zip(asked, completions, strict=True):
                    file.write(json.dumps({"prompt": prompt, "completion": completion}, ensure_ascii=False) + "\n")
        return asked, vectors

    def vectors(self, prompts: Sequence[Text | None], completions: Sequence[Text]) -> NDArray[np.float32]:
        """(E, d): a completion as the mean direction of its steps."""
        return Scorable.of(chunk_batch(self.chunker, prompts, completions), self.embedder, self.dim).vectors()

    def read(self) -> tuple[list[Text | None], list[Text]]:
        """What the cache holds; a torn last line, of a process that was killed, is cut off."""
        prompts: list[Text | None] = []
        completions: list[Text] = []
        if self.cache is None or not self.cache.is_file():
            return prompts, completions
        lines = self.cache.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
            self.cache.write_bytes(b"".join(lines))
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                prompts.append(row["prompt"])
                completions.append(row["completion"])
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{self.cache} line {number} is no base sample") from None
        return prompts, completions
