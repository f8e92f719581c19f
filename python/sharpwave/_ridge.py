"""Ridge regression whose penalty is chosen by leave-one-out error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PENALTIES = 10.0 ** np.arange(-5, 3)
"""Of the mean squared singular value of the centred rows."""


class Ridge:
    """Ridge regression of ``target`` (n,) on ``rows`` (n, d), with an intercept.

    The penalty is the one of `PENALTIES` with the least leave-one-out error, in closed form (Golub, Heath & Wahba 1979,
    https://doi.org/10.1080/00401706.1979.10489751, the PRESS of their section 1).

    Attributes:
        centre, offset: the means of the rows (d,) and of the target.
        slope: (d,)
        skill: 1 − leave-one-out error / variance of the target: 1 predicts rows that it has not seen exactly, 0 and
            below no better than the mean.
    """

    def __init__(self, rows: Floats, target: Floats) -> None:
        self.centre, self.offset = rows.mean(axis=0), float(target.mean())
        u, s, vt = np.linalg.svd(rows - self.centre, full_matrices=False)
        y = target - self.offset
        best, self.slope = np.inf, np.zeros(rows.shape[1])
        for penalty in PENALTIES * float((s**2).mean() or 1.0):
            shrink = s**2 / (s**2 + penalty)
            fitted = u @ (shrink * (u.T @ y))
            left = 1.0 - np.einsum("nd,d,nd->n", u, shrink, u) - 1.0 / len(y)
            error = float((((y - fitted) / np.maximum(left, 1e-9)) ** 2).mean())
            if error < best:
                best, self.slope = error, vt.T @ (s / (s**2 + penalty) * (u.T @ y))
        spread = float((y**2).mean())
        self.skill = 1.0 - best / spread if spread else 0.0

    def __call__(self, rows: Floats) -> Floats:
        """(n,) what is predicted of each row."""
        return (rows - self.centre) @ self.slope + self.offset
