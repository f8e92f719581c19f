"""Several embedders as one: what each of them sees, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._embedder import Embedder, as_embedder, check_texts, fingerprint, unit


class Joined:
    """Rows of several embedders beside one another; rows have unit length.

    Part n is scaled by √(w_n/Σw), so that the cosine of two joined rows is the weighted mean of the parts' cosines:

        ⟨x, y⟩ = Σ_n w_n ⟨x_n, y_n⟩ / Σ_n w_n

    Args:
        parts: the embedders.
        weights: positive, one a part; by default all the same.

    Raises:
        ValueError: no part, or weights that do not fit or are not positive.
    """

    checked_embedder = True

    def __init__(self, parts: Sequence[Any], weights: Sequence[float] | None = None) -> None:
        self.parts: tuple[Embedder, ...] = tuple(as_embedder(p) for p in parts)
        self.weights = tuple(1.0 for _ in parts) if weights is None else tuple(float(w) for w in weights)
        if not self.parts:
            raise ValueError("a joined embedder needs at least one part")
        if len(self.weights) != len(self.parts) or not all(0.0 < w < float("inf") for w in self.weights):
            raise ValueError(f"weights must be one positive number a part, got {self.weights} for {len(parts)} parts")

    @property
    def fingerprint(self) -> str:
        """The parts' names and weights."""
        named = (f"{w!r}*{fingerprint(p)}" for w, p in zip(self.weights, self.parts, strict=True))
        return f"joined({' + '.join(named)})"

    @property
    def config(self) -> dict[str, Any]:
        """Plain data from which `from_config` builds this embedder again."""
        parts: list[Mapping[str, Any]] = [p.config for p in self.parts]  # type: ignore[attr-defined]
        return {"kind": "joined", "parts": [dict(p) for p in parts], "weights": list(self.weights)}

    def __call__(self, texts: list[str], /) -> NDArray[np.float32]:
        texts = check_texts(texts)
        share = np.sqrt(np.array(self.weights) / sum(self.weights))
        rows = [s * unit(p(texts)) for s, p in zip(share, self.parts, strict=True)]
        return unit(np.concatenate(rows, axis=1).astype(np.float32))
