"""A store's score on labelled episodes that it has not seen, beside simpler judges of the same vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave._advice import UNKNOWN
from sharpwave._embedder import unit as unit_rows
from sharpwave._ridge import Ridge
from sharpwave.results import Explanation, Scores, explained_without
from sharpwave.view import Functional, View

if TYPE_CHECKING:
    from sharpwave._coerce import Array
    from sharpwave.view import Weights

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

STORE, COSINE, NEAREST, PROBE = "store", "cosine", "nearest", "probe"
BINS = 5


class Known(NamedTuple):
    """Labelled episodes that the store was built from: what the simpler judges learn from."""

    steps: NDArray[np.float32]
    offsets: NDArray[np.int64]
    is_scored: Bools
    """(ΣT,) whether a step is not context."""
    good: Bools
    """(E,)"""


@dataclass(frozen=True)
class Number:
    """A figure with its 95 % interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "–"
        around = "" if self.low is None else f" ({self.low:.2f} … {self.high:.2f})"
        return f"{self.value:.2f}{around}"


@dataclass(frozen=True)
class Judge:
    """One way to give an episode a number, and how well good and bad episodes are told apart by it.

    Attributes:
        name, about: what it is.
        auc: the probability that a good episode has a higher number than a bad one, ties counting half.
        brier: mean squared error of the probability that a logistic curve makes of the number, fitted on other
            episodes of the file (five folds).
        calibration: error of that probability: the root mean square, over five bins of equal size, of its distance from
            the share of good episodes. Noise raises a mean of squares, in a draw of the bootstrap twice, so that is
            taken off; 0 means that no error can be seen.
        lead: by how much the store's AUC is above this judge's.
    """

    name: str
    about: str
    auc: Number
    brier: Number
    calibration: Number
    lead: Number


@dataclass(frozen=True)
class Band:
    """Episodes of a range of support.

    Attributes:
        low, high: of the mean support.
        episodes, good: how many.
        auc: of the store among them.
    """

    low: float
    high: float
    episodes: int
    good: int
    auc: Number


class Paid(NamedTuple):
    """What one memory paid for an episode, over all of its steps."""

    memory: int
    pay: float
    text: str | None


@dataclass(frozen=True)
class Mistake:
    """An episode that the store puts on the wrong side.

    Attributes:
        episode: its number.
        good: its label.
        score, support: what the store says.
        rank: the share of the episodes with the other label that it should beat, or be beaten by, and does not.
        paid: the memories that drove it there, the strongest first: the ones that paid for a bad episode, or that
            charged a good one; none where the store knows nothing of it.
    """

    episode: int
    good: bool
    score: float
    support: float
    rank: float
    paid: tuple[Paid, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """How well a store tells good episodes from bad ones.

    Attributes:
        episodes, good, unscored: how many episodes were labelled and scored, how many of these are good, and how many
            were left out because they have no label or nothing to score.
        judges: the store first.
        bands: by support, lowest first.
        unknown: the share of episodes whose mean support is below `UNKNOWN`.
        reliability: by fifths of the store's score: low, high, episodes, and the share of good ones as a `Number`.
        mistakes: the worst first.
        verdict: one sentence.
        score, support: (E,) as the store gave them; NaN where there is nothing to score.
    """

    episodes: int
    good: int
    unscored: int
    judges: list[Judge]
    bands: list[Band]
    unknown: float
    reliability: list[tuple[float, float, int, Number]]
    mistakes: list[Mistake]
    verdict: str
    score: Floats
    support: Floats

    @property
    def auc(self) -> Number:
        """The store's."""
        return self.judges[0].auc

    def judge(self, name: str) -> Judge:
        """One of the judges by name; a KeyError names those there are."""
        for judge in self.judges:
            if judge.name == name:
                return judge
        raise KeyError(f"no judge {name!r}, there are {[judge.name for judge in self.judges]}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        bins = [
            {"low": low, "high": high, "episodes": count, "good": asdict(share)}
            for low, high, count, share in self.reliability
        ]
        return {
            **{name: getattr(self, name) for name in ("episodes", "good", "unscored", "unknown", "verdict")},
            **{name: [asdict(one) for one in getattr(self, name)] for name in ("judges", "bands", "mistakes")},
            "reliability": bins,
        }

    def __str__(self) -> str:
        lines = [f"{self.episodes} episodes, {self.good} good", ""]
        lines.append(f"{'judge':8}  {'AUC':20}  {'calibration error':20}  {'store leads by':20}")
        for j in self.judges:
            lead = "" if j.name == STORE else str(j.lead)
            lines.append(f"{j.name:8}  {j.auc!s:20}  {j.calibration!s:20}  {lead:20}  {j.about}".rstrip())
        lines += ["", "by support"]
        for band in self.bands:
            known = f"{band.low:.2f} … {band.high:.2f}"
            lines.append(f"  {known}  {band.episodes:4} episodes  AUC {band.auc}")
        lines += ["", "by score, the share that is good"]
        for low, high, count, share in self.reliability:
            lines.append(f"  {low:+.3f} … {high:+.3f}  {count:4} episodes  {share}")
        return "\n".join([*lines, "", self.verdict])


def evaluate(
    view: View[Any],
    steps: Array,
    offsets: Array,
    good: Sequence[bool | None] | NDArray[Any],
    *,
    weights: Weights | None = None,
    functional: Functional = "coverage",
    context: bool | int | Array = True,
    others: Array = (),
    known: Known | None = None,
    plain: Array | None = None,
    worst: int = 10,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Measure how well a store's score tells good episodes from bad ones that it has not seen.

    Args:
        view: the store.
        steps, offsets, weights, functional, context: as for `ValueStore.score`.
        good: (E,) True or False; None or NaN: no label.
        others: rows of `steps` that are somebody else's turns amid an episode (`Batch.others`).
        known: labelled episodes that the store was built from. A linear probe and the nearest demonstration learn from
            them; without them these two are left out. They must not be the episodes that are measured.
        plain: (ΣT, d') what these two read in place of ``steps``, of the same embedder as ``known.steps``: the
            embedding without what was fitted to labels (`Contrast.embedder`). None: ``steps``.
        worst: how many mistakes are listed.
        resamples, seed: of the bootstrap over episodes that gives the intervals.

    Returns:
        Figures with 95 % intervals.

    Raises:
        ValueError: a shape that does not fit, or fewer than two good or two bad episodes that can be scored.
    """
    rows = _coerce.rows("steps", steps, view.dim)
    ends = _coerce.offsets(offsets, len(rows))
    amid = _coerce.integers("others", others).ravel()
    labels = np.array([np.nan if _coerce.missing(one) else float(bool(one)) for one in good])
    if len(labels) != len(ends) - 1:
        raise ValueError(f"good has {len(labels)} labels for {len(ends) - 1} episodes")
    scores = view.score(rows, ends, weights=weights, functional=functional, context=context).without(amid, functional)
    place = _Place.of(scores, amid)
    support = place.mean(scores.support.astype(np.float64))
    score = np.where(np.isfinite(support), scores.total.astype(np.float64), np.nan)
    usable = np.flatnonzero(np.isfinite(labels) & np.isfinite(score))
    truth = labels[usable] > 0.5
    if min(truth.sum(), (~truth).sum()) < 2:
        raise ValueError(f"two good and two bad episodes are needed, got {truth.sum()} and {(~truth).sum()}")
    unit = unit_rows(rows)
    seen = unit if plain is None or known is None else unit_rows(_coerce.rows("plain", plain, known.steps.shape[1]))
    if len(seen) != len(unit):
        raise ValueError(f"plain has {len(seen)} rows for {len(unit)} steps")
    numbers = {STORE: (f"functional {functional}", score[usable])}
    terminals = _terminals(view, weights)
    if terminals is not None:
        numbers[COSINE] = ("mean cosine to the terminals", place.mean(unit @ terminals)[usable])
    if known is not None:
        numbers[NEAREST] = (
            "cosine to the nearest good step less that to the nearest bad one",
            place.mean(_nearest(known, seen))[usable],
        )
        numbers[PROBE] = ("ridge regression on the mean embedding", _probe(known)(place.vectors(seen))[usable])
    drawn = _draws(truth, resamples, seed)
    free = np.random.default_rng(seed).integers(0, len(truth), (resamples, len(truth)))  # the share of good may vary
    curves = {name: _auc_of_draws(values, truth, drawn) for name, (_, values) in numbers.items()}
    judges = [
        _judge(name, about, values, truth, free, curves[name], curves[STORE])
        for name, (about, values) in numbers.items()
    ]
    bands = _bands(support[usable], score[usable], truth, resamples, seed)
    unknown = float((support[usable] < UNKNOWN).mean())
    mistakes = _mistakes(usable, score, support, truth, worst)

    def explained(mistake: Mistake) -> Mistake:
        a, b = int(ends[mistake.episode]), int(ends[mistake.episode + 1])
        first = int(scores.context[mistake.episode])
        steps_of = view.explain(rows[a:b], weights=weights, functional=functional, context=first)
        own = amid[(amid >= a) & (amid < b)] - a
        return replace(mistake, paid=_paid(explained_without(steps_of, own, first, functional), mistake.good))

    return Evaluation(
        episodes=len(usable),
        good=int(truth.sum()),
        unscored=len(labels) - len(usable),
        judges=judges,
        bands=bands,
        unknown=unknown,
        reliability=_reliability(score[usable], truth),
        mistakes=[explained(mistake) for mistake in mistakes],
        verdict=_verdict(judges, bands, unknown),
        score=score,
        support=support,
    )


# The judges ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Which steps are scored, and whose they are."""

    owner: NDArray[np.int64]
    scored: Bools
    count: int

    @classmethod
    def of(cls, scores: Scores, others: NDArray[np.int64]) -> Self:
        counts = np.diff(scores.offsets)
        scored = np.arange(len(scores.step)) >= np.repeat(scores.offsets[:-1] + scores.context, counts)
        scored[others] = False
        return cls(np.repeat(np.arange(len(counts)), counts), scored, len(counts))

    def mean(self, values: Floats | NDArray[np.float32]) -> Floats:
        """(E,) of one number a step; NaN for an episode without a scored step."""
        owner = self.owner[self.scored]
        total = np.bincount(owner, values[self.scored], self.count)
        with np.errstate(invalid="ignore"):
            return total / np.bincount(owner, minlength=self.count)

    def vectors(self, unit: NDArray[np.float32]) -> Floats:
        """(E, d) the mean of the scored steps."""
        out = np.zeros((self.count, unit.shape[1]))
        np.add.at(out, self.owner[self.scored], unit[self.scored])
        return out / np.maximum(np.bincount(self.owner[self.scored], minlength=self.count), 1)[:, None]


def _probe(known: Known) -> Ridge:
    """Ridge regression of the label, ±1, on the mean embedding."""
    counts = np.diff(known.offsets)
    place = _Place(np.repeat(np.arange(len(counts)), counts), known.is_scored, len(counts))
    return Ridge(place.vectors(unit_rows(known.steps)), np.where(known.good, 1.0, -1.0))


def _nearest(known: Known, unit: NDArray[np.float32]) -> Floats:
    """(ΣT,) the highest cosine to a step of a good episode, less that to a step of a bad one."""
    of_good = np.repeat(known.good, np.diff(known.offsets))[known.is_scored]
    cosines = (unit @ unit_rows(known.steps)[known.is_scored].T).astype(np.float64)
    if of_good.all() or not of_good.any():
        return cosines.max(axis=1) * (1.0 if of_good.any() else -1.0)
    return cosines[:, of_good].max(axis=1) - cosines[:, ~of_good].max(axis=1)


def _terminals(view: View[Any], weights: Weights | None) -> NDArray[np.float32] | None:
    """(d,) the terminals' keys added up by weight; None if there is none."""
    scalar = set(view.scalar_channels)
    names = view.channels
    factors = np.ones(len(names)) if weights is None else _coerce.weights(weights, names)
    keys = [(f, view.terminal_key(n)) for f, n in zip(factors, names, strict=True) if n not in scalar and f]
    return None if not keys else np.sum([factor * key for factor, key in keys], axis=0).astype(np.float32)


# Figures and their intervals ----------------------------------------------------------------------


def auc(values: Floats, good: Bools) -> float:
    """The probability that a good episode has the higher number, ties counting half; NaN without both kinds."""
    return auc_between(values[good], values[~good])


def auc_between(positive: Floats, negative: Floats) -> float:
    """Probability that a positive lies above a negative, ties half; NaN where either is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    order = np.sort(negative)
    below = np.searchsorted(order, positive, "left")
    upto = np.searchsorted(order, positive, "right")
    return float((below + upto).mean() / (2 * len(order)))


def _draws(good: Bools, resamples: int, seed: int) -> NDArray[np.int64]:
    """(resamples, n) episodes with replacement, as many of each label as there are."""
    rng = np.random.default_rng(seed)
    parts = [np.flatnonzero(good), np.flatnonzero(~good)]
    return np.concatenate([part[rng.integers(0, len(part), (resamples, len(part)))] for part in parts], axis=1)


def _auc_of_draws(values: Floats, good: Bools, drawn: NDArray[np.int64]) -> Floats:
    """(1 + resamples,) the AUC of all, then that of each draw."""
    return np.array([auc(values, good), *(auc(values[rows], good[rows]) for rows in drawn)])


def _number(values: Floats) -> Number:
    """Of all, and of each draw."""
    if not np.isfinite(values).all():
        return Number(None)
    if len(values) == 1:
        return Number(float(values[0]))
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Number(float(values[0]), float(low), float(high))


def debiased_root(squares: Floats) -> Number:
    """The root of a mean square that noise raises, of all and of each draw; corrected for the noise.

    The square of all is the true one and the noise of one sample; that of a draw has the noise of two. How much that is
    is the mean of the draws less that of all (Efron & Tibshirani 1993, section 10.3).
    """
    if len(squares) == 1:
        return Number(float(np.sqrt(squares[0])))
    noise = squares[1:].mean() - squares[0]
    low, high = np.quantile(squares[1:], [0.025, 0.975]) - 2 * noise
    return Number(*(float(np.sqrt(max(0.0, square))) for square in (squares[0] - noise, low, high)))


def _judge(
    name: str, about: str, values: Floats, good: Bools, free: NDArray[np.int64], curve: Floats, store: Floats
) -> Judge:
    probability = cross_fitted(values, good)
    everything = [np.arange(len(good)), *free]

    def figure(of: Callable[[Floats, Bools], float]) -> Floats:
        return np.array([of(probability[rows], good[rows]) for rows in everything])

    apart = debiased_root(figure(calibration_square))
    return Judge(name, about, _number(curve), _number(figure(_brier)), apart, _number(store - curve))


def cross_fitted(values: Floats, good: Bools, folds: int = 5) -> Floats:
    """(n,) the probability of a good episode by a logistic curve of its number that was fitted on the other folds."""
    order = np.random.default_rng(0).permutation(len(values))
    fold = np.empty(len(values), np.int64)
    for label in (True, False):  # each fold has its share of both
        members = order[good[order] == label]
        fold[members] = np.arange(len(members)) % folds
    spread = float(values.std()) or 1.0
    scaled = (values - values.mean()) / spread
    out = np.full(len(values), float(good.mean()))
    for number in range(folds):
        rest, here = fold != number, fold == number
        if good[rest].any() and not good[rest].all():
            out[here] = _logistic(scaled[rest], good[rest])(scaled[here])
    return out


def _logistic(x: Floats, good: Bools) -> Callable[[Floats], Floats]:
    """The curve 1/(1 + exp(−a·x − b)), fitted by Newton's method to Platt's smoothed targets."""
    positive, negative = good.sum(), (~good).sum()
    target = np.where(good, (positive + 1.0) / (positive + 2.0), 1.0 / (negative + 2.0))
    design = np.stack([x, np.ones(len(x))], axis=1)
    theta = np.zeros(2)
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ theta, -30, 30)))
        hessian = design.T @ (design * (p * (1.0 - p))[:, None]) + 1e-6 * np.eye(2)
        move = np.linalg.solve(hessian, design.T @ (target - p))
        theta += np.clip(move, -2, 2)
        if np.abs(move).max() < 1e-8:
            break
    return lambda values: 1.0 / (1.0 + np.exp(-np.clip(values * theta[0] + theta[1], -30, 30)))


def _brier(probability: Floats, good: Bools) -> float:
    return float(((probability - good) ** 2).mean())


def calibration_square(probability: Floats, good: Bools) -> float:
    """Mean square, over bins of equal size, of the distance between the probability and the share of good episodes."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    apart = [(float(probability[part].mean()) - float(good[part].mean())) ** 2 * len(part) for part in parts]
    return sum(apart) / len(good)


def _reliability(score: Floats, good: Bools) -> list[tuple[float, float, int, Number]]:
    """The share of good episodes in each fifth of the score, with Wilson's interval."""
    parts = [part for part in np.array_split(np.argsort(score, kind="stable"), BINS) if len(part)]
    return [
        (float(score[part[0]]), float(score[part[-1]]), len(part), wilson(int(good[part].sum()), len(part)))
        for part in parts
    ]


def wilson(hits: int, count: int) -> Number:
    """A share with Wilson's 95 % interval."""
    z = 1.959964
    share = hits / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return Number(share, float(max(0.0, middle - half)), float(min(1.0, middle + half)))


def _bands(support: Floats, score: Floats, good: Bools, resamples: int, seed: int) -> list[Band]:
    """The unknown episodes, and thirds of the others by support."""
    unknown = np.flatnonzero(support < UNKNOWN)
    rest = np.flatnonzero(support >= UNKNOWN)
    parts = [unknown, *np.array_split(rest[np.argsort(support[rest], kind="stable")], 3)]
    bands: list[Band] = []
    for part in parts:
        if not len(part):
            continue
        among, truth = score[part], good[part]
        curve = np.array([np.nan])
        if truth.any() and not truth.all():
            curve = _auc_of_draws(among, truth, _draws(truth, resamples, seed))
        bands.append(
            Band(float(support[part].min()), float(support[part].max()), len(part), int(truth.sum()), _number(curve))
        )
    return bands


def _mistakes(usable: NDArray[np.int64], score: Floats, support: Floats, good: Bools, worst: int) -> list[Mistake]:
    """Good episodes below bad ones, and bad ones above good ones, the worst first."""
    values = score[usable]
    found: list[Mistake] = []
    for n, episode in enumerate(usable.tolist()):
        against = values[~good] if good[n] else values[good]
        wrong = against >= values[n] if good[n] else against <= values[n]
        share = float(wrong.mean())
        if share > 0:
            found.append(Mistake(episode, bool(good[n]), float(values[n]), float(support[episode]), share))
    return sorted(found, key=lambda m: (-m.rank, m.episode))[:worst]


def _paid(steps: Sequence[Explanation], good: bool, most: int = 3) -> tuple[Paid, ...]:
    """The memories that charged a good episode, or paid for a bad one."""
    pays: dict[int, float] = {}
    texts: dict[int, str | None] = {}
    for step in steps:
        for payment in step.memories:
            pays[payment.id] = pays.get(payment.id, 0.0) + payment.pay
            texts[payment.id] = payment.text
    side = -1.0 if good else 1.0
    strongest = sorted((one for one in pays if side * pays[one] > 0), key=lambda one: (-side * pays[one], one))
    return tuple(Paid(one, pays[one], texts[one]) for one in strongest[:most])


def _verdict(judges: Sequence[Judge], bands: Sequence[Band], unknown: float) -> str:
    """Whether the store is better than chance, and than each other judge, by more than the interval."""
    own = judges[0].auc
    said: list[str] = []
    if own.low is not None and own.low <= 0.5:
        said.append("The store does not tell good from bad here better than chance does.")
    for judge in judges[1:]:
        lead = judge.lead
        title = {COSINE: "the cosine to the terminals", NEAREST: "the nearest demonstration", PROBE: "a linear probe"}
        what = title[judge.name]
        if lead.low is None or lead.high is None or lead.value is None:
            continue
        if lead.low > 0:
            said.append(f"The store is better than {what} by {lead}.")
        elif lead.high < 0:
            said.append(f"The store is worse than {what} by {Number(-lead.value, -lead.high, -lead.low)}.")
        else:
            said.append(f"The store is no better than {what} as far as these episodes can tell ({lead}).")
    if unknown > 0:
        among = bands[0].auc
        known_anyway = among.low is not None and among.low > 0.5
        said.append(
            f"{unknown:.0%} of the episodes are unknown to it (support below {UNKNOWN:g}): "
            + (f"its AUC among them is {among}." if known_anyway else "their score says nothing.")
        )
    return " ".join(said) or f"AUC {own}."


def labels_of(
    numbers: Sequence[Mapping[str, float]],
    texts: Sequence[Mapping[str, str]],
    column: str,
    good: str | None = None,
) -> list[bool | None]:
    """The labels of rows: whether a numeric field is above the middle of its range, or a text is one of ``good``.

    Args:
        numbers, texts: the numeric and the text fields of each row.
        column: the field.
        good: of a numeric field, the threshold above which a row is good; of a text field, the texts of good rows with
            commas between them. None: the middle between the least and the greatest number.

    Raises:
        ValueError: no row has the field, all rows are alike, or ``good`` does not fit it.
    """
    if any(column in row for row in numbers):
        known = [row[column] for row in numbers if np.isfinite(row.get(column, np.nan))]
        middle = (min(known) + max(known)) / 2 if known else 0.0
        try:
            threshold = middle if good is None else float(good)
        except ValueError:
            raise ValueError(f"{column} has numbers, so what is good must be a number, got {good!r}") from None
        out = [row[column] > threshold if np.isfinite(row.get(column, np.nan)) else None for row in numbers]
        among = f"{len(known)} numbers from {min(known, default=0):g} to {max(known, default=0):g}"
    elif any(column in row for row in texts):
        there = sorted({row[column] for row in texts if column in row})
        if good is None:
            raise ValueError(f"{column} has texts: say which are good; there are {', '.join(map(repr, there[:8]))}")
        names = {name.strip() for name in good.split(",")}
        if unknown := sorted(names - set(there)):
            raise ValueError(f"no row has {unknown[0]!r} in {column}; there are {', '.join(map(repr, there[:8]))}")
        out = [row[column] in names if column in row else None for row in texts]
        among = f"the texts {', '.join(map(repr, there[:8]))}"
    else:
        fields = sorted({name for row in [*numbers, *texts] for name in row})
        raise ValueError(f"no row has a field {column!r}; there are {', '.join(fields) or 'none'}")
    if len({label for label in out if label is not None}) < 2:
        raise ValueError(f"{column}: all rows are on one side, of {among}")
    return out
