"""sharpwave: a value memory for reinforcement learning.

Importing it imports the compiled core and nothing else: no threads, no CPU check, no torch. NumPy, which a name below
may need, is imported when that name is first used.
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

if TYPE_CHECKING:
    from sharpwave import embed, episodes, text
    from sharpwave.config import Config
    from sharpwave.guide import Guide
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
    from sharpwave.reward import InstrumentalReward, Weights
    from sharpwave.store import ValueStore
    from sharpwave.tuning import Trial, Tuned, tune
    from sharpwave.view import FrozenView

__all__ = [
    "Association",
    "Config",
    "EmbedderError",
    "Explanation",
    "FormatError",
    "FrozenView",
    "Guide",
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
    "config",
    "divergence",
    "embed",
    "episodes",
    "guide",
    "habituation",
    "integrations",
    "interop",
    "remedies",
    "results",
    "reward",
    "serve",
    "store",
    "text",
    "torch",
    "view",
    "viz",
}
_NAMES = {
    "config": ["Config"],
    "guide": ["Guide"],
    "habituation": ["Habituation"],
    "results": [
        "Association",
        "Explanation",
        "ObserveReport",
        "Path",
        "Payment",
        "Recovery",
        "Repair",
        "ReplayReport",
        "Scores",
        "SearchReport",
    ],
    "reward": ["InstrumentalReward", "Weights"],
    "store": ["ValueStore"],
    "tuning": ["Trial", "Tuned", "tune"],
    "view": ["FrozenView"],
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"sharpwave.{name}")
    if name in _MODULE_OF:
        found = globals()[name] = getattr(import_module(f"sharpwave.{_MODULE_OF[name]}"), name)
        return found
    raise AttributeError(f"module 'sharpwave' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
