"""What completions leave in the store. With several ranks, the writes of all go to every store, in the order of ranks:
stores that differed would make the scores of one group incomparable."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sharpwave.episodes import Batch
from sharpwave.reward.measure import Measured
from sharpwave.reward.terminal import FunctionTerminal, Terminal
from sharpwave.store import ValueStore

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
        store.add_channel(terminal.name, *(span or (0.0, 1.0)))


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


def gathered(write: Write | None) -> list[Write]:
    """The writes of all ranks in their order; every rank must ask. One process: its own."""
    torch = sys.modules.get("torch")  # a process that never imported torch is not distributed
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        ranks = torch.distributed.get_world_size()
        if ranks > 1:
            writes: list[Write | None] = [None] * ranks
            torch.distributed.all_gather_object(writes, write)
            return [one for one in writes if one is not None]
    return [] if write is None else [write]
