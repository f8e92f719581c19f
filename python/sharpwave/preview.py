"""What a veto would change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sharpwave.results import Preview

if TYPE_CHECKING:
    from sharpwave import _core


def preview(now: _core.View, then: _core.View) -> Preview:
    """The store `then`, which a veto would leave of `now`, beside it.

    A memory then is the same as one now if the first step that is left of the one went into the other: ids do not tell,
    because memories that were made after what is vetoed get fresh ones.
    """
    ids = now.ids()
    known = _followed(now, then)
    stays = np.array([memory in known for memory in ids.tolist()], np.bool_)
    kept, renamed = ids[stays], np.array([known[memory] for memory in ids[stays].tolist()], np.int64)
    return Preview(
        memories=(len(ids), len(then)),
        associations=(len(now.edges()[0]), len(then.edges()[0])),
        gone=ids[~stays],
        kept=kept,
        renamed=renamed,
        before=now.values()[stays],
        after=then.values()[np.searchsorted(then.ids(), renamed)],
        digest=then.digest(),
    )


def _followed(now: _core.View, then: _core.View) -> dict[int, int]:
    """For each memory now that is still there then, its id then."""
    of_terminals = zip(now.terminals().tolist(), then.terminals().tolist(), strict=True)
    found = {before: after for before, after in of_terminals if before >= 0}
    memory_then = {step: memory for memory, step in _steps(then)}
    for memory, step in _steps(now):
        if memory not in found and step in memory_then:
            found[memory] = memory_then[step]
    return found


def _steps(store: _core.View) -> list[tuple[int, tuple[int, bool, int]]]:
    """Of everything that went into a memory: the memory; and the episode or insert, which of both, and the step."""
    memories, *columns = (column.tolist() for column in store.origins(None))
    return list(zip(memories, zip(*columns, strict=True), strict=True))
