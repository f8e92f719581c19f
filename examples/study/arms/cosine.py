"""The other failure: the reward is the cosine of the completion to the objective's embedding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from examples.study.reward import Stateless
from examples.study.setting import Batch, Setting

Floats = NDArray[np.float64]


class CosineArm(Stateless):
    """Highest cosine of the whole completion to a terminal."""

    weights = {"cosine": 1.0}  # noqa: RUF012

    def __init__(self, setting: Setting) -> None:
        self.keys = setting.terminal_keys

    def parts(self, batch: Batch, learning: bool) -> dict[str, Floats]:  # noqa: ARG002
        """The cosine."""
        return {"cosine": (batch.whole @ self.keys.T).max(1).astype(np.float64)}


def build(setting: Setting) -> CosineArm:
    """From the configuration."""
    return CosineArm(setting)
