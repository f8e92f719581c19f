"""The columns of a store as tensors on a device, brought up to date by copying what changed.

Rows are the memories by rising id, as in the store. What tells whether a key changed is its stamp, which the core gives
anew whenever a key becomes another; values and associations, which are small beside the keys, are compared with a
copy on the host. Rows that only moved, because a memory before them was evicted, move on the device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sharpwave._lazy import require
from sharpwave.config import Config
from sharpwave.view import View

BATCH = 16_384
"""Rows of keys that pass through the host's memory at a time."""


class Refreshed(NamedTuple):
    """How many rows were copied to the device."""

    keys: int
    values: int
    associations: int


class _Rows(NamedTuple):
    """What a row of the mirror holds, on the host; the keys are not kept, their stamps are."""

    ids: NDArray[np.int64]
    stamps: NDArray[np.uint64]
    values: NDArray[np.float32]
    targets: NDArray[np.int64]
    """(N, width) the ids of the successors, -1 padded."""
    weights: NDArray[np.float64]
    """(N, width) P, 0 padded."""


class Mirror:
    """A store's columns on a device.

    Attributes:
        keys: (N, d) k, in `dtype`.
        values: (N, Q) v, float64.
        targets: (N, width) int64, the rows of each memory's successors; 0 where there is none.
        weights: (N, width) P in `dtype`; 0 where there is none.
        terminal: (N,) bool.
        terminal_keys: (Q, d), zeros for a scalar channel.
        low, high, fades: (Q,) the range of each channel, and whether it is a terminal, which fades.
        baseline: (Q,) float64.
    """

    keys: Any
    values: Any
    targets: Any
    weights: Any

    def __init__(self, source: View[Any], device: Any, dtype: Any) -> None:
        self.torch = require("torch", "embed")
        self.source, self.device, self.dtype = source, device, dtype
        self._seen: tuple[Any, int] | None = None
        self._allocate(source.dim, len(source.channels))

    def _allocate(self, dim: int, channels: int) -> None:
        empty = np.empty
        self.held = _Rows(
            empty(0, np.int64),
            empty(0, np.uint64),
            empty((0, channels), np.float32),
            empty((0, 0), np.int64),
            empty((0, 0)),
        )
        self._columns = {
            "keys": self._empty(0, dim, self.dtype),
            "values": self._empty(0, channels, self.torch.float64),
            "targets": self._empty(0, 0, self.torch.int64),
            "weights": self._empty(0, 0, self.dtype),
        }

    def _empty(self, rows: int, width: int, dtype: Any) -> Any:
        return self.torch.zeros((rows, width), dtype=dtype, device=self.device)

    def __len__(self) -> int:
        return len(self.held.ids)

    @property
    def ids(self) -> NDArray[np.int64]:
        """(N,) the ids of the memories, on the host."""
        return self.held.ids

    def refresh(self) -> Refreshed:
        """Copy what changed since the last time."""
        # A frozen view is not written to. Counted before it is read: a write in between is met the next time.
        seen = self.source, getattr(self.source, "_writes", int)()
        if self._seen is not None and self._seen[0] is self.source and self._seen[1] == seen[1]:
            return Refreshed(0, 0, 0)
        moment = self.source.frozen()
        now = _rows(moment)
        before = self.held
        if now.values.shape[1] != before.values.shape[1]:  # a channel came or went: columns are not matched
            before = before._replace(values=np.full((len(before.ids), now.values.shape[1]), np.nan, np.float32))
            self._columns["values"] = self._empty(len(self._columns["values"]), now.values.shape[1], self.torch.float64)
        width = max(before.targets.shape[1], now.targets.shape[1])
        before, now = _wide(before, width), _wide(now, width)
        self._widen(width)
        was = _places(before.ids, now.ids)
        self._move(before.ids, now.ids, was)
        fresh = was < 0
        keys = fresh | (now.stamps != _old(before.stamps, was))
        values = fresh | (now.values != _old(before.values, was)).any(axis=1)
        edges = fresh | (now.targets != _old(before.targets, was)).any(axis=1)
        edges |= (now.weights != _old(before.weights, was)).any(axis=1)
        copied = self._copy(moment._core, now, keys, values, edges)  # pyright: ignore[reportPrivateUsage]
        self._small(moment)
        self.held, self._seen = now, seen
        for name, column in self._columns.items():
            setattr(self, name, column[: len(now.ids)])
        return copied

    def _widen(self, width: int) -> None:
        """Makes room for that many associations a memory."""
        have = self._columns["targets"].shape[1]
        for name in ("targets", "weights") if width > have else ():
            column = self._columns[name]
            self._columns[name] = self._empty(len(column), width, column.dtype)
            self._columns[name][:, :have] = column

    def _move(self, old: NDArray[np.int64], new: NDArray[np.int64], was: NDArray[np.int64]) -> None:
        """Puts the rows that stay in their places, and makes room, all on the device."""
        room, kept = len(self._columns["keys"]), was >= 0
        stays = np.array_equal(was[: len(old)], np.arange(len(old)))
        if stays and len(new) <= room:
            return
        if len(new) > room:  # grows by half, so that appending copies each row a few times at most
            room = max(len(new), room + room // 2)
        to, source = self._rows(np.flatnonzero(kept)), self._rows(was[kept])
        if not stays:  # successors have other rows now; those that are gone are in no row that stays as it is
            place = np.zeros(len(old), np.int64)
            place[was[kept]] = np.flatnonzero(kept)
            targets = self._columns["targets"]
            targets[: len(old)] = self._rows(place)[targets[: len(old)]]
        for name, column in self._columns.items():
            moved = self._empty(room, column.shape[1], column.dtype)
            for some_to, some_from in zip(to.split(BATCH), source.split(BATCH), strict=True):
                moved[some_to] = column[some_from]
            self._columns[name] = moved

    def _copy(
        self,
        core: Any,
        now: _Rows,
        keys: NDArray[np.bool_],
        values: NDArray[np.bool_],
        edges: NDArray[np.bool_],
    ) -> Refreshed:
        rows = np.flatnonzero(keys)
        for first in range(0, len(rows), BATCH):
            some = rows[first : first + BATCH]
            self._put("keys", some, core.keys_of(now.ids[some]))
        self._put("values", np.flatnonzero(values), now.values[values])
        changed = np.flatnonzero(edges)
        targets = now.targets[changed]
        self._put("targets", changed, np.where(targets >= 0, np.searchsorted(now.ids, targets), 0))
        self._put("weights", changed, now.weights[changed])
        return Refreshed(len(rows), int(values.sum()), len(changed))

    def _put(self, name: str, rows: NDArray[np.int64], block: NDArray[Any]) -> None:
        if len(rows):
            column = self._columns[name]
            column[self._rows(rows)] = self.torch.from_numpy(block).to(self.device, column.dtype)

    def _rows(self, rows: NDArray[np.int64]) -> Any:
        return self.torch.from_numpy(rows).to(self.device)

    def _small(self, moment: View[Any]) -> None:
        """What is small enough to be copied whole: one number a memory or less."""
        torch, core = self.torch, moment._core  # pyright: ignore[reportPrivateUsage]
        terminals = core.terminals()
        ends = np.flatnonzero(terminals >= 0)
        keys = np.zeros((len(terminals), moment.dim), np.float32)
        keys[ends] = core.keys_of(terminals[ends])
        ranges = np.array(list(moment.channel_ranges.values()), np.float64).reshape(-1, 2)

        def put(array: NDArray[Any], dtype: Any) -> Any:
            return torch.from_numpy(np.array(array)).to(self.device, dtype)

        self.config: Config = moment.config
        self.channels = moment.channels
        self.edge_range: tuple[float, float] = core.edge_cosines()
        self.terminal = put(core.is_terminal(), torch.bool)
        self.baseline = put(core.baseline(), torch.float64)
        self.terminal_keys = put(keys, self.dtype)
        self.low, self.high = put(ranges[:, 0], torch.float64), put(ranges[:, 1], torch.float64)
        self.fades = put(terminals >= 0, torch.bool)


def _rows(moment: View[Any]) -> _Rows:
    """The columns of this moment, associations as a rectangle."""
    core = moment._core  # pyright: ignore[reportPrivateUsage]
    ids = core.ids()
    source, target, weight = core.edges()
    row = np.searchsorted(ids, source)
    degree = np.bincount(row, minlength=len(ids))
    column = np.arange(len(row)) - np.repeat(np.cumsum(degree) - degree, degree)
    width = int(degree.max(initial=0))
    targets, weights = np.full((len(ids), width), -1, np.int64), np.zeros((len(ids), width))
    targets[row, column], weights[row, column] = target, weight
    return _Rows(ids, core.key_stamps(), core.values(), targets, weights)


def _places(old: NDArray[np.int64], new: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of the ids `new` was among `old`, -1 where it was not; both rise."""
    if not len(old):
        return np.full(len(new), -1)
    place = np.minimum(np.searchsorted(old, new), len(old) - 1)
    return np.where(old[place] == new, place, -1)


def _old(column: NDArray[Any], was: NDArray[np.int64]) -> NDArray[Any]:
    """The rows as they were; of a memory that is new any row, since it is copied whatever it holds."""
    if not len(column):
        return np.zeros((len(was), *column.shape[1:]), column.dtype)
    return column[np.maximum(was, 0)]


def _wide(rows: _Rows, width: int) -> _Rows:
    """With associations of that width."""
    return rows._replace(targets=_padded(rows.targets, width, -1), weights=_padded(rows.weights, width, 0.0))


def _padded(array: NDArray[Any], width: int, fill: Any) -> NDArray[Any]:
    return np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=fill)
