"""What an arm is: parts of a reward, their weights, and whatever it keeps between steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from examples.study.setting import Batch, Setting

Floats = NDArray[np.float64]


class Arm(Protocol):
    """An arm of the study. ``weights`` names the parts that are paid; other parts are only watched.

    ``scores_steps``: it looks at the batch's steps itself, so that watching coverage costs nothing.
    """

    weights: dict[str, float]
    scores_steps: bool

    def parts(self, batch: Batch, learning: bool) -> dict[str, Floats]:
        """(B,) each part of the reward, raw. ``learning`` is false for the base texts that set the scale."""
        ...

    def after(self, batch: Batch, step: int) -> dict[str, Any]:
        """Called after the update; what it returns goes into the step's line."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        ...


class Stateless:
    """The part of an arm that keeps nothing."""

    weights: dict[str, float]
    scores_steps = False

    def after(self, batch: Batch, step: int) -> dict[str, Any]:  # noqa: ARG002
        """Nothing to do."""
        return {}

    def state(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Nothing to take."""


class Scaled:
    """Standardises an arm's parts on base completions and sums them by weight."""

    def __init__(self, arm: Arm, setting: Setting) -> None:
        self.arm = arm
        base = arm.parts(setting.reference_batch, learning=False)
        self.constants = {k: (float(v.mean()), float(v.std()) or 1.0) for k, v in base.items()}

    def __call__(self, batch: Batch) -> tuple[Floats, dict[str, Floats]]:
        """(B,) the reward, and its raw parts."""
        parts = self.arm.parts(batch, learning=True)
        reward = np.zeros(len(batch.completions))
        for name, weight in self.arm.weights.items():
            mean, sd = self.constants[name]
            reward += weight * (parts[name] - mean) / sd
        return reward, parts


def make(name: str, setting: Setting, options: Mapping[str, Any]) -> Arm:
    """The arm in the file ``examples/study/arms/<name>.py``."""
    build: Callable[..., Arm] = import_module(f"examples.study.arms.{name}").build
    return build(setting, **options)
