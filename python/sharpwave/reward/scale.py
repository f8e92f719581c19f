"""The constants that put the terms of the reward on one scale.

A term is standardised on base samples once, when the reward is built, and the constants are kept: a reward whose scale
moved with the policy could not tell that the policy moved. `running` normalisation is there for those who want it:
the constants then follow the training batches, and are state that is saved with a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Normalise = Literal["base", "running", "none"]
NORMALISE: tuple[str, ...] = get_args(Normalise)


@dataclass(frozen=True)
class Constants:
    """Mean and standard deviation of one term, and how many samples they are of."""

    mean: float = 0.0
    sd: float = 1.0
    n: int = 0

    @classmethod
    def of(cls, values: Floats) -> Self:
        """Of the finite ones among ``values``; none: 0 and 1."""
        finite = values[np.isfinite(values)]
        if not len(finite):
            return cls()
        return cls(float(finite.mean()), float(finite.std()), len(finite))

    def merged(self, values: Floats, window: int) -> Self:
        """With ``values`` added (Chan, Golub & LeVeque 1979); what went before counts as ``window`` samples at most."""
        new = type(self).of(values)
        if not new.n:
            return self
        n = min(self.n, window)
        total = n + new.n
        apart = new.mean - self.mean
        mean = self.mean + apart * new.n / total
        variance = (n * self.sd**2 + new.n * new.sd**2 + apart**2 * n * new.n / total) / total
        return type(self)(float(mean), float(np.sqrt(variance)), total)

    @property
    def flat(self) -> bool:
        """Whether the term never varied."""
        return self.sd <= 1e-6 * max(1e-3, abs(self.mean))

    def standardise(self, values: Floats) -> Floats:
        """(values − mean)/sd; a term that never varied is only centred."""
        return (values - self.mean) / (1.0 if self.flat else self.sd)


class Scale:
    """Constants by the name of the term.

    Args:
        normalise: ``"base"``: fitted once; ``"running"``: also follows `update`; ``"none"``: terms stay as they are.
        window: how many samples running constants remember.
    """

    def __init__(
        self, normalise: Normalise = "base", constants: Mapping[str, Constants] | None = None, window: int = 1024
    ) -> None:
        if normalise not in NORMALISE:
            raise ValueError(f"normalise must be one of {NORMALISE}, got {normalise!r}")
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.normalise: Normalise = normalise
        self.window = window
        self.constants: dict[str, Constants] = dict(constants or {})

    def fit(self, name: str, values: Floats) -> None:
        """Take the constants of a term from base samples (n,); NaN is left out."""
        self.constants[name] = Constants.of(np.asarray(values, np.float64))

    def update(self, name: str, values: Floats) -> None:
        """Running constants move with a training batch; others stay."""
        if self.normalise == "running":
            self.constants[name] = self.constants.get(name, Constants()).merged(values, self.window)

    def __call__(self, name: str, values: Floats) -> Floats:
        """``values`` (n,) of a term, standardised. A running term's first batch is its own scale."""
        if self.normalise == "none":
            return values
        constants = self.constants.get(name)
        if constants is None:
            if self.normalise == "base":
                return values
            constants = Constants.of(values)
        return constants.standardise(values)

    def fitted(self, name: str) -> bool:
        """Whether a term has constants."""
        return name in self.constants

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        constants = {name: asdict(value) for name, value in sorted(self.constants.items())}
        return {"normalise": self.normalise, "window": self.window, "constants": constants}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        constants = {name: Constants(**value) for name, value in data.get("constants", {}).items()}
        return cls(data.get("normalise", "base"), constants, data.get("window", 1024))

    def __repr__(self) -> str:
        fitted = ", ".join(f"{name} {c.mean:.3g}±{c.sd:.3g}" for name, c in sorted(self.constants.items()))
        return f"Scale({self.normalise!r}: {fitted or 'nothing fitted'})"
