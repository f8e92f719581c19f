"""The other three remedies against a policy that runs away from its base, as tools for one's own runs.

blending.py      remedy 2: between the tuned checkpoint and the base, linearly or on the sphere
adapters.py      … the same for LoRA adapters
blend_search.py  … which blend is best by a measure of one's own
ema.py           … an average of the weights along the run (needs transformers)
drift.py         how far samples are from the base's: distance, support, repetition, parts of the reward at odds
early_stop.py    remedy 1: stop, and go back, when they leave it (needs transformers)
base_draws.py    remedy 3: base samples for prompts that have none
best_of_n.py     before training: what the best of n samples by a reward is worth
tensors.py, parts.py   what these stand on: safetensors in pieces; the parts of a reward and their start

Remedy 3 itself, the divergence in embedding space, is `sharpwave.divergence` and a weight of
`sharpwave.InstrumentalReward`; the fourth is that reward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sharpwave.remedies.adapters import blend_adapters
from sharpwave.remedies.base_draws import draw_base
from sharpwave.remedies.best_of_n import BestOf, Curve, best_of
from sharpwave.remedies.blend_search import Blends, Point, search
from sharpwave.remedies.blending import blend
from sharpwave.remedies.drift import LIMITS, Drift

if TYPE_CHECKING:
    from sharpwave.remedies.early_stop import EarlyStop
    from sharpwave.remedies.ema import Ema

__all__ = [
    "LIMITS",
    "BestOf",
    "Blends",
    "Curve",
    "Drift",
    "EarlyStop",
    "Ema",
    "Point",
    "best_of",
    "blend",
    "blend_adapters",
    "draw_base",
    "search",
]


def __getattr__(name: str) -> Any:
    """The callbacks, imported when they are asked for: they need transformers."""
    if name == "EarlyStop":
        from sharpwave.remedies.early_stop import EarlyStop

        return EarlyStop
    if name == "Ema":
        from sharpwave.remedies.ema import Ema

        return Ema
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
