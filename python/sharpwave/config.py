"""Config: every number of docs/model.md, named as it is there."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from sharpwave import _coerce, _core

Equation = Literal["stopping", "return"]

IN_FILES = {"min_novelty": "novelty", "min_worth": "worth"}
"""What files call a field that has another name here."""
RENAMED = {old: new for new, old in IN_FILES.items()}


@dataclass(frozen=True, slots=True, repr=False)
class Config:
    """The numbers of a store. They are checked when the config is made, and saved with the data.

    A config is frozen: `dataclasses.replace(cfg, gamma=0.9)` makes a changed one. `calibrate` fits `tau`,
    `d_lo` and `d_hi` to one's own embedding; the store's `config` then shows the fitted numbers.
    """

    dim: int
    """d, the length of a step's embedding."""

    k: int = 16
    """How many nearest memories answer to a step."""

    tau: float = 0.20
    """τ in [-1, 1): at or below this cosine nothing is known."""

    power: int | float = 2
    """p, a whole number from 1: how steeply activation rises with the cosine."""

    epsilon: float = 0.02
    """ε ≥ 1e-3, what keeps activations sub-stochastic."""

    gamma: float = 0.70
    """γ in [0, 1): what a drive one association away is worth."""

    trace: float = 0.0
    """λ in [0, 1]: how slowly eligibility decays. 0 associates neighbouring steps only."""

    trace_size: int = 64
    """m_trace: how many memories stay eligible at once."""

    max_out: int = 32
    """How many associations leave a memory at most."""

    min_novelty: float = 0.9
    """ν: a step at least this novel (1 - support) may become a memory, a less novel one is merged."""

    merge_cosine: float | None = None
    """The cosine above which a step is merged into the nearest memory, whatever τ and p are: 1 merges nothing.
    Below τ it counts as τ.
    Where it is given, ν follows from it and `min_novelty` is not used."""

    min_worth: float = 0.0
    """θ: a novel step worth less than this is dropped."""

    w_novelty: float = 1.0
    """w_n, the weight of novelty in a step's worth."""

    w_surprise: float = 0.0
    """w_s, the weight of |surprise| in a step's worth."""

    w_drive: float = 0.0
    """w_d, the weight of the largest drive in a step's worth."""

    rho: float = 0.75
    """ρ in [0, 1]: the share of its gain that a step earns without edge support."""

    sigma_0: float = 0.02
    """σ_0 > 0: the support from which the gate is fully open."""

    fade: float = 1.0
    """f in [0, 1]: how much of a channel's pay a step loses by being an end of that channel itself."""

    equation: Equation = "stopping"
    """The value equation: "stopping" max(r, γPv), or "return" r + γPv."""

    capacity: int | None = None
    """How many memories are kept at most; None keeps all."""

    half_life: int = 1024
    """h: the retention of a memory halves every so many observed episodes."""

    e_lo: float = 0.1
    """The agreement at which edge support is 0, until enough true successions were seen."""

    e_hi: float = 0.6
    """The agreement at which edge support is 1, until enough true successions were seen."""

    d_lo: float = 0.52
    """The cosine to an earlier step from which redundancy begins to cost."""

    d_hi: float = 0.79
    """The cosine to an earlier step at which a step earns nothing."""

    keep_episodes: bool = True
    """Keep the raw episodes, which `veto` needs."""

    def __post_init__(self) -> None:
        typed = {
            field.name: _typed(field.name, str(field.type), getattr(self, field.name))
            for field in dataclasses.fields(self)
        }
        in_files = {IN_FILES.get(name, name): value for name, value in typed.items()}
        held: dict[str, Any] = json.loads(_core.check_config(json.dumps(in_files)))  # as the core holds them
        for name, value in held.items():
            object.__setattr__(self, RENAMED.get(name, name), value)

    def __repr__(self) -> str:
        numbers = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in numbers)})"

    @property
    def novelty(self) -> float:
        """Deprecated: `min_novelty`."""
        _warn_renamed("novelty")
        return self.min_novelty

    @property
    def worth(self) -> float:
        """Deprecated: `min_worth`."""
        _warn_renamed("worth")
        return self.min_worth

    def to_dict(self) -> dict[str, Any]:
        """The numbers ready for JSON, by the names that files have: `min_novelty` is "novelty", `min_worth` "worth"."""
        names = [field.name for field in dataclasses.fields(self)]
        return {IN_FILES.get(name, name): getattr(self, name) for name in names}

    def to_json(self) -> str:
        """The numbers as JSON text, as a snapshot holds them."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`, which takes the names of the fields too.

        An unknown name is a ValueError, as is a field that is given by both its names. A missing one takes its default.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(numbers) - known - set(RENAMED))
        if unknown:
            raise ValueError(f"unknown config {'names' if len(unknown) > 1 else 'name'}: {', '.join(unknown)}")
        twice = [f"{new} and {old}" for new, old in IN_FILES.items() if new in numbers and old in numbers]
        if twice:
            raise ValueError(f"{twice[0]} are the same number: give one")
        return cls(**{RENAMED.get(name, name): value for name, value in numbers.items()})


def _warn_renamed(old: str) -> None:
    message = f"Config.{old} is now Config.{RENAMED[old]}; the old name goes with the next version"
    warnings.warn(message, DeprecationWarning, stacklevel=3)


if not TYPE_CHECKING:  # type checkers see the arguments that the dataclass declares
    _init = Config.__init__

    @functools.wraps(_init)
    def _init_by_any_name(self: Config, *args: Any, **numbers: Any) -> None:
        for old in [name for name in numbers if name in RENAMED]:
            _warn_renamed(old)
            # `dataclasses.replace` gives the number by its new name besides.
            numbers[RENAMED[old]] = numbers.pop(old)
        _init(self, *args, **numbers)

    Config.__init__ = _init_by_any_name


def _typed(name: str, kind: str, value: Any) -> Any:
    """The plain number that the field declares: NumPy scalars and whole floats are taken for what they are."""
    match kind:
        case "int | None" if value is None:
            return None
        case "int" | "int | float" | "int | None":
            whole = _coerce.count(name, value)
            if whole >= 1 << 32:
                raise ValueError(f"{name}: {whole} is too large")
            return whole
        case "float | None" if value is None:
            return None
        case "float" | "float | None":
            number = _coerce.number(name, value)
            if not math.isfinite(number):
                raise ValueError(f"{name}: {number} is not finite")
            return number
        case "bool":
            return _coerce.flag(name, value)
        case _:
            if _coerce.string(name, value) not in get_args(Equation):
                raise ValueError(f"{name}: {value!r} is not one of {', '.join(get_args(Equation))}")
            return value
