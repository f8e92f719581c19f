"""To a device and back without waiting: what a batch gave travels while the next one is computed.

On CUDA, inputs go through pinned memory and rows come back into one pinned buffer, both without blocking; the device is
waited for once, at the end. On other devices it is plain copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._lazy import require


def to_device(tensor: Any, device: Any) -> Any:
    """A CPU tensor on a device."""
    if require("torch", "embed").device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Collected:
    """Rows (n, d) that come batch by batch from a device.

    >>> rows = Collected(len(texts), dim, model.device)
    >>> rows.put([3, 0], hidden)      # rows 3 and 0
    >>> rows.finish()                 # (n, d) float32
    """

    def __init__(self, count: int, dim: int, device: Any) -> None:
        self.torch = require("torch", "embed")
        self.device = self.torch.device(device)
        self.cuda = self.device.type == "cuda"
        self._buffer = self.torch.empty((count, dim), dtype=self.torch.float32, pin_memory=self.cuda)
        self._where: list[int] = []

    def put(self, where: Sequence[int], rows: Any) -> None:
        """`rows` (len(where), d), in the order of `where`; not to be written to before `finish`."""
        first = len(self._where)
        self._where.extend(where)
        self._buffer[first : len(self._where)].copy_(rows.detach().float(), non_blocking=self.cuda)

    def finish(self) -> NDArray[np.float32]:
        """All rows, each in its place.

        Raises:
            ValueError: a row was not put, or twice.
        """
        if sorted(self._where) != list(range(len(self._buffer))):
            raise ValueError(f"{len(self._where)} of {len(self._buffer)} rows were put")
        if self.cuda:
            self.torch.cuda.current_stream(self.device).synchronize()
        out = np.empty(tuple(self._buffer.shape), np.float32)
        out[self._where] = self._buffer.numpy()
        return out
