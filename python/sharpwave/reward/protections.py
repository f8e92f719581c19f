"""How the terms become pay that can be optimised for long: ``u = T·(u_term^a·u_inst^b)^{1/(a+b)}/crowd``.

conjunction   outcome and process multiply, so that neither pays alone
saturation    u_x = clip((x − lo)/(hi − lo), floor, 1): nothing is paid beyond what demonstrations reach
typicality    T of `sharpwave.text.Typicality`: pay of texts that the base could not have written falls to 0
crowd         max(1, s̄/s_demo)^2 with a completion's mean cosine s̄ to the others of its batch: copies share pay

Each can be had without the others, and all but the first with the weighted sum of standardised terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave.reward.base import groups
from sharpwave.reward.weights import Weights
from sharpwave.text.chunkers import Text
from sharpwave.text.typicality import TypicalityReport

Floats = NDArray[np.float64]
Combine = Literal["sum", "conjunction"]
COMBINE: tuple[str, ...] = get_args(Combine)
Option = TypeVar("Option")

PAYING = ("terminal", "instrumental")
"""The terms that pay; divergence is subtracted from what they do."""

REACHED, WITHOUT_DEMONSTRATIONS = 0.75, 0.99
"""The quantile of demonstrations, or else of base samples, at which a term saturates."""

EXCESS_SLOPE = 0.05
"""Subtracted for each standard deviation beyond the point where T is 0: a group that earns 0 alike teaches nothing."""

LEAST_ALIKE = 0.1
"""Mean cosines below this are no crowd, however little alike the demonstrations are."""


@dataclass(frozen=True)
class Saturate:
    """Between which values a term rises.

    Args:
        low: quantile of the base samples at which u is 0.
        high: quantile of the demonstrations at which u is 1; without demonstrations, of the base samples. None: .75 of
            demonstrations, .99 of base samples.
        floor: what u is at least in a conjunction, so that the other factor still tells completions apart.

    Raises:
        ValueError: a quantile outside [0, 1], or a floor outside (0, 1).
    """

    low: float = 0.25
    high: float | None = None
    floor: float = 0.05

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= _coerce.number(name, value) <= 1.0:
                raise ValueError(f"saturate: {name} must be a quantile in [0, 1], got {value}")
        if not 0.0 < _coerce.number("floor", self.floor) < 1.0:
            raise ValueError(f"saturate: floor must lie between 0 and 1, got {self.floor}")


@dataclass(frozen=True)
class Crowd:
    """From where on completions of a batch are too alike.

    Args:
        quantile: of the mean cosines that demonstrations (else base samples) have among themselves.
        power: crowd = max(1, s̄/s_demo)^power.

    Raises:
        ValueError: a quantile outside [0, 1], or a power that is not above 0.
    """

    quantile: float = 0.75
    power: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 <= _coerce.number("quantile", self.quantile) <= 1.0:
            raise ValueError(f"crowd: quantile must lie in [0, 1], got {self.quantile}")
        if not 0.0 < _coerce.number("power", self.power) < float("inf"):
            raise ValueError(f"crowd: power must be above 0, got {self.power}")


@dataclass(frozen=True)
class Demonstrations:
    """Completions as they are meant to be.

    Args:
        prompts, completions: of each the same number, as for base samples.
        channel: a scalar channel of the store to open and write them to, with drive 1 at every step; None: they give
            the scale alone. Where the store has the channel already, they are in it.
    """

    prompts: Sequence[Text | None]
    completions: Sequence[Text]
    channel: str | None = None

    @classmethod
    def of(cls, given: Any) -> Self | None:
        """Itself, a mapping of its arguments, a pair of prompts and completions, or None."""
        if given is None or isinstance(given, cls):
            return given
        return cls(**given) if isinstance(given, Mapping) else cls(*given)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"prompts": list(self.prompts), "completions": list(self.completions), "channel": self.channel}


@dataclass(frozen=True)
class Paid:
    """What E completions earn; NaN where one cannot be scored.

    Attributes:
        reward: (E,).
        parts: by name, (E,) what it adds to `reward`, sign included; they sum to it.
        factors: by name, (E,) what pay was made of, in its own unit.
        costs: by name, (E,) how much more the completion would earn if this factor alone were at its best.
    """

    reward: Floats
    parts: dict[str, Floats]
    factors: dict[str, Floats]
    costs: dict[str, Floats]


class Protections:
    """What goes before the trainer: the terms combined, saturated, gated by T and shared in a crowd.

    Args:
        combine: ``"sum"`` of the standardised terms, or ``"conjunction"``, their geometric mean.
        saturate: True or options; None: True for a conjunction, False for a sum.
        crowd: True or options.
        ranges: (lo, hi) by term, which are then not fitted.
        alike: s_demo, (within a prompt, between prompts), which is then not fitted.

    Attributes:
        saturates: whether terms stop rising at hi.
    """

    def __init__(
        self,
        combine: Combine = "sum",
        saturate: Saturate | Mapping[str, Any] | bool | None = None,
        crowd: Crowd | Mapping[str, Any] | bool | None = None,
        ranges: Mapping[str, Sequence[float]] | None = None,
        alike: Sequence[float] | None = None,
    ) -> None:
        if combine not in COMBINE:
            raise ValueError(f"combine must be one of {COMBINE}, got {combine!r}")
        options = option("saturate", Saturate, combine == "conjunction" if saturate is None else saturate)
        self.combine: Combine = combine
        self.saturates = options is not None
        self.saturate = options or Saturate()
        self.crowd = option("crowd", Crowd, crowd)
        self.ranges = {term: (float(low), float(high)) for term, (low, high) in (ranges or {}).items()}
        self.alike = None if alike is None else (float(alike[0]), float(alike[1]))
        for term, (low, high) in self.ranges.items():
            if term not in PAYING or not low < high:
                raise ValueError(f"ranges: {term!r} must be one of {PAYING} with lo < hi, got {low, high}")

    @property
    def on(self) -> bool:
        """Whether anything but the plain sum was asked for; without it no range is needed."""
        return self.combine != "sum" or self.saturates or self.crowd is not None

    def missing(self, terms: Sequence[str], gated: bool) -> str | None:
        """What still has to be fitted before these terms can be paid, in words; ``gated``: there is a T."""
        wanted = self.on or gated
        if wanted and any(term not in self.ranges for term in PAYING if term in terms):
            return "the range of the terms"
        return "how alike samples are" if self.crowd is not None and self.alike is None else None

    # Fitting

    def fit(self, term: str, base: Floats, demonstrations: Floats | None) -> bool:
        """Take lo and hi of a term from raw values (n,), NaN left out, unless it has them.

        Returns:
            Whether demonstrations go beyond what a quarter of the base samples have; True without any.
        """
        base = base[np.isfinite(base)]
        shown = np.empty(0) if demonstrations is None else demonstrations[np.isfinite(demonstrations)]
        if term in self.ranges or not len(base):
            return True
        low = float(np.quantile(base, self.saturate.low))
        reaches = [float(np.quantile(base, WITHOUT_DEMONSTRATIONS)), float(base.max()), low + 1.0]
        if len(shown):
            reaches.insert(0, float(np.quantile(shown, _else(self.saturate.high, REACHED))))
        else:
            reaches.insert(0, float(np.quantile(base, _else(self.saturate.high, WITHOUT_DEMONSTRATIONS))))
        self.ranges[term] = low, next(high for high in reaches if high - low > 1e-9 * max(1.0, abs(low)))
        return not len(shown) or reaches[0] > float(np.quantile(base, 0.75))

    def fit_crowd(self, *samples: tuple[Sequence[Text | None], NDArray[np.float32]]) -> None:
        """Take s_demo from prompts and vectors (n, d), of the first samples that have pairs of either kind."""
        if self.crowd is None or self.alike is not None:
            return
        within, between = np.nan, np.nan
        for prompts, vectors in samples:
            same, other, _, _ = likeness(prompts, vectors)
            within = _quantile(same, self.crowd.quantile) if np.isnan(within) else within
            between = _quantile(other, self.crowd.quantile) if np.isnan(between) else between
        found = [value for value in (within, between) if np.isfinite(value)]
        if not found:
            raise ValueError("crowd needs two base samples or demonstrations that can be scored")
        self.alike = (within if np.isfinite(within) else found[0]), (between if np.isfinite(between) else found[0])

    # Paying

    def crowding(self, prompts: Sequence[Text | None], vectors: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """(E,) the crowd that each completion of a batch is in, 1 or more, and its mean cosine s̄ to the others.

        What demonstrations have among themselves is taken in the same proportion of pairs within a prompt, which are
        more alike, so that a batch of one prompt is no crowd for that.
        """
        assert self.crowd is not None
        if self.alike is None:
            raise ValueError("crowd has no scale yet: pass base=(prompts, completions)")
        _, _, everybody, share = likeness(prompts, vectors)
        usual = share * self.alike[0] + (1.0 - share) * self.alike[1]
        crowd = np.maximum(1.0, everybody / np.maximum(usual, LEAST_ALIKE)) ** self.crowd.power
        return np.where(np.isfinite(everybody), crowd, 1.0), everybody

    def unit(self, term: str, values: Floats) -> Floats:
        """(E,) u of raw values: 0 at lo, 1 at hi; at least the floor, also where there is no value."""
        low, high = self.ranges[term]
        u = np.maximum((np.nan_to_num(values, nan=low) - low) / (high - low), self.saturate.floor)
        return np.minimum(u, 1.0) if self.saturates else u

    def pay(
        self,
        raw: Mapping[str, Floats],
        standardise: Callable[[str, Floats], Floats],
        weights: Weights,
        terms: Sequence[str],
        report: TypicalityReport | None = None,
        crowd: tuple[Floats, Floats] | None = None,
    ) -> Paid:
        """What completions earn.

        Args:
            raw: by term, (E,) in its own units.
            standardise: a term's values in standard deviations of the base.
            weights: factors of a sum, exponents of a conjunction.
            terms: those that there are.
            report: T and its parts, of all E; None: T is 1.
            crowd: as `crowding` gives it; None: nobody is crowded.
        """
        nobody = np.ones(len(raw["instrumental"]))
        gate = nobody if report is None else report.gate
        others = nobody if crowd is None else crowd[0]
        paying = [term for term in PAYING if term in terms and getattr(weights, term)]
        units: dict[str, Floats] = {}
        low = 0.0
        if self.combine == "conjunction":
            units = {term: self.unit(term, raw[term]) for term in terms if term in PAYING}
            parts = {"conjunction": _mean(units, weights, paying)}
        else:
            if report is not None or crowd is not None:
                low = sum(getattr(weights, t) * float(standardise(t, np.array(self.ranges[t][0]))) for t in paying)
            bounded = {
                t: np.minimum(raw[t], self.ranges[t][1]) if self.saturates and t in paying else raw[t] for t in PAYING
            }
            parts = {t: getattr(weights, t) * standardise(t, bounded[t]) for t in PAYING}
        paid = sum(map(np.nan_to_num, parts.values()), np.zeros(len(nobody)))
        over = np.maximum(paid - low, 0.0)
        excess = np.zeros(len(nobody)) if report is None else EXCESS_SLOPE * report.excess
        apart = weights.divergence * standardise("divergence", raw["divergence"])
        gated = over * gate / others
        parts |= {"divergence": -apart}
        factors: dict[str, Floats] = {f"u_{term}": values for term, values in units.items()}
        costs: dict[str, Floats] = {"divergence": apart} if weights.divergence else {}
        for term in units:
            if term in paying:
                best = _mean({**units, term: np.maximum(units[term], 1.0)}, weights, paying)
                costs[term] = (best - paid) * gate / others
        if report is not None:
            parts |= {"typicality": over * (gate - 1.0), "excess": -excess}
            costs["typicality"] = over / others - gated + excess
            for name, part in report.gates.items():
                rest = np.prod([nobody, *(other for key, other in report.gates.items() if key != name)], axis=0)
                factors[f"typicality_gate_{name}"] = part
                costs[f"typicality_{name}"] = over * (rest * (report.tokens > 0) - gate) / others
            factors |= {"typicality": gate, "typicality_z": report.z, "typicality_entropy": report.entropy}
            factors |= {"typicality_distinct": report.distinct, "typicality_excess": report.excess}
        if crowd is not None:
            parts["crowd"] = over * gate * (1.0 / others - 1.0)
            costs["crowd"] = over * gate - gated
            factors |= {"crowd": others, "alike": crowd[1]}
        reward = sum(map(np.nan_to_num, parts.values()), np.zeros(len(nobody)))
        if factors:
            factors["gated"] = gated
        return Paid(reward, parts, factors, costs)

    # Keeping it

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the options and what was fitted."""
        return {
            "combine": self.combine,
            "saturate": asdict(self.saturate) if self.saturates else False,
            "crowd": None if self.crowd is None else asdict(self.crowd),
            "ranges": {term: list(span) for term, span in sorted(self.ranges.items())},
            "alike": None if self.alike is None else list(self.alike),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**data)


def of(
    combine: Combine | Protections,
    saturate: Saturate | Mapping[str, Any] | bool | None,
    crowd: Crowd | Mapping[str, Any] | bool | None,
    weights: Weights,
    terminal: bool,
) -> Protections:
    """What a reward's arguments stand for, checked against its weights.

    Raises:
        ValueError: options beside `Protections`, which has its own; or weights that are no exponents.
    """
    if not isinstance(combine, Protections):
        made = Protections(combine, saturate, crowd)
    elif saturate is None and crowd is None:
        made = combine
    else:
        raise ValueError("combine= has options of its own here: give saturate and crowd to it")
    factors = [weights.instrumental, weights.terminal] if terminal else [weights.instrumental]
    if made.combine == "conjunction" and not min(factors) >= 0 < max(factors):
        raise ValueError(f"a conjunction needs weights of 0 or more, and one above 0 of what there is; got {weights}")
    return made


def option(name: str, kind: type[Option], given: Any) -> Option | None:
    """What True, options or a mapping of them stand for; None for None and False.

    Raises:
        TypeError: anything else.
        KeyError: no such option.
    """
    if given is None or given is False:
        return None
    if given is True:
        return kind()
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} must be a bool, {kind.__name__} or a mapping, got {type(given).__name__}")
    known = kind.__dataclass_fields__  # type: ignore[attr-defined]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise KeyError(f"{name}: no option {unknown[0]!r}, there are {sorted(known)}")
    return kind(**given)


def likeness(prompts: Sequence[Text | None], vectors: NDArray[np.float32]) -> tuple[Floats, Floats, Floats, Floats]:
    """(n,) each row's mean cosine to the others of its prompt, to those of other prompts and to all, and which share
    of all is of its prompt. NaN where there is none, and for rows of NaN, which count for nobody."""
    same, other, everybody, share = np.full((4, len(vectors)), np.nan)
    usable = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    rows = vectors[usable].astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    total = rows.sum(axis=0)
    for members in groups([prompts[row] for row in usable.tolist()]).values():
        mine = rows[members]
        near = mine.sum(axis=0)
        own = (mine * mine).sum(axis=1)
        place = usable[members]
        kin, rest = len(members) - 1, len(rows) - len(members)
        if kin:
            same[place] = (mine @ near - own) / kin
        if rest:
            other[place] = mine @ (total - near) / rest
        if kin + rest:
            everybody[place] = (mine @ total - own) / (kin + rest)
            share[place] = kin / (kin + rest)
    return same, other, everybody, share


def _mean(units: Mapping[str, Floats], weights: Weights, terms: Sequence[str]) -> Floats:
    """The geometric mean, with the weights as exponents."""
    exponents = {term: getattr(weights, term) for term in terms}
    whole = sum(exponents.values())
    return np.exp(sum(e * np.log(units[term]) for term, e in exponents.items()) / whole)


def _quantile(values: Floats, q: float) -> float:
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, q)) if len(finite) else np.nan


def _else(value: float | None, default: float) -> float:
    return default if value is None else value
