"""Arithmetic in a fixed order, so that every machine gets the same bits (model.md §2, §8.12).

Keys, values and dot products are float32; everything above them is float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
LANES = 32


def dot(x: F32, keys: F32) -> F32:
    """⟨x, k⟩ for every row k of `keys`, canonically.

    Element i belongs to lane i mod 32. A lane starts at 0 and adds its products one by one in index order, each
    product rounded before it is added. Then the lanes fold: 32 → 16 → 8 → 4 → 2 → 1, lane[i] += lane[i + half].
    """
    n, d = keys.shape
    rows = -(-d // LANES)
    k = np.zeros((n, rows * LANES), np.float32)
    k[:, :d] = keys
    q = np.zeros(rows * LANES, np.float32)
    q[:d] = x
    products = (k * q).reshape(n, rows, LANES)
    lanes = np.zeros((n, LANES), np.float32)
    for row in range(rows):
        lanes = lanes + products[:, row]
    half = LANES // 2
    while half:
        lanes = lanes[:, :half] + lanes[:, half : 2 * half]
        half //= 2
    return lanes[:, 0]


def dot1(x: F32, y: F32) -> float:
    """⟨x, y⟩ of two vectors."""
    return float(dot(x, y[None, :])[0])


def normalise(x: Any) -> F32:
    """x / ‖x‖ of a float32 row: the norm in float64, summed in index order, the quotient rounded to float32 once."""
    wide = np.asarray(x, np.float32).astype(np.float64)
    norm = np.sqrt(np.cumsum(wide * wide)[-1])
    if not (np.isfinite(norm) and norm > 0):
        raise ValueError("a zero, NaN or infinite row has no direction")
    return (wide / norm).astype(np.float32)


def kappa(s: float, tau: float, power: int) -> float:
    """κ = clip((s − τ)/(1 − τ), 0, 1)^p, the power by repeated multiplication."""
    base = min(max((s - tau) / (1.0 - tau), 0.0), 1.0)
    result = 1.0
    for _ in range(power):
        result *= base
    return result


def ramp(x: float, low: float, high: float) -> float:
    """clip((x − low)/(high − low), 0, 1)."""
    return min(max((x - low) / (high - low), 0.0), 1.0)


def median(values: F32) -> np.float32:
    """The middle value, or the float64 mean of the middle two, kept in float32. 0 of nothing."""
    return np.float32(np.median(values.astype(np.float64))) if len(values) else np.float32(0)


def splitmix64(counter: int) -> int:
    """One step of SplitMix64 from the state `counter`."""
    mask = (1 << 64) - 1
    z = (counter + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


class Histogram:
    """Counts of cosines in 400 bins over [−1, 1]."""

    BINS = 400

    def __init__(self) -> None:
        self.counts = np.zeros(self.BINS, np.int64)

    def add(self, cosine: float) -> None:
        """Count one cosine."""
        self.counts[min(max(int(np.floor((cosine + 1.0) * (self.BINS / 2))), 0), self.BINS - 1)] += 1

    def quantile(self, q: float) -> float:
        """The centre of the first bin at which q of the counts have been met."""
        reached = np.cumsum(self.counts) >= q * self.counts.sum()
        return -1.0 + (int(np.argmax(reached)) + 0.5) * (2.0 / self.BINS)
