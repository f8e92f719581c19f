"""Observations of an environment as steps of a store: an embedder for Box spaces, and what any embedder must give.

A store compares directions. Numbers of an observation space are no directions: (1, 1) and (2, 2) have cosine 1. Random
Fourier features make them comparable: the cosine of two embeddings is, up to the noise of the projection, a Gaussian
kernel of the distance of the observations (Rahimi & Recht 2007, https://dl.acm.org/doi/10.5555/2981562.2981710),

    x ↦ [cos(Wz), sin(Wz)]/√m      W (m, n) ~ N(0, 1/ℓ²)      ⟨x, x'⟩ ≈ exp(−‖z − z'‖²/(2ℓ²))

where z is x, standardised. What this module makes is fixed: the same seed, scale and bandwidth give the same vectors
for ever, as the keys of a store need. It needs NumPy alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce

Floats = NDArray[np.float32]
ObservationEmbedder = Callable[[Any], Any]
"""A batch of observations, stacked (n, …), to vectors (n, d)."""

SAMPLE = 512


class RandomFeatures:
    """Observations (n, …) of numbers to unit vectors (n, dim): a fixed, seeded random projection.

    >>> embedder = RandomFeatures.for_space(env.observation_space, dim=128)
    >>> store = sw.ValueStore(sw.Config(dim=128))

    Args:
        center, scale: z = (x − center)/scale, both of the shape of an observation.
        dim: d, an even number; the noise of a cosine is about 1/√d.
        bandwidth: ℓ, in units of √(number of coordinates that vary): observations that are one standard deviation apart
            in each of them have cosine exp(−1/(2ℓ²)).
        seed: of the projection.

    Raises:
        ValueError: a number out of range, or a scale that is not positive.
    """

    def __init__(
        self,
        center: Any,
        scale: Any,
        *,
        dim: int = 128,
        bandwidth: float = 0.5,
        seed: int = 0,
    ) -> None:
        self.center = np.asarray(center, np.float32)
        self.scale = np.asarray(scale, np.float32)
        self.dim = _coerce.count("dim", dim)
        self.bandwidth = _coerce.number("bandwidth", bandwidth)
        self.seed = _coerce.count("seed", seed)
        if self.center.shape != self.scale.shape:
            raise ValueError(f"scale has shape {self.scale.shape}, center {self.center.shape}")
        if self.dim < 2 or self.dim % 2:
            raise ValueError(f"dim must be even and at least 2, got {self.dim}")
        if not 0 < self.bandwidth < float("inf"):
            raise ValueError(f"bandwidth must be positive and finite, got {self.bandwidth}")
        if not np.isfinite(self.center).all() or np.isnan(self.scale).any() or not (self.scale > 0).all():
            raise ValueError("center must be finite, and scale positive")
        self._varies = np.isfinite(self.scale).ravel()
        varying = int(self._varies.sum())
        if not varying:
            raise ValueError("scale: no coordinate varies")
        length = self.bandwidth * varying**0.5
        # float32 from float64: NumPy's generator is reproducible between machines and versions.
        normal = np.random.Generator(np.random.PCG64(self.seed)).standard_normal((varying, self.dim // 2))
        self._w = (normal / length).astype(np.float32)

    @classmethod
    def for_space(cls, space: Any, **options: Any) -> Self:
        """Scaled by the bounds of a Box space: its middle and half of its width, as of a uniform distribution, /√3.

        Raises:
            TypeError: a space that is no Box.
            ValueError: a coordinate without bounds: use `fitted` with a sample of observations.
        """
        low, high = getattr(space, "low", None), getattr(space, "high", None)
        if low is None or high is None:
            raise TypeError(f"{space} is no Box: pass embedder=, a function of stacked observations to vectors (n, d)")
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        # Bounds such as ±3.4e38 stand for none.
        if (high - low > 1e30).any():
            raise ValueError(f"{space} has no bounds: use RandomFeatures.fitted(a sample of observations)")
        half = np.where(high > low, (high - low) / (2 * 3**0.5), np.inf)
        return cls((low + high) / 2, half, **options)

    @classmethod
    def fitted(cls, observations: Any, **options: Any) -> Self:
        """Scaled by the mean and standard deviation of a sample (n, …); coordinates that never vary are left out."""
        rows = np.asarray(observations, np.float64)
        if len(rows) < 2:
            raise ValueError(f"observations: {len(rows)} are too few to fit to")
        spread = rows.std(axis=0)
        return cls(rows.mean(axis=0), np.where(spread > 1e-6, spread, np.inf), **options)

    def __call__(self, observations: Any) -> Floats:
        """(n, dim), each row of unit norm."""
        rows = np.asarray(observations, np.float32)
        if rows.shape[1:] != self.center.shape:
            raise ValueError(f"observations have shape {rows.shape[1:]}, the embedder was made for {self.center.shape}")
        z = ((rows - self.center) / self.scale).reshape(len(rows), -1)[:, self._varies]
        angles = z @ self._w
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * np.float32((self.dim // 2) ** -0.5)

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` makes the same embedder."""
        return {
            "center": self.center.tolist(),
            "scale": [None if np.isinf(x) else float(x) for x in self.scale.ravel()],
            "dim": self.dim,
            "bandwidth": self.bandwidth,
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        center = np.array(data["center"], np.float32)
        scale = np.array([np.inf if x is None else x for x in data["scale"]], np.float32).reshape(center.shape)
        return cls(center, scale, dim=data["dim"], bandwidth=data["bandwidth"], seed=data["seed"])

    @property
    def fingerprint(self) -> str:
        """Names this embedder: a store that it filled refuses the vectors of another."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return f"random-features:{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def __repr__(self) -> str:
        return f"RandomFeatures({self.center.shape}, dim={self.dim}, bandwidth={self.bandwidth:g}, seed={self.seed})"


def default_embedder(space: Any, dim: int) -> RandomFeatures:
    """The embedder of a wrapper that was given none: `RandomFeatures.for_space`, of the store's dimension."""
    return RandomFeatures.for_space(space, dim=dim)


def embed(embedder: ObservationEmbedder, observations: Any, dim: int) -> Floats:
    """Vectors (n, d) of stacked observations, checked.

    Raises:
        ValueError: the embedder gave another shape.
    """
    rows = _coerce.rows("observations", embedder(observations), dim)
    count = len(next(iter(observations.values()))) if isinstance(observations, Mapping) else len(observations)
    if len(rows) != count:
        raise ValueError(f"the embedder gave {len(rows)} vectors for {count} observations")
    return rows


def stack(observations: list[Any]) -> Any:
    """A list of single observations, stacked as `embed` takes them: arrays, or a dict (a tuple) of such."""
    first = observations[0]
    if isinstance(first, Mapping):
        return {key: stack([one[key] for one in observations]) for key in first}
    if isinstance(first, tuple):
        return tuple(stack([one[n] for one in observations]) for n in range(len(first)))
    if isinstance(first, str):
        return list(observations)
    return np.stack([np.asarray(one) for one in observations])
