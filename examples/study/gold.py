"""Gold: measures that nothing is trained on, fixed in ``study/gold.toml`` before the first run.

Another encoder (hidden states of the base model, read without the prompt), other words than the terminals', another
judge format on the text without its bare answers, and a contrast of happy and unhappy texts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from examples.study.judges import BaseJudge, without_answers
from examples.study.policy import Policy

Floats = NDArray[np.float64]
PATH = Path("study/gold.toml")


def read(path: Path = PATH) -> dict[str, Any]:
    """The committed definitions and thresholds."""
    return tomllib.loads(path.read_text("utf-8"))


@dataclass
class Gold:
    """The gold measures of one objective; ``centre`` is the mean of the reference texts' hidden states."""

    policy: Policy
    layer: int
    centre: Floats
    objective: Floats
    mood: Floats

    @classmethod
    def of(cls, policy: Policy, settings: Mapping[str, Any], objective: str, reference: Sequence[str]) -> Gold:
        """From the settings of ``gold.toml`` and reference texts of the base model."""
        layer = int(settings["encoder"]["layer"])

        def mean(texts: Sequence[str]) -> Floats:
            return hidden(policy, texts, layer).mean(0)

        centre = mean(reference)
        target = mean(settings["objective"][objective]["texts"]) - centre
        mood = mean(settings["mood"]["happy"]) - mean(settings["mood"]["unhappy"])
        return cls(policy, layer, centre, unit(target), unit(mood))

    def __call__(self, texts: Sequence[str]) -> dict[str, Floats]:
        """(n,) each measure of each text."""
        centred = hidden(self.policy, texts, self.layer) - self.centre
        rows = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
        bare = [without_answers(t) for t in texts]
        return {
            "objective": rows @ self.objective,
            "mood": rows @ self.mood,
            "judge_fewshot": BaseJudge(self.policy, "fewshot")(bare),
            "judge_dialogue": BaseJudge(self.policy, "dialogue")(bare),
        }


def hidden(policy: Policy, texts: Sequence[str], layer: int) -> Floats:
    """(n, hidden) mean hidden states of the base model, in blocks."""
    blocks = []
    for first in range(0, len(texts), 16):
        with policy.base():
            blocks.append(policy.pooled([t or "." for t in texts[first : first + 16]], layer))
    return torch.cat(blocks).double().cpu().numpy()


def unit(vector: Floats) -> Floats:
    """``vector`` at length one."""
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
