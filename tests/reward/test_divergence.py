"""The divergence estimators against closed forms on Gaussians, and what duplicates and few samples do to them."""

from __future__ import annotations

import numpy as np
import pytest
from sharpwave import divergence
from sharpwave.divergence import ESTIMATORS, Reference, estimate, knn, mahalanobis, mmd, pairwise


def gaussians(
    seed: int, m: int, n: int, d: int, shift: float = 0.0, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(m, d)) * scale
    x[:, 0] += shift
    return x, rng.normal(size=(n, d))


def gaussian_mmd2(d: int, shift: float, scale: float, bandwidth: float) -> float:
    """MMD² of N(shift·e_1, scale²·I) and N(0, I) under exp(−‖x − y‖²/2σ²)."""

    def kernel_mean(variance: float, apart: float) -> float:
        return (1 + variance / bandwidth**2) ** (-d / 2) * np.exp(-(apart**2) / (2 * (variance + bandwidth**2)))

    return kernel_mean(2 * scale**2, 0) + kernel_mean(2, 0) - 2 * kernel_mean(1 + scale**2, shift)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (1.0, 1.0), (0.5, 0.3), (0.0, 2.0)])
def test_mmd_is_unbiased(shift: float, scale: float) -> None:
    draws = np.array([mmd(*gaussians(seed, 6, 7, 3, shift, scale), bandwidth=1.5).statistic for seed in range(1500)])
    expected = gaussian_mmd2(3, shift, scale, 1.5)
    assert abs(draws.mean() - expected) < 4 * draws.std() / np.sqrt(len(draws))


def test_pairwise_is_unbiased_for_the_mean_distance() -> None:
    # In one dimension X − Y is N(1, 1 + 2²), whose mean absolute value is that of a folded normal.
    from math import erf, exp, pi, sqrt

    mu, s = 1.0, sqrt(5.0)
    expected = s * sqrt(2 / pi) * exp(-(mu**2) / (2 * s**2)) + mu * erf(mu / (s * sqrt(2)))
    draws = np.array([pairwise(*gaussians(seed, 5, 6, 1, mu, 2.0)).statistic for seed in range(1500)])
    assert abs(draws.mean() - expected) < 4 * draws.std() / np.sqrt(len(draws))


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (1.0, 1.0), (1.0, 0.6)])
@pytest.mark.parametrize("k", [2, 4])
def test_knn_approaches_kl(shift: float, scale: float, k: int) -> None:
    d = 2
    expected = 0.5 * (d * scale**2 + shift**2 - d - 2 * d * np.log(scale))
    few, many = (
        np.mean([knn(*gaussians(seed, m, m, d, shift, scale), k=k).statistic for seed in range(10)]) for m in (40, 400)
    )
    assert many == pytest.approx(expected, abs=0.1)
    assert abs(many - expected) <= abs(few - expected) + 0.03


def test_mahalanobis_approaches_the_mean_of_a_chi() -> None:
    x, y = gaussians(0, 4000, 4000, 3)
    assert mahalanobis(x, y).statistic == pytest.approx(2 * np.sqrt(2 / np.pi), rel=0.03)


def test_shrinkage_is_ledoit_and_wolfs() -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    rng = np.random.default_rng(1)
    for n, d in [(40, 5), (12, 30), (8, 100)]:
        y = rng.normal(size=(n, d)) * np.linspace(0.2, 2.0, d)
        x = rng.normal(size=(6, d))
        peer = covariance.LedoitWolf().fit(y)
        np.testing.assert_allclose(
            mahalanobis(x, y).per_sample, np.sqrt(peer.mahalanobis(x)), rtol=1e-8, err_msg=f"{n} × {d}"
        )


@pytest.mark.parametrize("name", ESTIMATORS)
def test_shares_and_the_base_term_sum_to_the_statistic(name: str) -> None:
    x, y = gaussians(3, 7, 9, 12, 0.7)
    result = estimate(name, x, y)
    assert result.shares.shape == (7,)
    assert result.shares.sum() + result.base == pytest.approx(result.statistic, abs=1e-12)
    assert result.per_sample.mean() == pytest.approx(result.statistic, abs=1e-12)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_stranger_has_the_largest_share(name: str) -> None:
    x, y = gaussians(4, 8, 20, 6)
    x[3] += 8.0
    assert np.argmax(estimate(name, x, y).shares) == 3 or name == "knn"
    assert estimate(name, x + 4.0, y).statistic > estimate(name, y[:8], y).statistic


@pytest.mark.filterwarnings("ignore:the base samples .* are all alike")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_duplicates_leave_everything_finite(name: str) -> None:
    _, y = gaussians(5, 1, 10, 4)
    collapsed = np.repeat(y[:1] + 5.0, 8, axis=0)
    for x, base in [
        (collapsed, y),
        (np.repeat(y[:1], 8, axis=0), y),
        (y, np.repeat(y[:1], 10, axis=0)),
        (collapsed, collapsed),
    ]:
        result = estimate(name, x, base)
        assert np.isfinite(result.statistic)
        assert np.isfinite(result.shares).all()


@pytest.mark.parametrize("d", [4, 48, 384])
@pytest.mark.parametrize("spread", [0.0, 1e-9, 1e-6, 1e-3])
def test_a_base_without_spread_is_said_and_bounds_the_distance(spread: float, d: int) -> None:
    rng = np.random.default_rng(d)
    base = np.ones((8, d)) + spread * rng.normal(size=(8, d))
    x = rng.normal(size=(5, d))
    with pytest.warns(RuntimeWarning, match=r"base samples \(n = 8\) are all alike"):
        found = mahalanobis(x, base).per_sample
    np.testing.assert_allclose(found, np.linalg.norm(x - base.mean(axis=0), axis=1), rtol=0.01)
    with pytest.warns(RuntimeWarning, match="all alike"):  # it has no unit of its own
        np.testing.assert_allclose(mahalanobis(1000 * x, 1000 * base).per_sample, found, rtol=1e-6)


def test_a_narrow_direction_bounds_the_distance_of_unit_vectors() -> None:
    rng = np.random.default_rng(9)
    base = np.ones((1000, 4))
    base[:, 0] += rng.normal(size=1000)  # the other three never vary
    base /= np.linalg.norm(base, axis=1)[:, None]
    assert mahalanobis(-base[:1], base).statistic < 200 * 4**0.5


def test_knn_of_a_collapse_is_the_largest_there_is() -> None:
    _, y = gaussians(6, 1, 16, 4)
    collapsed = knn(np.repeat(y[:1] + 5.0, 8, axis=0), y).statistic
    digamma = divergence._digamma(20)
    assert collapsed == pytest.approx(digamma[8] - digamma[1] + np.log(16 / 7))


def test_more_dimensions_than_samples() -> None:
    x, y = gaussians(7, 4, 6, 384)
    for name in ESTIMATORS:
        assert np.isfinite(estimate(name, x, y).statistic)
    assert mahalanobis(x + 1.0, y).statistic > mahalanobis(x, y).statistic


def test_the_bandwidth_is_the_median_distance_of_the_base() -> None:
    y = np.array([[0.0], [1.0], [3.0]])
    assert Reference(y).bandwidth == pytest.approx(2.0)
    assert Reference(np.ones((3, 2))).bandwidth == 1.0
    assert Reference(y, bandwidth=0.5).bandwidth == 0.5


def test_bad_arguments_are_named() -> None:
    x, y = gaussians(8, 4, 4, 3)
    with pytest.raises(ValueError, match="base row 1"):
        mmd(x, np.where(np.arange(4)[:, None] == 1, np.nan, y))
    with pytest.raises(ValueError, match="policy has 2 columns"):
        pairwise(x[:, :2], y)
    with pytest.raises(ValueError, match="base must have shape"):
        pairwise(x, np.zeros((0, 3)))
    with pytest.raises(ValueError, match="at least 2 policy samples"):
        knn(x[:1], y)
    with pytest.raises(ValueError, match="k must be"):
        knn(x, y, k=0)
    with pytest.raises(ValueError, match="divergence must be one of"):
        estimate("kl", x, y)
    with pytest.raises(ValueError, match="bandwidth"):
        Reference(y, bandwidth=0.0)
