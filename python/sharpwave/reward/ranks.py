"""Several ranks: every rank keeps a replica of the store, and what one step brings goes into all of them alike.

Scores of one group are comparable only where all ranks score against the same store, and a group may straddle ranks. So
after each call the ranks exchange what they saw (vectors, not texts alone; nobody embeds anything twice), put it into
one order, and each writes all of it. The order is by prompt and completion, never by rank: the same step on one, two or
eight ranks makes the same store, bit for bit. The exchange also compares the replicas' digests.

What moves with the training batches is exchanged too: running constants of the scale, and the habituation table.

A store that is served (`sharpwave.serve`) is one for all ranks: the first rank writes, and the others wait for it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sharpwave.reward.base import prompt_key
from sharpwave.store import ValueStore

T = TypeVar("T")
Floats = NDArray[np.float64]
Used = tuple[NDArray[np.int64], NDArray[np.float64]]


class DivergedError(RuntimeError):
    """The replicas of two ranks differ, so that scores of one group would not be comparable."""


def count() -> int:
    """How many ranks there are."""
    torch = sys.modules.get("torch")  # a process that never imported torch is not distributed
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return 1
    return torch.distributed.get_world_size()


def number() -> int:
    """Which one this is."""
    return sys.modules["torch"].distributed.get_rank() if count() > 1 else 0


def exchanged(mine: T) -> list[T]:
    """What every rank has, by rank; every rank must ask."""
    if count() == 1:
        return [mine]
    everybody: list[Any] = [None] * count()
    sys.modules["torch"].distributed.all_gather_object(everybody, mine)
    return everybody


def gathered(
    prompts: Sequence[Any], vectors: NDArray[np.float32]
) -> tuple[list[Any], NDArray[np.float32], NDArray[np.int64]]:
    """Prompts and vectors (n, d) of all ranks, in an order that does not depend on who has them, and which are mine;
    every rank must ask."""
    everybody = exchanged((list(prompts), vectors))
    asked = [prompt for theirs, _ in everybody for prompt in theirs]
    rows = np.concatenate([theirs for _, theirs in everybody])
    order = sorted(range(len(rows)), key=lambda row: (name_of(prompt_key(asked[row])), rows[row].tobytes()))
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows))
    first = sum(len(theirs) for theirs, _ in everybody[: number()])
    return [asked[row] for row in order], rows[order], place[first : first + len(prompts)]


def agree(store: ValueStore, when: str) -> None:
    """Compare the replicas; every rank must ask.

    Raises:
        DivergedError: they differ; on every rank.
    """
    if count() > 1 and not store.remote:
        same_digests(exchanged(store.digest()), when)


def same_digests(digests: list[str], when: str) -> None:
    """As `agree`, of digests by rank."""
    other = next((rank for rank, digest in enumerate(digests) if digest != digests[0]), None)
    if other is not None:
        raise DivergedError(
            f"the stores of rank 0 and rank {other} differ {when} ({digests[0][:12]}… and {digests[other][:12]}…): "
            f"fill, restore and sleep them alike on every rank, and write to none of them on one rank alone"
        )


def first_alone(store: ValueStore) -> bool:
    """Whether this rank writes. Every rank writes to its replica; to a shared store only the first does."""
    return not store.remote or number() == 0


@dataclass(frozen=True)
class Episode:
    """One completion that is learned.

    Attributes:
        prompt, completion: 16 bytes each that stand for their texts: the order.
        steps: (T, d).
        texts: of the steps, or None.
        drives: one number a channel.
        used: the memories that it used and how much; None without habituation.
    """

    prompt: bytes
    completion: bytes
    steps: NDArray[np.float32]
    texts: list[str] | None
    drives: dict[str, np.float32]
    used: Used | None

    @property
    def place(self) -> tuple[bytes, bytes, bytes]:
        """Where it comes in the order; what is equal in all of this can change places without a difference."""
        drives = b"".join(name.encode() + value.tobytes() for name, value in sorted(self.drives.items()))
        return self.prompt, self.completion, drives + self.steps.tobytes()


def in_order(episodes: list[Episode]) -> list[Episode]:
    """By prompt, then by completion."""
    return sorted(episodes, key=lambda episode: episode.place)


def name_of(texts: Any) -> bytes:
    """16 bytes of the SHA-256 of some texts (surrogates included)."""
    return hashlib.sha256(repr(texts).encode("utf-8", "surrogatepass")).digest()[:16]
