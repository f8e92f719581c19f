"""The parts of a reward as `Drift` watches them, and what they were at the start of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sharpwave.reward import InstrumentalReward
from sharpwave.reward.scale import Constants
from sharpwave.reward.terminal import finished, one_each

Floats = NDArray[np.float64]


@dataclass
class Start:
    """Mean and deviation of a number over the first ``batches`` batches, and on until it varies if it must.

    Attributes:
        batches: how many there are to be.
        varied: whether the start lasts until there is a deviation.
        constants: of all values so far.
        seen: how many batches they are of.
    """

    batches: int
    varied: bool = False
    constants: Constants = Constants()
    seen: int = 0

    @property
    def over(self) -> bool:
        """Whether the constants stand."""
        flat = self.constants.sd <= 1e-6 * max(1e-3, abs(self.constants.mean))
        return self.seen >= self.batches and not (self.varied and flat)

    def add(self, values: Floats) -> None:
        """A batch more, unless the start is over."""
        if len(values) and not self.over:
            self.constants = self.constants.merged(values, self.constants.n)
            self.seen += 1

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(data["batches"], data["varied"], Constants(**data["constants"]), data["seen"])


class Watched:
    """A reward function that remembers what it gave last: ``function`` to a trainer, to `Drift` one or more parts.

    Raises:
        TypeError: ``function`` is not callable.
    """

    def __init__(self, function: Callable[..., Any], start: int) -> None:
        if not callable(function):
            raise TypeError(f"what is watched must be a reward function, got {type(function).__name__}")
        self.function = function
        self.start = start
        self.__name__: str = getattr(function, "__name__", type(function).__name__)
        self.starts: dict[str, Start] = {}
        self._last: tuple[Any, list[float | None]] | None = None

    def __call__(self, prompts: Any = None, completions: Any = None, **given: Any) -> list[float | None]:
        """What the function says; a coroutine function is run to its end."""
        values = finished(self.function(prompts=prompts, completions=completions, **given))
        values = one_each(f"reward function {self.__name__!r}", values, len(completions))
        self._last = (completions, values)
        return values

    def parts(self, prompts: Sequence[Any], completions: Sequence[Any]) -> dict[str, Floats]:
        """Its parts for these completions, (n,) each, without what cannot be scored; none if it was not called."""
        if isinstance(self.function, InstrumentalReward):
            out = self.function.output_of(prompts, completions)
            found = {"terminal": out.terminal, "instrumental": out.instrumental}
        elif self._last is not None and self._last[0] is completions:
            found = {"value": np.array([np.nan if v is None else v for v in self._last[1]], np.float64)}
        else:
            return {}
        kept = {part: values[np.isfinite(values)].astype(np.float64) for part, values in found.items()}
        return {part: values for part, values in kept.items() if len(values)}

    def called(self, completions: Any) -> bool:
        """Whether there is something to know about these completions."""
        return isinstance(self.function, InstrumentalReward) or (
            self._last is not None and self._last[0] is completions
        )

    def moved(self, values: Mapping[str, Floats], keep: bool) -> list[float]:
        """How far each part's mean has moved since the start, in the start's standard deviations.

        Args:
            values: (n,) of each part, by name.
            keep: whether they may count for the start.
        """
        found: list[float] = []
        for part, these in values.items():
            start = self.starts.setdefault(part, Start(self.start, varied=True))
            if start.over:
                found.append(float(these.mean() - start.constants.mean) / start.constants.sd)
            elif keep:
                start.add(these)
        return found

    def to_dict(self) -> dict[str, Any]:
        """What the start was like, ready for JSON."""
        return {part: start.to_dict() for part, start in self.starts.items()}

    def load(self, data: Mapping[str, Any]) -> None:
        """The inverse of `to_dict`."""
        self.starts = {part: Start.from_dict(start) for part, start in data.items()}

    def __repr__(self) -> str:
        return f"watched {self.function!r}"
