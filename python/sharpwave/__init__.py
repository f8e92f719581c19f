"""sharpwave: a value memory for reinforcement learning.

Importing it imports NumPy and nothing else: no threads, no CPU check, no torch. The names below that need more
are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sharpwave._core import (
    EmbedderError,
    FormatError,
    __version__,
    cpu_features,
    get_num_threads,
    set_num_threads,
)
from sharpwave.config import Config
from sharpwave.habituation import Habituation
from sharpwave.results import (
    Association,
    Explanation,
    ObserveReport,
    Path,
    Payment,
    Recovery,
    Repair,
    ReplayReport,
    Scores,
    SearchReport,
)
from sharpwave.store import ValueStore
from sharpwave.view import FrozenView

if TYPE_CHECKING:
    from sharpwave import embed, episodes, text
    from sharpwave.reward import InstrumentalReward, Weights
    from sharpwave.tuning import Trial, Tuned, tune

__all__ = [
    "Association",
    "Config",
    "EmbedderError",
    "Explanation",
    "FormatError",
    "FrozenView",
    "Habituation",
    "InstrumentalReward",
    "ObserveReport",
    "Path",
    "Payment",
    "Recovery",
    "Repair",
    "ReplayReport",
    "Scores",
    "SearchReport",
    "Trial",
    "Tuned",
    "ValueStore",
    "Weights",
    "__version__",
    "cpu_features",
    "embed",
    "episodes",
    "get_num_threads",
    "set_num_threads",
    "text",
    "tune",
]

_MODULES = {
    "divergence",
    "embed",
    "episodes",
    "integrations",
    "interop",
    "remedies",
    "reward",
    "serve",
    "text",
    "torch",
    "viz",
}
_NAMES = {
    "InstrumentalReward": "sharpwave.reward",
    "Weights": "sharpwave.reward",
    "Trial": "sharpwave.tuning",
    "Tuned": "sharpwave.tuning",
    "tune": "sharpwave.tuning",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"sharpwave.{name}")
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'sharpwave' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
