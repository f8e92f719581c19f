"""What each term of the reward weighs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from sharpwave import _coerce

TERMS = ("terminal", "instrumental", "divergence")


@dataclass(frozen=True, init=False)
class Weights:
    """w_term, w_inst and w_kl of ``w_term·terminal·g(σ̄) + w_inst·R − w_kl·D``, in standard deviations of the base.

    Args:
        terminal: of the outcome; without a terminal it weighs nothing.
        instrumental: of the way there.
        divergence: of the distance from the base policy, which is subtracted; needs base samples.

    Raises:
        ValueError: a weight that is not finite.
        TypeError: another name; the error lists those that there are.
    """

    terminal: float = 1.0
    instrumental: float = 1.0
    divergence: float = 0.0

    def __init__(
        self, terminal: float = 1.0, instrumental: float = 1.0, divergence: float = 0.0, **unknown: float
    ) -> None:
        if unknown:
            raise TypeError(f"Weights: no term {next(iter(unknown))!r}, there are {list(TERMS)}")
        for name, given in zip(TERMS, (terminal, instrumental, divergence), strict=True):
            value = _coerce.number(name, given)
            if not abs(value) < float("inf"):
                raise ValueError(f"{name} must be finite, got {value}")
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)

    @classmethod
    def of(cls, weights: Weights | Mapping[str, float] | None) -> Weights:
        """Weights, a dict of some of them (the others keep their defaults), or None for the defaults."""
        if weights is None:
            return cls()
        if isinstance(weights, Weights):
            return weights
        if not isinstance(weights, Mapping):
            raise TypeError(f"weights must be sharpwave.Weights or a mapping, got {type(weights).__name__}")
        unknown = sorted(set(weights) - set(TERMS))
        if unknown:
            raise KeyError(f"weights: no term {unknown[0]!r}, there are {list(TERMS)}")
        return cls(**weights)
