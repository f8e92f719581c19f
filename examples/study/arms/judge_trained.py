"""The better judge: trained on questions with answers known by construction, then used as a reward all the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from examples.study.judge_training import DIRECTORY, QUESTION, Trained, train
from examples.study.judges import NO, YES, answer_ids, one_line
from examples.study.reward import Stateless
from examples.study.setting import Batch, Setting, of_device

Floats = NDArray[np.float64]


class TrainedJudgeArm(Stateless):
    """log-odds of yes by a judge with an adapter of its own; the policy's is switched off while it judges."""

    weights = {"judge": 1.0}  # noqa: RUF012

    def __init__(self, judge: Trained) -> None:
        self.judge = judge
        self.yes, self.no = (answer_ids(judge.policy, answers) for answers in (YES, NO))

    def parts(self, batch: Batch, learning: bool) -> dict[str, Floats]:  # noqa: ARG002
        """The judge's log-odds of each story."""
        return {"judge": self.odds(batch.stories)}

    def odds(self, stories: Sequence[str]) -> Floats:
        """(n,) log-odds of yes of any number of texts."""
        out = []
        for first in range(0, len(stories), 16):
            texts = [QUESTION.format(text=one_line(t)) for t in stories[first : first + 16]]
            with torch.no_grad():
                scores = self.judge.policy.next_log_probs(texts)
            out.append(scores[:, self.yes].logsumexp(-1) - scores[:, self.no].logsumexp(-1))
        return torch.cat(out).double().cpu().numpy()


def build(setting: Setting, directory: str = str(DIRECTORY)) -> TrainedJudgeArm:
    """Train the judge if it is not there yet; its accuracy is in ``study/judge.json``."""
    device = str(setting.policy.device)
    return TrainedJudgeArm(train(of_device(Path(directory), device), setting.base, device))
