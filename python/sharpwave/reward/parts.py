"""One term of the reward as a reward function of its own, so that a trainer's own reward weights work."""

from __future__ import annotations

from typing import Any, Protocol

from sharpwave.reward.output import RewardOutput, as_list
from sharpwave.reward.weights import TERMS


class Called(Protocol):
    """What a part needs of its reward."""

    @property
    def name(self) -> str: ...

    def call(self, prompts: Any, completions: Any, *, asker: str, **given: Any) -> RewardOutput: ...


class Part:
    """``f(prompts=, completions=, …) -> list[float | None]`` of one term, standardised, without its weight.

    Divergence comes with its sign turned: more is better for every part. Parts of one reward share the work of a
    batch, and the batch is learned once.

    >>> GRPOTrainer(reward_funcs=reward.parts(), args=GRPOConfig(reward_weights=[1.0, 0.5], …), …)
    """

    def __init__(self, reward: Called, term: str) -> None:
        if term not in TERMS:
            raise ValueError(f"term must be one of {TERMS}, got {term!r}")
        self.reward = reward
        self.term = term
        self.__name__ = f"{reward.name}_{term}"

    def __call__(self, prompts: Any = None, completions: Any = None, **given: Any) -> list[float | None]:
        """One number a completion; None where it cannot be scored or has no such term."""
        out = self.reward.call(prompts, completions, asker=self.term, **given)
        values = out.standardised[self.term]
        return as_list(-values if self.term == "divergence" else values)

    def __repr__(self) -> str:
        return f"{self.__name__}({self.reward!r})"
