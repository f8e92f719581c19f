"""Embedding-space divergence of policy samples from base samples, per group of samples of one prompt.

Four estimators, each of policy samples X (m, d) against base samples Y (n, d); a sample is one completion as one
vector. None of them conditions on the text that deviates, so none needs likelihoods. Every result splits into one
share a policy sample and a term of the base alone, which sum to the statistic (`Divergence`).

* `pairwise`: mean Euclidean distance of policy samples from base samples;
* `mmd`: unbiased squared maximum mean discrepancy with an RBF kernel (Gretton et al. 2012, JMLR 13:723, eq. 3);
* `knn`: the nearest-neighbour estimate of KL(policy‖base) in nats (Wang, Kulkarni & Verdú 2009, IEEE TIT 55:2392),
  in its form with one radius for both samples, which duplicates cannot make infinite;
* `mahalanobis`: distance from the base samples' Gaussian, its covariance shrunk (Ledoit & Wolf 2004, JMVA 88:365):
  the monitor for drift and early stopping. Base samples that are all alike have no covariance: their own length stands
  in for it, with a warning.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Estimator = Literal["pairwise", "mmd", "knn", "mahalanobis"]
ESTIMATORS: tuple[str, ...] = get_args(Estimator)

EULER = 0.5772156649015329

LEAST_SPREAD = 1e-4
"""Variance of a coordinate over its mean square: below it, base samples count as all alike, and no direction of a
Gaussian counts as narrower. It bounds a Mahalanobis distance: 200·√d for unit vectors."""


@dataclass(frozen=True)
class Divergence:
    """One estimate, and what each policy sample has to do with it.

    Attributes:
        statistic: the estimate.
        shares: (m,) each policy sample's share.
        base: the term that is of the base samples alone; ``shares.sum() + base == statistic``.
    """

    statistic: float
    shares: Floats
    base: float = 0.0

    @property
    def per_sample(self) -> Floats:
        """(m,) the statistic as one number a policy sample; their mean is the statistic."""
        return self.shares * len(self.shares) + self.base


class Reference:
    """Base samples (n, d), and what of an estimate depends on them alone, computed once.

    Args:
        base: (n, d), at least one row.
        bandwidth: of the RBF kernel, in units of distance; None for the median distance between base samples. Policy
            samples have no part in it: a bandwidth that moved with the policy would hide how far it has gone.

    Raises:
        ValueError: no rows, a row that is not finite, or a bandwidth that is not positive.
    """

    def __init__(self, base: ArrayLike, bandwidth: float | None = None) -> None:
        self.rows = samples("base", base)
        if bandwidth is not None and not 0 < bandwidth < np.inf:
            raise ValueError(f"bandwidth must be positive and finite, got {bandwidth}")
        self._bandwidth = bandwidth

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _squared(self) -> Floats:
        return squared_distances(self.rows, self.rows)

    @cached_property
    def bandwidth(self) -> float:
        """σ of the kernel exp(−‖x − y‖²/2σ²); 1 where all base samples are equal, or there is one."""
        if self._bandwidth is not None:
            return self._bandwidth
        pairs = self._squared[np.triu_indices(len(self), 1)]
        median = float(np.sqrt(np.median(pairs))) if len(pairs) else 0.0
        return median if median > 1e-12 else 1.0

    @cached_property
    def kernel_mean(self) -> float:
        """Mean of the kernel over pairs of different base samples."""
        return _mean_of_pairs(np.exp(-self._squared / (2 * self.bandwidth**2)))

    @cached_property
    def alike(self) -> bool:
        """Whether the base samples have no spread to speak of, or there is only one."""
        return float(self.rows.var(axis=0).mean()) <= LEAST_SPREAD * float((self.rows**2).mean())

    @cached_property
    def gaussian(self) -> tuple[Floats, Floats, Floats, float]:
        """Mean (d,), and the inverse of the shrunk covariance as ``(directions (d, r), weights (r,), rest)``.

        It is ``rest·I + directions·diag(weights)·directionsᵀ``: r ≤ n − 1, and nothing of size d × d is made where
        d > n. Of base samples that are all alike, it is that of a sphere as wide as their root mean square, with a
        RuntimeWarning.
        """
        if not self.alike:
            return _shrunk_inverse(self.rows)
        warnings.warn(
            f"the base samples (n = {len(self)}) are all alike, so there is no spread to measure a distance in: it is "
            f"measured in units of their root mean square",
            RuntimeWarning,
            stacklevel=4,
        )
        square = float((self.rows**2).mean())
        d = self.rows.shape[1]
        return self.rows.mean(axis=0), np.empty((d, 0)), np.empty(0), 1.0 / square if square > 0 else 1.0


def estimate(name: str, policy: ArrayLike, base: ArrayLike | Reference, **options: Any) -> Divergence:
    """The estimate called ``name``; ``options`` are those of its function."""
    functions = {"pairwise": pairwise, "mmd": mmd, "knn": knn, "mahalanobis": mahalanobis}
    if name not in functions:
        raise ValueError(f"divergence must be one of {ESTIMATORS}, got {name!r}")
    return functions[name](policy, base, **options)


def pairwise(policy: ArrayLike, base: ArrayLike | Reference) -> Divergence:
    """Mean distance of a policy sample from the base samples; unbiased for E‖X − Y‖."""
    x, reference = _pair(policy, base)
    distance = np.sqrt(squared_distances(x, reference.rows)).mean(axis=1)
    return Divergence(float(distance.mean()), distance / len(x))


def mmd(policy: ArrayLike, base: ArrayLike | Reference, bandwidth: float | None = None) -> Divergence:
    """Unbiased MMD²: 0 in expectation for equal distributions, hence negative at times.

    A sample's share is (mean kernel to the other policy samples − 2·mean kernel to base samples)/m: twice its witness
    function less what it has in common with its own group. The term of the base alone is the mean kernel between base
    samples. A single policy (base) sample has no other: its kernel with itself, 1, stands in, and the estimate is then
    biased upwards.
    """
    x, reference = _pair(policy, base)
    if bandwidth is not None:
        reference = Reference(reference.rows, bandwidth)
    scale = 2 * reference.bandwidth**2
    to_base = np.exp(-squared_distances(x, reference.rows) / scale).mean(axis=1)
    within = np.exp(-squared_distances(x, x) / scale)
    m = len(x)
    to_others = (within.sum(axis=1) - np.diag(within)) / (m - 1) if m > 1 else np.ones(1)
    shares = (to_others - 2 * to_base) / m
    return Divergence(float(shares.sum() + reference.kernel_mean), shares, reference.kernel_mean)


def knn(policy: ArrayLike, base: ArrayLike | Reference, k: int = 1) -> Divergence:
    """KL(policy‖base) in nats from nearest neighbours: (1/m)·Σ_i [ψ(l_i) − ψ(k_i)] + log(n/(m − 1)).

    Around each policy sample lies one ball, just large enough to hold k other policy samples and k base samples; l_i
    and k_i count both kinds in it, ties included. The kind whose k-th neighbour lies on the ball's surface is counted
    as it is, the other kind, which has nothing there, with one more (without it, the estimate is a tenth too low).
    Equal samples make counts larger, never a logarithm of zero: the estimate lies between ψ(k) − ψ(n + 1) and
    ψ(m) − ψ(k), the logarithm added. No likelihood and no dimension enters.

    Raises:
        ValueError: fewer than 2 policy samples, or k below 1. A k beyond the samples there are is lowered to them.
    """
    x, reference = _pair(policy, base)
    m, n = len(x), len(reference)
    if m < 2:
        raise ValueError(f"knn needs at least 2 policy samples, got {m}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    k = min(k, m - 1, n)
    own = squared_distances(x, x)
    np.fill_diagonal(own, np.inf)
    other = squared_distances(x, reference.rows)
    to_own = np.partition(own, k - 1, axis=1)[:, k - 1]
    to_other = np.partition(other, k - 1, axis=1)[:, k - 1]
    radius = np.maximum(to_own, to_other)[:, None]
    l_i = (own <= radius).sum(axis=1) + (to_own < to_other)
    k_i = (other <= radius).sum(axis=1) + (to_other < to_own)
    digamma = _digamma(max(m, n) + 1)
    terms = digamma[l_i] - digamma[k_i] + np.log(n / (m - 1))
    return Divergence(float(terms.mean()), terms / m)


def mahalanobis(policy: ArrayLike, base: ArrayLike | Reference) -> Divergence:
    """Mean Mahalanobis distance of the policy samples from the base samples' Gaussian, shrunk towards a sphere.

    Warns:
        RuntimeWarning: the base samples are all alike, so that the distance is in units of their root mean square.
    """
    x, reference = _pair(policy, base)
    mean, directions, along, rest = reference.gaussian
    centred = x - mean
    squared = rest * (centred**2).sum(axis=1) + ((centred @ directions) ** 2 * along).sum(axis=1)
    distance = np.sqrt(np.maximum(squared, 0.0))
    return Divergence(float(distance.mean()), distance / len(x))


# What the estimators stand on


def samples(name: str, data: ArrayLike) -> Floats:
    """An (n, d) float64 matrix of finite numbers with at least one row; one vector (d,) is a row."""
    rows = np.atleast_2d(np.asarray(data, np.float64))
    if rows.ndim != 2 or rows.size == 0:
        raise ValueError(f"{name} must have shape (n, d) with n ≥ 1, got {rows.shape}")
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name} row {int(np.argmin(finite))} holds NaN or infinity")
    return rows


def squared_distances(x: Floats, y: Floats) -> Floats:
    """(m, n) ‖x − y‖²; exactly 0 for equal rows, whatever rounding would make of it."""
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :]
    distances = squares - 2 * (x @ y.T)
    distances[distances <= 1e-14 * squares] = 0.0
    return distances


def _pair(policy: ArrayLike, base: ArrayLike | Reference) -> tuple[Floats, Reference]:
    x = samples("policy", policy)
    reference = base if isinstance(base, Reference) else Reference(base)
    if x.shape[1] != reference.rows.shape[1]:
        raise ValueError(f"policy has {x.shape[1]} columns, base has {reference.rows.shape[1]}")
    return x, reference


def _mean_of_pairs(kernel: Floats) -> float:
    n = len(kernel)
    if n < 2:
        return 1.0
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def _digamma(count: int) -> Floats:
    """ψ(0…count); ψ(0) is never asked for."""
    harmonic = np.concatenate([[np.nan, 0.0], np.cumsum(1.0 / np.arange(1, count))])
    return harmonic - EULER


def _shrunk_inverse(rows: Floats) -> tuple[Floats, Floats, Floats, float]:
    """`Reference.gaussian`."""
    n, d = rows.shape
    mean = rows.mean(axis=0)
    centred = rows - mean
    # The covariance (d, d) and the Gram matrix (n, n) have the same eigenvalues: the smaller one is decomposed.
    values, vectors = np.linalg.eigh((centred.T @ centred if d <= n else centred @ centred.T) / n)
    keep = values > max(float(values[-1]), 0.0) * 1e-10
    values, vectors = values[keep], vectors[:, keep]
    directions = vectors if d <= n else centred.T @ (vectors / np.sqrt(values * n))
    spread = float(values.sum()) / d
    intensity = _ledoit_wolf(centred, values, spread)
    floor = max(intensity * spread, LEAST_SPREAD * float((rows**2).mean()))
    along = 1.0 / ((1.0 - intensity) * values + floor) - 1.0 / floor
    return mean, directions, along, 1.0 / floor


def _ledoit_wolf(centred: Floats, values: Floats, spread: float) -> float:
    """How far to shrink the covariance towards spread·I: between 0 and 1."""
    n, d = centred.shape
    squared = float((values**2).sum())
    apart = squared / d - spread**2  # ‖S − spread·I‖²/d
    if apart <= 0:
        return 1.0
    noise = (float(((centred**2).sum(axis=1) ** 2).sum()) / n - squared) / (d * n)
    return min(max(noise / apart, 0.0), 1.0)
