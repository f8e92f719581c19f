"""A supervised metric: which outcome a text goes with stands beside its meaning.

The cosine of a sentence encoder is mostly about the topic. Two replies about the same parcel are near to one another
though one helps and the other does not, so memories of both answer alike, and their values cancel. `Contrast` learns
from labelled episodes which direction of the embedding goes with their outcome, and puts it beside the embedding.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave._embedder import Embedder, as_embedder, check_texts, fingerprint, unit
from sharpwave._ridge import Ridge

Floats = NDArray[np.float64]


class Contrast:
    """An embedder with a linear discriminant of good and bad texts beside its vectors; rows have unit length.

        s(x) = ⟨a, x⟩ − b                     ridge regression of the label on the embedding x; 0 between the classes
        θ(x) = π/2 · clip(s(x)/scale, −1, 1)
        row  = (x, √w·cos θ, √w·sin θ)/√(1 + w)

    The cosine of two rows is the weighted mean of ⟨x, y⟩ and cos(θ(x) − θ(y)): typical good texts agree there (1), a
    good and a bad one are opposed (−1), and one that is neither is at right angles to both. The arc saturates, so that
    texts in new words, whose s is smaller than that of texts it was fitted to, still reach the same memories.

    Until it is fitted it is the embedder itself: the same rows, the same fingerprint.

    Args:
        embedder: what is asked for the meaning x.
        weight: w, of the discriminant beside a meaning of 1.
        slope, offset, scale: a (d,), b and the scale, as an earlier `fit` left them; None: not fitted.

    Raises:
        ValueError: a weight or scale that is not positive, or a slope that is no finite vector.
    """

    checked_embedder = True

    def __init__(
        self,
        embedder: Any,
        weight: float = 1.0,
        *,
        slope: Sequence[float] | Floats | None = None,
        offset: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        if not (0.0 < weight < math.inf and 0.0 < scale < math.inf and math.isfinite(offset)):
            raise ValueError(f"weight and scale must be positive and finite, got {weight}, {scale} (offset {offset})")
        self.embedder: Embedder = as_embedder(embedder)
        self.weight = float(weight)
        self.slope = None if slope is None else np.array(slope, np.float64)
        if self.slope is not None and (self.slope.ndim != 1 or not np.isfinite(self.slope).all()):
            raise ValueError("slope must be a vector of finite numbers")
        self.offset, self.scale = float(offset), float(scale)

    def fit(self, texts: Sequence[str], good: Sequence[bool] | NDArray[Any]) -> Self:
        """Fit the discriminant to texts and the outcome of the episode that each is a step of.

        The classes count the same, however many texts each has, and the order of the texts does not matter. Where the
        labels of texts that were left out cannot be predicted better than by their mean, nothing is fitted, with a
        warning: the direction would be noise.

        Args:
            texts: (n,) the steps that the policy wrote.
            good: (n,) whether their episodes ended well.

        Raises:
            ValueError: labels that do not fit, or fewer than two texts of a class.
        """
        known = check_texts(texts)
        labels = [bool(one) for one in _coerce.sequence("good", good)]
        if len(labels) != len(known):
            raise ValueError(f"good has {len(labels)} labels for {len(known)} texts")
        pairs = sorted(zip(known, labels, strict=True))  # sums in one order, so that the numbers are the same to a bit
        truth = np.array([label for _, label in pairs], bool)
        if min(truth.sum(), (~truth).sum()) < 2:
            raise ValueError(f"two good and two bad texts are needed, got {truth.sum()} and {(~truth).sum()}")
        rows = unit(self.embedder([text for text, _ in pairs])).astype(np.float64)
        ridge = Ridge(rows, np.where(truth, 1.0, -1.0))
        if ridge.skill <= 0.0:
            self.slope = None
            warnings.warn(
                "the labels cannot be told from the embeddings of the steps, so no contrast was fitted: "
                "give more episodes, or another encoder",
                RuntimeWarning,
                stacklevel=2,
            )
            return self
        slope = ridge.slope
        score = rows @ slope
        self.slope = slope
        self.offset = float((score[truth].mean() + score[~truth].mean()) / 2)
        apart = (score - self.offset) ** 2
        self.scale = math.sqrt((apart[truth].mean() + apart[~truth].mean()) / 2) or 1.0
        return self

    def outcome(self, texts: Sequence[str]) -> Floats:
        """(n,) s/scale of each text: about 1 for a typical good text, −1 for a bad one; 0 until it is fitted."""
        return self._outcome(unit(self.embedder(check_texts(texts))))

    def __call__(self, texts: list[str], /) -> NDArray[np.float32]:
        rows = self.embedder(check_texts(texts))
        if self.slope is None:
            return rows
        rows = unit(rows)
        theta = np.clip(self._outcome(rows), -1.0, 1.0) * (math.pi / 2)
        arc = math.sqrt(self.weight) * np.stack([np.cos(theta), np.sin(theta)], axis=1)
        return unit(np.concatenate([rows, arc], axis=1).astype(np.float32))

    def _outcome(self, rows: NDArray[np.float32]) -> Floats:
        if self.slope is None:
            return np.zeros(len(rows))
        if rows.shape[1] != len(self.slope):
            raise ValueError(f"the slope is for vectors of length {len(self.slope)}, the embedder has {rows.shape[1]}")
        # Summed row by row: a text has the same number alone and in a batch, which a product of matrices leaves open.
        return (np.einsum("nd,d->n", rows.astype(np.float64), self.slope) - self.offset) / self.scale

    @property
    def fingerprint(self) -> str:
        """The embedder's name, and the fitted numbers; `embed.agree` compares two."""
        name = fingerprint(self.embedder)
        if self.slope is None:
            return name
        numbers = np.array([self.weight, self.offset, self.scale, *self.slope]).astype("<f8")
        return f"contrast:{hashlib.sha256(numbers.tobytes()).hexdigest()[:16]}({name})"

    @property
    def config(self) -> dict[str, Any]:
        """Plain data from which `from_config` builds this embedder again, with the fitted numbers."""
        inner: Mapping[str, Any] = self.embedder.config  # type: ignore[attr-defined]
        slope = None if self.slope is None else [float(v) for v in self.slope]
        numbers = {"weight": self.weight, "slope": slope, "offset": self.offset, "scale": self.scale}
        return {"kind": "contrast", "embedder": dict(inner), **numbers}
