"""What completions leave in the store; what several ranks do so that their stores stay equal is in ranks.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sharpwave.habituation import used_by_each
from sharpwave.reward import ranks
from sharpwave.reward.base import prompt_key
from sharpwave.reward.measure import Measured
from sharpwave.reward.terminal import FunctionTerminal, Terminal
from sharpwave.store import ValueStore
from sharpwave.text.chunkers import Batch, Text, message_texts

Learn = Literal["off", "propose", "online"]
LEARN: tuple[str, ...] = get_args(Learn)


@dataclass(frozen=True)
class Write:
    """The episodes of one call, ready to be observed."""

    steps: NDArray[np.float32]
    offsets: NDArray[np.int64]
    texts: list[str] | None
    drives: dict[str, NDArray[np.float32]]
    source: str

    def apply(self, store: ValueStore, propose: bool) -> int:
        """Observe them; returns how many."""
        store.observe(
            self.steps,
            self.offsets,
            drives=self.drives or None,
            texts=self.texts,
            source=self.source,
            propose=propose,
        )
        return len(self.offsets) - 1


def open_channel(store: ValueStore, terminal: Terminal | None, span: tuple[float, float] | None) -> None:
    """A reward function is observed as a scalar channel of its own name and range."""
    if isinstance(terminal, FunctionTerminal) and terminal.name not in store.channels:
        try:
            store.add_channel(terminal.name, *(span or (0.0, 1.0)))
        except ValueError:
            if terminal.name not in store.channels:  # else another process that shares the store was first
                raise


def write_of(
    found: Measured, batch: Batch, store: ValueStore, terminal: Terminal | None, texts: bool, source: str
) -> Write | None:
    """The scorable episodes of a batch. What a terminal gave becomes the drive, [0, 1], by its channel's range."""
    scorable = found.scorable
    if not len(scorable.steps):
        return None
    drives: dict[str, NDArray[np.float32]] = {}
    if terminal is not None and terminal.name in store.scalar_channels:
        low, high = store.channel_ranges[terminal.name]
        drive = np.clip((found.terminal - low) / (high - low), 0.0, 1.0)
        drives[terminal.name] = drive[scorable.kept].astype(np.float32)
    kept = [batch.steps[row] for row in scorable.rows] if texts else None
    return Write(scorable.steps, scorable.offsets, kept, drives, source)


def episodes_of(
    write: Write | None, found: Measured, prompts: Sequence[Text | None], completions: Sequence[Text], habituates: bool
) -> list[ranks.Episode]:
    """The episodes of a batch one by one, so that they can be put in order with those of other ranks."""
    if found.scores is None:
        return []
    used = used_by_each(found.scores) if habituates else None
    rows: list[int] = np.flatnonzero(found.scorable.kept).tolist()
    spans = zip(found.scorable.offsets[:-1], found.scorable.offsets[1:], strict=True)
    return [
        ranks.Episode(
            ranks.name_of(prompt_key(prompts[row])),
            ranks.name_of(message_texts(completions[row])),
            found.scorable.steps[first:end],
            None if write is None or write.texts is None else write.texts[first:end],
            {} if write is None else {name: column[n] for name, column in write.drives.items()},
            None if used is None else used[n],
        )
        for n, (row, (first, end)) in enumerate(zip(rows, spans, strict=True))
    ]


def joined(episodes: Sequence[ranks.Episode], source: str) -> Write | None:
    """Episodes as one write."""
    if not episodes:
        return None
    offsets = np.cumsum([0, *(len(episode.steps) for episode in episodes)])
    texts = None
    if all(episode.texts is not None for episode in episodes):
        texts = [text for episode in episodes for text in episode.texts or ()]
    drives = {name: np.array([e.drives[name] for e in episodes], np.float32) for name in episodes[0].drives}
    return Write(np.concatenate([episode.steps for episode in episodes]), offsets, texts, drives, source)
