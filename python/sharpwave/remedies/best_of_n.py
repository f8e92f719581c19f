"""Best of n: what a reward selects, before anything is trained on it.

Of n samples of the base policy the one of highest reward is kept, and what it is worth by a gold measure is told for n
from 1 on. That is the mildest optimisation there is, and it needs no training: a reward whose gold does not rise with n
is not worth training on, and one whose gold turns shows at which pressure it is exploited. Best of n is at most
log n − (n − 1)/n nats from the base.

From N samples of a prompt the mean over all subsets of n is worked out, not a draw of some (Nakano et al. 2021,
appendix I): of the samples by rising reward, the i-th is the best of C(i − 1, n − 1) of C(N, n) subsets.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave._lazy import require
from sharpwave.text.chunkers import Text

if TYPE_CHECKING:
    from sharpwave._coerce import Array

Floats = NDArray[np.float64]
Function = Callable[..., Sequence[float | None]]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One measure of the sample that a reward picks of n."""

    mean: Floats
    """(len(n),) its mean over prompts."""
    low: Floats
    """The lower end of its interval over prompts; NaN with a single prompt."""
    high: Floats
    """The upper end."""
    best: int
    """The n at which the mean is highest."""
    fall: tuple[float, float, float]
    """How far the mean at the largest n lies below that at `best`, and the interval of this difference, widened for the
    choice of `best` among the n (Bonferroni)."""
    gain: Floats
    """(len(n),) how far the mean lies above that at the smallest n."""
    gain_low: Floats
    """The lower end of the interval of each gain, widened for all n together (Bonferroni); NaN with a single prompt."""
    kept: tuple[float, float, float]
    """The gain at the largest n, and its interval. That n is not chosen, so it is not widened."""

    @property
    def rises(self) -> bool:
        """Whether the measure rises by more than chance: the interval of the gain lies above 0 at some n."""
        return bool((self.gain_low > 0.0).any())

    @property
    def turns(self) -> bool:
        """Whether the measure falls after its best n by more than chance: the interval of the fall lies above 0."""
        return self.fall[1] > 0.0


@dataclass(frozen=True, slots=True, eq=False)
class BestOf:
    """What `best_of` found. Printed, it is a table."""

    n: NDArray[np.int64]
    """How many samples the best is picked of."""
    reward: Curve
    """The reward of the picked sample."""
    gold: dict[str, Curve]
    """Each gold measure of the picked sample."""
    prompts: int
    samples: int
    confidence: float
    """Of the intervals."""

    @property
    def kl(self) -> Floats:
        """(len(n),) log n − (n − 1)/n, nats: what best of n is from the base at most."""
        return np.log(self.n) - (self.n - 1) / self.n

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON: None where there is no interval."""
        return {
            "n": self.n.tolist(),
            "kl": self.kl.tolist(),
            "prompts": self.prompts,
            "samples": self.samples,
            "confidence": self.confidence,
            "reward": _plain(self.reward),
            "gold": {name: _plain(curve) for name, curve in self.gold.items()},
        }

    def __str__(self) -> str:
        curves = {"reward": self.reward, **self.gold}
        head = ["n", "KL ≤", *curves]
        rows = [
            [str(n), f"{kl:.2f}", *(_cell(curve, row) for curve in curves.values())]
            for row, (n, kl) in enumerate(zip(self.n.tolist(), self.kl.tolist(), strict=True))
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in (head, *rows)]
        lines.append(
            f"{self.samples} samples of {self.prompts} prompts; intervals of {self.confidence:.0%} over prompts"
        )
        lines += [f"{name}: {_verdict(curve)}" for name, curve in self.gold.items()]
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw every curve over n, with its interval (matplotlib, extra ``viz``); returns the path."""
        matplotlib = require("matplotlib", "viz")
        matplotlib.use("Agg")
        pyplot = require("matplotlib.pyplot", "viz")
        curves = {"reward": self.reward, **self.gold}
        figure, axes = pyplot.subplots(
            1, len(curves), figsize=(3.6 * len(curves), 2.8), layout="constrained", squeeze=False
        )
        for axis, (name, curve) in zip(axes[0], curves.items(), strict=True):
            axis.plot(self.n, curve.mean, marker="o", markersize=3)
            axis.fill_between(self.n, curve.low, curve.high, alpha=0.2)
            axis.set_xscale("log", base=2)
            axis.set_title(name)
            axis.set_xlabel("best of n")
            if curve.turns:
                axis.axvline(curve.best, linestyle=":", color="grey")
        figure.savefig(os.fspath(path))
        pyplot.close(figure)
        return Path(path)


def best_of(
    prompts: Sequence[Text | None],
    completions: Sequence[Text] | None = None,
    *,
    reward: Array | Function,
    gold: Array | Function | Mapping[str, Array | Function],
    n: Sequence[int] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> BestOf:
    """What the best of n samples by a reward is worth by one's own gold measures, and where that turns.

    >>> found = remedies.best_of(prompts, completions, reward=judge, gold={"objective": measure})
    >>> print(found)

    Args:
        prompts: (m,) the prompt of each sample; samples of equal prompts are picked among, and every prompt weighs the
            same.
        completions: (m,), for measures that are functions.
        reward: (m,) numbers, or a function as a trainer calls it: ``reward(prompts=…, completions=…)``.
        gold: the same, or a dict of several by name.
        n: which n to tell; by default 1, 2, 4, … and the number of samples of the prompt that has fewest.
        confidence: of the intervals.
        resamples: bootstrap draws of prompts for the intervals, which are a little narrow below thirty prompts.
        seed: of these draws.

    Raises:
        ValueError: a number that is missing or not finite, named by its row; an n beyond a prompt's samples.
    """
    count = len(prompts)
    if count == 0:
        raise ValueError("best_of needs samples, got none")
    measures = dict(gold) if isinstance(gold, Mapping) else {"gold": gold}
    if not measures or "reward" in measures:
        raise ValueError("gold needs a measure" if not measures else "gold: 'reward' is the name of what selects")
    pay = _numbers("reward", reward, prompts, completions)
    values = {name: _numbers(f"gold {name!r}", given, prompts, completions) for name, given in measures.items()}
    groups = _groups(prompts)
    fewest = min(len(group) for group in groups)
    sizes = _sizes(n, fewest)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    draws = np.random.default_rng(seed).multinomial(
        len(groups), np.full(len(groups), 1.0 / len(groups)), size=_coerce.count("resamples", resamples)
    )
    weights = [picked(pay[group], sizes) for group in groups]

    def curve(column: Floats) -> Curve:
        by_prompt = np.stack([w @ column[group] for w, group in zip(weights, groups, strict=True)])
        return _curve(by_prompt, sizes, draws, confidence)

    return BestOf(
        sizes, curve(pay), {name: curve(column) for name, column in values.items()}, len(groups), count, confidence
    )


def picked(reward: Floats, sizes: NDArray[np.int64]) -> Floats:
    """(len(sizes), N) the probability that each of N samples is the one of highest reward of n that are drawn without
    replacement, for each n; samples of equal reward are equally likely."""
    count = len(reward)
    rising = np.argsort(reward, kind="stable")
    _, level = np.unique(reward[rising], return_inverse=True)
    ties = np.bincount(level)
    out = np.zeros((len(sizes), count))
    place = np.arange(1, count, dtype=np.float64)
    for row, n in enumerate(sizes.tolist()):
        # C(i − 1, n − 1)/C(N, n) is n/N for i = N, and (i − n)/i of the next one's for every i below.
        ratio = np.maximum(place - n + 1, 0.0) / place
        chance = np.empty(count)
        chance[-1] = n / count
        chance[:-1] = n / count * np.cumprod(ratio[::-1])[::-1]
        out[row, rising] = (np.bincount(level, chance) / ties)[level]
    return out


def _curve(by_prompt: Floats, sizes: NDArray[np.int64], draws: NDArray[np.int64], confidence: float) -> Curve:
    """From (prompts, len(sizes)) and how often each draw of the bootstrap has each prompt."""
    mean = by_prompt.mean(axis=0)
    best = int(np.argmax(mean))
    fall = float(mean[best] - mean[-1])
    if len(by_prompt) < 2:
        none = np.full(len(sizes), math.nan)
        unknown = math.nan, math.nan
        gain = mean - mean[0]
        return Curve(mean, none, none, int(sizes[best]), (fall, *unknown), gain, none, (float(gain[-1]), *unknown))
    drawn = draws @ by_prompt / len(by_prompt)
    outside = 1 - confidence
    low, high = np.quantile(drawn, (outside / 2, 1 - outside / 2), axis=0)
    gained = drawn - drawn[:, :1]  # of the same prompts: a difference in pairs
    kept = np.quantile(gained[:, -1], (outside / 2, 1 - outside / 2))
    outside /= max(1, len(sizes) - 1)  # `best` is the highest of as many: what is highest by chance falls by chance
    fallen = np.quantile(drawn[:, best] - drawn[:, -1], (outside / 2, 1 - outside / 2))
    gain_low = np.quantile(gained, outside / 2, axis=0)
    return Curve(
        mean,
        low,
        high,
        int(sizes[best]),
        (fall, float(fallen[0]), float(fallen[1])),
        mean - mean[0],
        gain_low,
        (float(mean[-1] - mean[0]), float(kept[0]), float(kept[1])),
    )


def _sizes(n: Sequence[int] | None, fewest: int) -> NDArray[np.int64]:
    if n is None:
        doubled = [1 << k for k in range(fewest.bit_length())]
        return np.array(sorted({*doubled, fewest}), np.int64)
    sizes = sorted({_coerce.count("n", one) for one in n})
    if not sizes or sizes[0] < 1 or sizes[-1] > fewest:
        raise ValueError(f"n must lie in 1 … {fewest}, the samples of the prompt that has fewest, got {list(n)}")
    return np.array(sizes, np.int64)


def _groups(prompts: Sequence[Text | None]) -> list[NDArray[np.int64]]:
    """The rows of each prompt, in an order of prompts that does not depend on that of the rows."""
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(json.dumps(prompt, sort_keys=True, default=str), []).append(row)
    return [np.array(rows[prompt], np.int64) for prompt in sorted(rows)]


def _numbers(
    name: str, given: Array | Function, prompts: Sequence[Text | None], completions: Sequence[Text] | None
) -> Floats:
    if callable(given):
        if completions is None:
            raise ValueError(f"{name} is a function: give completions")
        if len(completions) != len(prompts):
            raise ValueError(f"got {len(prompts)} prompts for {len(completions)} completions")
        said: Any = given(prompts=list(prompts), completions=list(completions))
        given = [math.nan if number is None else number for number in said]
    column = _coerce.numbers(name, given)
    if column.shape != (len(prompts),):
        raise ValueError(f"{name} must have shape ({len(prompts)},), one a sample, got {column.shape}")
    bad = ~np.isfinite(column)
    if bad.any():
        raise ValueError(f"{name} row {int(np.argmax(bad))} is {column[bad][0]}, not a number to compare by")
    return column


def _plain(curve: Curve) -> dict[str, Any]:
    names = "mean", "low", "high", "gain", "gain_low", "fall", "kept"
    columns = {name: [_or_none(float(v)) for v in getattr(curve, name)] for name in names}
    return {**columns, "best": curve.best, "rises": curve.rises, "turns": curve.turns}


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number


def _cell(curve: Curve, row: int) -> str:
    mean, low, high = (float(column[row]) for column in (curve.mean, curve.low, curve.high))
    return f"{mean:.3f}" if math.isnan(low) else f"{mean:.3f} ({low:.3f} … {high:.3f})"


def _verdict(curve: Curve) -> str:
    fall, low, high = curve.fall
    if fall == 0.0:
        return "highest at the largest n"
    interval = "" if math.isnan(low) else f" ({low:.3f} … {high:.3f})"
    what = "turns" if curve.turns else "highest, and does not turn by more than chance,"
    return f"{what} at n = {curve.best}; falls by {fall:.3f}{interval} to the largest n"
