"""What guided sampling returns: texts, what they cost, and why each step was chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave.results import Explanation

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Weighing:
    """One moment at which the N particles of a prompt were weighed."""

    token: int
    """How many tokens had been drawn for each particle that was not finished."""
    steps: tuple[str, ...]
    """The newest complete step of each; "" where there is none."""
    pay: Floats
    """(N,) what the store pays for the complete steps."""
    ahead: Floats
    """(N,) the value-to-go of the newest step; 0 for a finished particle."""
    nearness: Floats
    """(N,) the cosine of the newest step to the memory that `recall` proposed; NaN without a proposal or a new step."""
    typicality: Floats
    """(N,) T of the text so far; 1 without a gate."""
    increment: Floats
    """(N,) what was added to each log-weight."""
    weights: Floats
    """(N,) normalised weights."""
    ess: float
    """Effective sample size, 1/ΣW², from 1 to N."""
    parents: NDArray[np.int64] | None
    """(N,) the particle that each was replaced by; None where there was no resampling."""


@dataclass(frozen=True, slots=True)
class ChosenStep:
    """One step of a guided text, with the memories that paid for it."""

    text: str
    explanation: Explanation
    proposed: str | None = None
    """The text of the memory that `recall` proposed as the next one; None without a proposal or a text."""
    memory: int | None = None
    """The id of this memory."""
    nearness: float | None = None
    """The cosine of the step to its key."""

    def __str__(self) -> str:
        said = f"{self.text}\n{self.explanation}"
        if self.memory is None:
            return said
        return f"{said}\n  toward {self.memory} (nearness {self.nearness:.2f}): {self.proposed or ''}"


@dataclass(frozen=True, slots=True, eq=False)
class Guided:
    """What `Guide.generate` returns for B prompts and N particles."""

    texts: list[list[str]]
    """(B, N) the samples of each prompt, best first by `scores`."""
    scores: list[Floats]
    """(B, N) what the store pays for each text, times its typicality where the pay is positive."""
    pay: list[Floats]
    """(B, N) what the store pays, without the gate."""
    typicality: list[Floats]
    """(B, N) T; 1 without a gate."""
    weights: list[Floats]
    """(B, N) normalised weights of the samples as draws from the guided distribution."""
    log_likelihood: list[Floats]
    """(B, N) mean log-probability of a token under the model, nats."""
    token_ids: list[list[list[int]]]
    """(B, N) the tokens of each text, the end token included."""
    tokens: int
    """All tokens that were drawn, those of discarded particles included."""
    kl: Floats
    """(B,) estimate of KL(guided‖model), nats a token: E[log w] − log Ê[w] over a lineage, over the mean length."""
    trace: list[list[Weighing]]
    """By prompt, every weighing in order."""
    digest: str
    """Of the store, the settings and the fitted numbers: equal (digest, seed) give equal texts from one model."""
    seed: int
    seconds: dict[str, float]
    """Processor time by part: "model", "draw", "text", "encoder", "store", "rest"."""
    explain_text: Callable[[int, int], list[ChosenStep]] = field(repr=False)

    def explain(self, prompt: int = 0, sample: int = 0) -> list[ChosenStep]:
        """Every step of a sample with the memories and associations that paid for it.

        Raises:
            IndexError: no such prompt or sample.
        """
        for name, value, most in (("prompt", prompt, len(self.texts)), ("sample", sample, len(self.texts[0]))):
            if not 0 <= value < most:
                raise IndexError(f"{name} must lie in 0 … {most - 1}, got {value}")
        return self.explain_text(prompt, sample)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON, without the trace."""
        arrays = ("scores", "pay", "typicality", "weights", "log_likelihood")
        return {
            "texts": self.texts,
            **{name: [column.tolist() for column in getattr(self, name)] for name in arrays},
            "tokens": self.tokens,
            "kl": self.kl.tolist(),
            "digest": self.digest,
            "seed": self.seed,
        }
