"""The failure: the reward is what a judge says, with or without a price on leaving the base in embedding space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from examples.study.divergence import FromBase
from examples.study.judges import BaseJudge
from examples.study.reward import Stateless
from examples.study.setting import Batch, Setting

Floats = NDArray[np.float64]


class JudgeArm(Stateless):
    """log p(yes) of the dialogue judge, or the log-odds of the few-shot one.

    ``divergence`` is the weight of the divergence from the base, which is remedy 3.
    """

    def __init__(self, setting: Setting, format: str, divergence: float) -> None:
        self.judge = BaseJudge(setting.policy, format)
        self.weights = {"judge": 1.0}
        if divergence:
            self.weights["divergence"] = -divergence
            self.divergence = FromBase(setting)

    def parts(self, batch: Batch, learning: bool) -> dict[str, Floats]:  # noqa: ARG002
        """The judge's score of opening and completion, and the divergence where it is paid for."""
        out = {"judge": self.judge.all(batch.stories)}
        if "divergence" in self.weights:
            out["divergence"] = self.divergence(batch)
        return out


def build(setting: Setting, format: str = "dialogue", divergence: float = 0.0) -> JudgeArm:
    """From the configuration."""
    return JudgeArm(setting, format, divergence)
