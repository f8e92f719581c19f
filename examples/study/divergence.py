"""How far a batch is from the base model in embedding space, for the arms that pay for staying near."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sharpwave.divergence import Reference, mmd

from examples.study.setting import Batch, Setting

Floats = NDArray[np.float64]


class FromBase:
    """Each sample's share of the squared MMD of its group from the base completions of the same opening."""

    def __init__(self, setting: Setting) -> None:
        self.references = {
            opening: Reference(setting.batch([opening] * len(texts), texts, len(texts)).whole)
            for opening, texts in setting.reference.items()
        }

    def __call__(self, batch: Batch) -> Floats:
        """(B,) the shares."""
        out = np.zeros(len(batch.completions))
        for first in range(0, len(out), batch.copies):
            group = slice(first, first + batch.copies)
            out[group] = mmd(batch.whole[group], self.references[batch.openings[first]]).per_sample
        return out
