"""What a store knows of episodes that it has not seen: their next steps, and the drives that they still reach.

Both measures come with a standard error over episodes, since the steps of an episode are not independent: each step's
influence on the measure is summed over its episode, and the sums are what varies.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sharpwave.view import View

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

MAX_TRANSITIONS = 1024
"""The transitions whose next step is looked for, and the steps among which it is; evenly chosen if there are more."""

QUERIES = 256
"""The predictions made at once: each holds a row of activations, one a memory."""


class Measure(NamedTuple):
    """A number and its standard error over episodes; both NaN where there is nothing to measure."""

    value: float
    error: float


NOTHING = Measure(math.nan, math.nan)


def episode_of(offsets: Ids) -> Ids:
    """(ΣT,) the episode of each step."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


# The next step ------------------------------------------------------------------------------------


def next_step(view: View[Any], steps: NDArray[np.float32], offsets: Ids) -> Measure:
    """Mean rank of the true next step among all next steps, by agreement with the prediction μ: 0 last, 1 first.

    μ is what edge support compares a step with: the mean key of what follows the memories that answer to the step
    before. Candidates with the same embedding as the true next step do not count; equal agreement counts half, so that
    a store that predicts nothing has 0.5.
    """
    episode = episode_of(offsets)
    before = np.flatnonzero(episode[1:] == episode[:-1])
    if len(before) == 0:
        return NOTHING
    before = _evenly(before, MAX_TRANSITIONS)
    rows = unit_rows(steps)
    different, inverse = np.unique(rows[before + 1], axis=0, return_inverse=True)
    shown = _evenly(np.arange(len(different)), MAX_TRANSITIONS)
    candidates = different[shown]
    ranks = np.empty(len(before))
    for first in range(0, len(before), QUERIES):
        part = slice(first, first + QUERIES)
        predicted = predictions(view, steps[before[part]])
        agreement = predicted @ candidates.T
        truth = np.einsum("nd,nd->n", predicted, different[inverse[part]])
        other = shown[None, :] != inverse[part, None]
        below = ((agreement < truth[:, None]) & other).sum(axis=1)
        equal = ((agreement == truth[:, None]) & other).sum(axis=1)
        count = other.sum(axis=1)
        ranks[part] = np.where(count > 0, (below + 0.5 * equal) / np.maximum(count, 1), 0.5)
    return mean_over_episodes(ranks, episode[before])


def predictions(view: View[Any], steps: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, d) μ of what follows each step (docs/model.md, section 6), of unit norm; zero where nothing is predicted."""
    config = view.config
    ids, weights = view.associate(steps, steps=1, damping=1.0, k=min(max(len(view), 1), config.k * config.max_out))
    spread = np.zeros((len(steps), len(view)), np.float32)
    query, place = np.nonzero(ids >= 0)
    spread[query, np.searchsorted(view.ids, ids[query, place])] = weights[query, place]
    return unit_rows(spread @ view.keys)


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at unit length; a row of zeros stays as it is."""
    norm = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))[:, None]
    return np.divide(rows, norm, out=np.zeros_like(rows), where=norm > 0, casting="same_kind")


def _evenly(indices: Ids, most: int) -> Ids:
    if len(indices) <= most:
        return indices
    return indices[np.arange(most) * len(indices) // most]


# What is still reached ----------------------------------------------------------------------------


def still_reached(drives: Floats, offsets: Ids, discount: float, equation: str) -> Floats:
    """(ΣT, Q) the discounted drive observed after each step: the highest ("stopping") or the sum ("return").

    A drive of the next step counts in full, one of the step after it ``discount`` times. NaN where none was observed.
    """
    out = np.full(drives.shape, np.nan)
    for first, end in pairwise(offsets.tolist()):
        later = np.full(drives.shape[1], np.nan)
        for t in range(end - 2, first - 1, -1):
            step, later = drives[t + 1], discount * later
            if equation == "stopping":
                later = np.fmax(step, later)
            else:
                later = np.where(np.isnan(step), later, step + np.nan_to_num(later))
            out[t] = later
    return out


def prediction(value: Floats, reached: Floats, episode: Ids) -> Measure:
    """How well ``value`` (n,) orders steps by what they ``reached`` (n,); a NaN in ``reached`` is left out.

    It is the AUC with every pair of steps weighted by the difference of what they reached: 1 in the right order, 0.5 by
    chance. Where that takes two values it is the AUC. (Half of one plus the Gini correlation, Schechtman & Yitzhaki
    1987.) The standard error is that of a ratio of U-statistics, from each step's influence on it.
    """
    known = ~np.isnan(reached)
    value, reached, episode = value[known], reached[known], episode[known]
    if len(reached) == 0 or np.ptp(reached) == 0.0:
        return NOTHING
    agreed, possible = _signed_gaps(reached, value), _signed_gaps(reached, reached)
    correlation = float(agreed.mean() / possible.mean())
    influence = (agreed - correlation * possible) / (possible.mean() * len(reached))
    return Measure((1.0 + correlation) / 2.0, _error(influence, episode))


def _signed_gaps(reached: Floats, value: Floats) -> Floats:
    """(n,) mean over all steps j of (reached_i − reached_j)·sign(value_i − value_j), in n log n."""
    _, level, count = np.unique(value, return_inverse=True, return_counts=True)
    total = np.bincount(level, reached)
    count_below, total_below = np.cumsum(count) - count, np.cumsum(total) - total
    count_above, total_above = len(value) - count - count_below, total.sum() - total - total_below
    gaps = reached * (count_below - count_above)[level] - (total_below - total_above)[level]
    return gaps / len(value)


def mean_over_episodes(values: Floats, episode: Ids) -> Measure:
    """The mean, and its standard error over episodes."""
    mean = float(values.mean())
    return Measure(mean, _error((values - mean) / len(values), episode))


def _error(influence: Floats, episode: Ids) -> float:
    """The standard error of a statistic from the influence of each observation, summed over episodes."""
    _, place = np.unique(episode, return_inverse=True)
    sums = np.bincount(place, influence)
    count = len(sums)
    return math.sqrt(float(sums @ sums) * count / (count - 1)) if count > 1 else math.nan
