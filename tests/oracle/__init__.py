"""The model of docs/model.md in NumPy, written to be read: the specification that the Rust core is compared with.

Nothing here is fast and nothing here comes from the core. One file is one idea:

* `arithmetic`  the canonical dot product, normalising, the activation kernel, quantiles;
* `memory`      what a store knows: memories, sums of associations, channels, counters;
* `writing`     an episode is written: gate, associate, evict, awake replay (model.md §3 and §4);
* `valuing`     the two value equations and the three orders of replay (§5);
* `scoring`     Φ, the gates, the functionals, explain and recall (§6);
* `store`       `Oracle`, the verbs of `sharpwave.ValueStore`, with the log that `veto` replays.
"""

from oracle.memory import Settings
from oracle.scoring import Explanation, Habituation, Path, Scores, View
from oracle.store import Oracle, Replay, Report

__all__ = [
    "Explanation",
    "Habituation",
    "Oracle",
    "Path",
    "Replay",
    "Report",
    "Scores",
    "Settings",
    "View",
]
