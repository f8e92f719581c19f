"""The failure: the reward is what a judge says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from examples.study.judges import BaseJudge
from examples.study.reward import Stateless
from examples.study.setting import Batch, Setting

Floats = NDArray[np.float64]


class JudgeArm(Stateless):
    """log p(yes) of the dialogue judge, or the log-odds of the few-shot one."""

    weights = {"judge": 1.0}  # noqa: RUF012

    def __init__(self, setting: Setting, format: str) -> None:
        self.judge = BaseJudge(setting.policy, format)

    def parts(self, batch: Batch, learning: bool) -> dict[str, Floats]:  # noqa: ARG002
        """The judge's score of opening and completion."""
        blocks = [self.judge(batch.stories[n : n + 16]) for n in range(0, len(batch.stories), 16)]
        return {"judge": np.concatenate(blocks)}


def build(setting: Setting, format: str = "dialogue") -> JudgeArm:
    """From the configuration."""
    return JudgeArm(setting, format)
