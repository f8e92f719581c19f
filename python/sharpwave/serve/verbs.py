"""The verbs that a served store has: what each takes, what it gives, how it is carried out.

A verb takes the arguments of the method of `ValueStore` that it is named after, by name (``num_threads`` aside: the
server decides), and gives a dict. Whatever a method returns has a place in it: the fields of a report by name; arrays
of a tuple by the names in `RETURNS`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, cast

import numpy as np

from sharpwave import _coerce
from sharpwave.habituation import Habituation
from sharpwave.store import ValueStore

Data = dict[str, Any]
Kind = Literal["read", "batched", "write"]


@dataclass(frozen=True)
class Verb:
    """One thing to ask of a store.

    Attributes:
        kind: "batched" reads are answered together, "write"s one after the other, other reads beside them.
        arguments: their names and defaults; `inspect.Parameter.empty` for one that has to be there.
        summary: the first line of the method's documentation.
    """

    name: str
    kind: Kind
    arguments: dict[str, Any]
    summary: str
    run: Callable[[ValueStore, Data], Data]

    def checked(self, given: Data) -> Data:
        """`given`, if the verb takes these arguments.

        Raises:
            TypeError: one that it does not take, or that is missing.
        """
        for name in given:
            if name not in self.arguments:
                raise TypeError(f"{self.name} takes no argument {name!r}; it takes {list(self.arguments)}")
        for name, default in self.arguments.items():
            if default is inspect.Parameter.empty and given.get(name) is None:
                raise TypeError(f"{self.name} needs {name}")
        return given


RETURNS: dict[str, tuple[str, ...]] = {
    "search": ("ids", "similarity"),
    "value": ("values", "support"),
    "associate": ("ids", "activations"),
    "insert": ("ids",),
    "add_terminal": ("column",),
    "add_channel": ("column",),
    "explain": ("steps",),
    "recall": ("paths",),
    "recall_many": ("paths",),
    "edges": ("source", "target", "weight"),
    "digest": ("digest",),
    "texts": ("texts",),
    "calibrate": (),
    "search_report": (),
    "observe": (),
    "replay": (),
    "score": (),
    "veto": (),
    "flush": (),
    "partition": (),
    "remove_channel": (),
    "bind_embedder": (),
}
BATCHED = ("score", "search", "value")
READS = ("explain", "recall", "recall_many", "associate", "search_report", "edges", "digest")
WRITES = (
    "observe",
    "insert",
    "replay",
    "veto",
    "calibrate",
    "add_terminal",
    "add_channel",
    "remove_channel",
    "bind_embedder",
    "partition",
    "flush",
)
COLUMNS = ("ids", "keys", "values", "drives", "baseline", "counts", "mass", "is_terminal", "texts")


def plain(value: Any) -> Any:
    """Reports become dicts of their fields (those that are None left out), tuples lists; arrays stay."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: plain(item) for name, item in found.items() if item is not None}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in cast("Any", value)._asdict().items()}
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _habituation(given: Any) -> Habituation | None:
    """What a table comes to: the ids of the memories used, how much each was, and η."""
    if given is None or isinstance(given, Habituation):
        return given
    if not isinstance(given, dict) or not {"ids", "uses", "eta"} >= set(given) >= {"ids", "uses"}:
        raise TypeError("habituation must be an object with ids, uses and eta")
    ids = _coerce.integers("habituation.ids", given["ids"])
    uses = np.asarray(given["uses"], np.float64)
    if ids.ndim != 1 or uses.shape != ids.shape or not np.isfinite(uses).all():
        raise ValueError("habituation: ids and uses must be finite numbers, as many of one as of the other")
    eta = _coerce.number("habituation.eta", given.get("eta", 1.0))
    return Habituation.from_dict({"episodes": 1, "eta": eta, "recent": [[ids, uses]]})


def _observed(drives: Any) -> Any:
    """Drives with NaN where JSON, which has none, says null: nothing was observed there."""

    def row(given: Any) -> Any:
        return [math.nan if one is None else one for one in given] if isinstance(given, list) else given

    if isinstance(drives, dict):
        return {name: row(column) for name, column in drives.items() if column is not None}
    return [row(one) for one in row(drives)] if isinstance(drives, list) else drives


def _run(name: str) -> Callable[[ValueStore, Data], Data]:
    names = RETURNS[name]

    def run(store: ValueStore, arguments: Data) -> Data:
        if "habituation" in arguments:
            arguments = {**arguments, "habituation": _habituation(arguments["habituation"])}
        if "drives" in arguments:
            arguments = {**arguments, "drives": _observed(arguments["drives"])}
        found = getattr(store, name)(**arguments)
        if not names:
            return plain(found) or {}
        if len(names) == 1:
            return {names[0]: plain(found)}
        return dict(zip(names, found, strict=True))

    return run


def _verb(name: str, kind: Kind) -> Verb:
    method = getattr(ValueStore, name)
    taken = list(inspect.signature(method).parameters.values())[1:]
    arguments = {taking.name: taking.default for taking in taken if taking.name != "num_threads"}
    return Verb(name, kind, arguments, inspect.getdoc(method).split("\n")[0], _run(name))  # pyright: ignore[reportOptionalMemberAccess]


def _about(store: ValueStore, _: Data) -> Data:
    ranges, scalar = store.channel_ranges, set(store.scalar_channels)
    return {
        "memories": len(store),
        "dim": store.dim,
        "channels": [[name, name in scalar, low, high] for name, (low, high) in ranges.items()],
        "config": store.config.to_dict(),
        "embedder": store.embedder,
        "episodes_observed": store.episodes_observed,
        "episodes_proposed": store.episodes_proposed,
        "blocks": store.blocks,
        "nbytes": store.nbytes,
        "readonly": store.readonly,
        "writes": store._core.writes(),  # pyright: ignore[reportPrivateUsage]
        "path": None if store.path is None else str(store.path),
    }


def _column(store: ValueStore, arguments: Data) -> Data:
    name = arguments["name"]
    if name not in COLUMNS:
        raise KeyError(f"no column {name!r}, there are {list(COLUMNS)}")
    return {"column": getattr(store, name)}


def _keys_of(store: ValueStore, arguments: Data) -> Data:
    return {"keys": store.keys_of(arguments["ids"])}


def _terminals(store: ValueStore, _: Data) -> Data:
    return {"ids": store._core.terminals()}  # pyright: ignore[reportPrivateUsage]


def _terminal_key(store: ValueStore, arguments: Data) -> Data:
    return {"key": store.terminal_key(arguments["name"])}


NEEDED = inspect.Parameter.empty
VERBS: dict[str, Verb] = {
    **{name: _verb(name, "batched") for name in BATCHED},
    **{name: _verb(name, "read") for name in READS},
    "about": Verb("about", "read", {}, "Everything that is one number or a name.", _about),
    "column": Verb("column", "read", {"name": NEEDED}, "One column of the memories, in the order of `ids`.", _column),
    "keys_of": Verb("keys_of", "read", {"ids": NEEDED}, "(n, d) the keys of some memories.", _keys_of),
    "terminals": Verb("terminals", "read", {}, "(Q,) the memory that holds each channel's key, or -1.", _terminals),
    "terminal_key": Verb("terminal_key", "read", {"name": NEEDED}, "(d,) the key of a channel.", _terminal_key),
    **{name: _verb(name, "write") for name in WRITES},
}
"""By name."""
