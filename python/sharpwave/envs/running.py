"""The episodes that environments are in, and what a step of them earns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass
class Paid:
    """What one step of n environments earned, each (n,)."""

    reward: Floats
    """What the trainer is given: environment + weight·instrumental + β·rarity."""
    environment: Floats
    """What the environment gave, as it gave it; 0 for what is not finite."""
    instrumental: Floats
    """What the store pays, before the weight."""
    support: Floats
    """σ: how much the store knows about the observation at all."""
    value: Floats
    """Φ of the observation, over the channels by weight."""
    rarity: Floats
    """1/√m of the m-th step that the observation's memory took in; 0 without a weight on it, or frozen."""
    episodes: dict[int, dict[str, float]] = field(default_factory=dict)
    """Of the environments whose episode ended: its length and the sums of its parts."""


@dataclass
class Episode:
    """The episode that one environment is in."""

    steps: list[Floats] = field(default_factory=list)
    drives: list[float] = field(default_factory=list)
    value: float = 0.0
    instrumental: float = 0.0


def laid_out(episodes: list[Episode]) -> tuple[Floats, NDArray[np.int64]]:
    """The steps of episodes end to end, and where each begins."""
    offsets = np.zeros(len(episodes) + 1, np.int64)
    np.cumsum([len(one.steps) for one in episodes], out=offsets[1:])
    return np.concatenate([np.stack(one.steps) for one in episodes]), offsets
