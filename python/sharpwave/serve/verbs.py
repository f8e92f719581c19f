"""The table of verbs. The routes of the server, the documentation of the API and the clients are made from it.

Most verbs are methods of `ValueStore`. An entry names the method, says whether it reads or writes, and names what it
returns, where the return type has no names. The rest is read from the method when this module is imported: arguments,
defaults and the type of the result from its signature, the summary from its docstring. A public method that is neither
in the table nor in `NOT_SERVED`, an argument that cannot be sent, and a result without names are errors of the import.

``num_threads`` is not sent: the server decides.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave.habituation import Habituation
from sharpwave.results import OUTCOMES
from sharpwave.store import ValueStore

Data = dict[str, Any]
Kind = Literal["read", "batched", "write"]
Schema = dict[str, Any]
REQUIRED = inspect.Parameter.empty


# Arguments


class Form(NamedTuple):
    """How an argument travels.

    Attributes:
        schema: its JSON schema.
        coerced: what is sent for it, given the store, the value, and the arguments before it as they are sent.
    """

    schema: Schema
    coerced: Callable[[ValueStore, Any, Data], Any]


def _ends_and_rows(sent: Data) -> tuple[NDArray[np.int64], int]:
    """Where the episodes begin, and how many rows there are; each of `keys` stands alone."""
    if "keys" in sent:
        return np.arange(len(sent["keys"]) + 1), len(sent["keys"])
    return _coerce.offsets(sent.get("offsets"), len(sent["steps"])), len(sent["steps"])


def _fingerprint(store: ValueStore, given: Any, _: Data) -> str:
    from sharpwave._names import bound_name

    return bound_name(store, given if callable(given) else _coerce.string("fingerprint", given))


def _habituation_sent(_: ValueStore, given: Any, __: Data) -> Any:
    if not isinstance(given, Habituation | dict):
        raise TypeError(f"habituation must be a Habituation, got {type(given).__name__}")
    if isinstance(given, dict):
        return cast("Data", given)
    ids, uses = given.uses()
    return {"ids": ids, "uses": uses, "eta": given.eta}


_NUMBERS: Schema = {"type": "array", "items": {"type": "number"}}
_INTEGERS: Schema = {"type": "array", "items": {"type": "integer"}}
_ROWS: Schema = {"type": "array", "items": _NUMBERS, "description": "(n, d), one row a step"}
_NAMED: Schema = {"type": "object", "additionalProperties": {"type": "number"}}
_TABLE: Schema = {"ids": _INTEGERS, "uses": _NUMBERS, "eta": {"type": "number"}}

FORMS: dict[str, Form] = {
    "steps": Form(_ROWS, lambda store, given, _: _coerce.rows("steps", given, store.dim)),
    "keys": Form(_ROWS, lambda store, given, _: _coerce.rows("keys", given, store.dim)),
    "queries": Form(_ROWS, lambda store, given, _: _coerce.batch("queries", given, store.dim)),
    "key": Form(_NUMBERS, lambda store, given, _: _coerce.vector("key", given, store.dim)),
    "query": Form(_NUMBERS, lambda store, given, _: _coerce.vector("query", given, store.dim)),
    "ids": Form(_INTEGERS, lambda _, given, __: _coerce.integers("ids", given).ravel()),
    "episodes": Form(_INTEGERS, lambda _, given, __: _coerce.integers("episodes", given).ravel()),
    "offsets": Form(
        {**_INTEGERS, "description": "(E+1,) where each episode begins in `steps`; one episode by default"},
        lambda _, given, sent: _coerce.offsets(given, len(sent["steps"])),
    ),
    "drives": Form(
        {"anyOf": [_ROWS, {"type": "object", "additionalProperties": _NUMBERS}]},
        lambda store, given, sent: _coerce.drives(given, store.scalar_channels, *_ends_and_rows(sent)),
    ),
    "texts": Form(
        {"type": "array", "items": {"type": ["string", "null"]}},
        lambda _, given, sent: _coerce.texts("texts", given, _ends_and_rows(sent)[-1]),
    ),
    "episode_ids": Form(
        _INTEGERS, lambda _, given, sent: _coerce.per_episode("episode_ids", given, len(_ends_and_rows(sent)[0]) - 1)
    ),
    "weights": Form(
        {"anyOf": [_NUMBERS, _NAMED], "description": "(Q,) or by the name of a channel; equal by default"},
        lambda store, given, _: _coerce.weights(given, store.channels),
    ),
    "context": Form(
        {"anyOf": [{"type": "boolean"}, {"type": "integer"}, _INTEGERS], "description": "leading steps of the prompt"},
        lambda _, given, sent: _coerce.context(given, len(_ends_and_rows(sent)[0]) - 1),
    ),
    "habituation": Form({"type": "object", "properties": _TABLE, "required": ["ids", "uses"]}, _habituation_sent),
    "where": Form(_INTEGERS, lambda _, given, __: _coerce.integers("where", given).ravel()),
    "need": Form(
        {"anyOf": [{"enum": ["frequency", "uniform"]}, _INTEGERS]},
        lambda _, given, __: given if isinstance(given, str) else _coerce.integers("need", given).ravel(),
    ),
    "fingerprint": Form({"type": "string"}, _fingerprint),
}
"""By name: the arguments that are more than one number, flag or word."""

SIZES = frozenset({"k", "depth", "beams", "cleanup"})
"""Whole numbers of a read that multiply the length of its answer."""
NO_SIZES = frozenset({"steps", "nprobe", "memory", "episode", "seeds", "power"})
"""Those that do not."""

SCALARS: dict[Any, tuple[str, Callable[[str, Any], Any]]] = {
    bool: ("boolean", _coerce.flag),
    int: ("integer", _coerce.whole),
    float: ("number", _coerce.number),
    str: ("string", _coerce.string),
}


def _form(verb: str, name: str, hint: Any, default: Any) -> Form:
    """The form of an argument: that of its type if it is one number, flag or word, else that of its name."""
    known = {} if default in (None, REQUIRED) else {"default": default}
    kind = _without_none(hint)
    if kind in SCALARS:
        word, coerced = SCALARS[kind]
        return Form({"type": word, **known}, lambda _, given, __: coerced(name, given))
    if get_origin(kind) is Literal:
        return Form({"enum": list(get_args(kind)), **known}, lambda _, given, __: _coerce.string(name, given))
    if name not in FORMS:
        raise TypeError(f"{verb}: FORMS does not say how {name!r} ({hint}) is sent")
    return FORMS[name]


# Results


def packed(value: Any) -> Any:
    """Reports become dicts of their fields (those that are None left out), tuples lists; arrays stay."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: packed(item) for name, item in found.items() if item is not None}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: packed(item) for name, item in cast("Any", value)._asdict().items()}
    if isinstance(value, dict):
        return {name: packed(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [packed(item) for item in value]
    return value


def restored(hint: Any, value: Any) -> Any:
    """The inverse of `packed`, for a value that was of this type."""
    kind = _without_none(hint)
    if value is None or kind is type(None):
        return None
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        hints = _hints_of(cast("type", kind))
        return cast("Any", kind)(**{name: restored(of, value.get(name)) for name, of in hints.items()})
    inner = get_args(kind)
    if get_origin(kind) is list:
        return [restored(inner[0], item) for item in value]
    if get_origin(kind) is tuple:
        return tuple(value)
    if get_origin(kind) is np.ndarray and isinstance(value, list):  # of words, which travel as JSON
        return np.array(value, np.array(OUTCOMES).dtype)
    return value


@functools.cache
def _hints_of(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _without_none(hint: Any) -> Any:
    """X of `X | None`; other types as they are."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if get_origin(hint) in (Union, types.UnionType) and len(kinds) == 1 else hint


# Verbs


@dataclass(frozen=True)
class Verb:
    """One request that a served store answers.

    Attributes:
        kind: "batched" reads are answered together, "write"s one after the other, other reads beside them.
        arguments: their names and defaults; `REQUIRED` for one without.
        forms: how each argument travels.
        summary: the first line of the documentation.
        run: carries it out.
        method: of `ValueStore`; None for a verb that is no method of it.
        returns: the type of what the method returns.
        names: what the entries of a tuple, or the one value that is returned, are called; none if the type has names.
    """

    name: str
    kind: Kind
    arguments: dict[str, Any]
    forms: dict[str, Form]
    summary: str
    run: Callable[[ValueStore, Data], Data]
    method: Callable[..., Any] | None = None
    returns: Any = None
    names: tuple[str, ...] = ()

    def checked(self, given: Data) -> Data:
        """`given`, if the verb takes these arguments.

        Raises:
            TypeError: an argument that it does not take, or one that is missing.
        """
        for name in given:
            if name not in self.arguments:
                raise TypeError(f"{self.name} takes no argument {name!r}; it takes {list(self.arguments)}")
        for name, default in self.arguments.items():
            if default is REQUIRED and given.get(name) is None:
                raise TypeError(f"{self.name} needs {name}")
        return given

    def coerced(self, store: ValueStore, given: Data) -> Data:
        """All arguments in the form in which they are sent, defaults included; those that are None are left out.

        Raises:
            TypeError, ValueError, KeyError: naming the argument.
        """
        sent: Data = {}
        for name, default in self.arguments.items():
            value = given.get(name, default)
            if value is not None or default is not None:
                sent[name] = self.forms[name].coerced(store, value, sent)
        return sent

    def size(self, given: Data) -> int:
        """How many numbers the answer has at most, for each array that it holds: rows of queries times `SIZES`."""
        queries = given.get("queries")
        rows = len(queries) if isinstance(queries, list) or (isinstance(queries, np.ndarray) and queries.ndim) else 1
        numbers = [given.get(name, self.arguments[name]) for name in SIZES & self.arguments.keys()]
        return rows * math.prod(max(n, 1) for n in numbers if isinstance(n, int) and not isinstance(n, bool))

    def result(self, found: Data) -> Any:
        """What the method returns, from what `run` gave."""
        if not self.names:
            return restored(self.returns, found)
        if len(self.names) == 1:
            return restored(self.returns, found[self.names[0]])
        return tuple(found[name] for name in self.names)


def _habituation(given: Any) -> Habituation | None:
    """A table from the ids of the memories that were used, how much each was, and η."""
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
    """Drives with NaN for null in JSON, which has no NaN: nothing was observed there."""

    def row(given: Any) -> Any:
        return [math.nan if one is None else one for one in given] if isinstance(given, list) else given

    if isinstance(drives, dict):
        return {name: row(column) for name, column in drives.items() if column is not None}
    return [row(one) for one in row(drives)] if isinstance(drives, list) else drives


_UNTYPED: dict[str, Any] = {"Array": Any, "Weights": Any, "Embedder": Any, "Mapping": Mapping}
"""Names in signatures of the store that exist for type checkers only."""


def _of_method(kind: Kind, name: str, names: tuple[str, ...]) -> Verb:
    method = getattr(ValueStore, name)
    hints = get_type_hints(method, localns=_UNTYPED)
    taken = [one for one in inspect.signature(method).parameters.values() if one.name not in ("self", "num_threads")]
    forms = {one.name: _form(name, one.name, hints[one.name], one.default) for one in taken}
    whole = {one.name for one in taken if _without_none(hints[one.name]) is int}
    if kind != "write" and (unknown := whole - SIZES - NO_SIZES):
        raise TypeError(f"{name}: neither SIZES nor NO_SIZES says whether {sorted(unknown)} lengthen the answer")
    returns = hints["return"]
    named = returns is type(None) or is_dataclass(returns) or get_origin(returns) is dict
    if len(names) != (0 if named else len(get_args(returns)) if get_origin(returns) is tuple else 1):
        raise TypeError(f"{name}: {names} does not name what it returns, {returns}")

    def run(store: ValueStore, arguments: Data) -> Data:
        if "habituation" in arguments:
            arguments = {**arguments, "habituation": _habituation(arguments["habituation"])}
        if "drives" in arguments:
            arguments = {**arguments, "drives": _observed(arguments["drives"])}
        found = getattr(store, name)(**arguments)
        if not names:
            return packed(found) or {}
        if len(names) == 1:
            return {names[0]: packed(found)}
        return dict(zip(names, found, strict=True))

    summary = (inspect.getdoc(method) or "").split("\n")[0]
    return Verb(name, kind, {one.name: one.default for one in taken}, forms, summary, run, method, returns, names)


ABOUT: dict[str, Callable[[ValueStore], Any]] = {
    "memories": len,
    "dim": lambda store: store.dim,
    "channels": lambda store: [
        [name, name in store.scalar_channels, low, high] for name, (low, high) in store.channel_ranges.items()
    ],
    "config": lambda store: store.config.to_dict(),
    "embedder": lambda store: store.embedder,
    "episodes_observed": lambda store: store.episodes_observed,
    "episodes_proposed": lambda store: store.episodes_proposed,
    "blocks": lambda store: store.blocks,
    "nbytes": lambda store: store.nbytes,
    "readonly": lambda store: store.readonly,
    "writes": lambda store: store._writes(),  # pyright: ignore[reportPrivateUsage]
    "path": lambda store: None if store.path is None else str(store.path),
}
"""What the verb ``about`` gives."""
COLUMNS = ("ids", "keys", "values", "drives", "baseline", "counts", "mass", "is_terminal", "texts")
"""What the verb ``column`` gives, by name."""


def _about(store: ValueStore, _: Data) -> Data:
    return {name: found(store) for name, found in ABOUT.items()}


def _column(store: ValueStore, arguments: Data) -> Data:
    name = arguments["name"]
    if name not in COLUMNS:
        raise KeyError(f"no column {name!r}, there are {list(COLUMNS)}")
    return {"column": getattr(store, name)}


def _terminals(store: ValueStore, _: Data) -> Data:
    return {"ids": store._core.terminals()}  # pyright: ignore[reportPrivateUsage]


def _other(name: str, arguments: tuple[str, ...], summary: str, run: Callable[[ValueStore, Data], Data]) -> Verb:
    forms = {one: _form(name, one, str, REQUIRED) for one in arguments}
    return Verb(name, "read", dict.fromkeys(arguments, REQUIRED), forms, summary, run)


METHODS: tuple[tuple[Kind, str, tuple[str, ...]], ...] = (
    ("batched", "score", ()),
    ("batched", "search", ("ids", "similarity")),
    ("batched", "value", ("values", "support")),
    ("read", "explain", ("steps",)),
    ("read", "recall", ("paths",)),
    ("read", "recall_many", ("paths",)),
    ("read", "associate", ("ids", "activations")),
    ("read", "search_report", ()),
    ("read", "episodes", ("episodes",)),
    ("read", "provenance", ("origins",)),
    ("read", "without", ()),
    ("read", "edges", ("source", "target", "weight")),
    ("read", "keys_of", ("keys",)),
    ("read", "terminal_key", ("key",)),
    ("read", "digest", ("digest",)),
    ("write", "observe", ()),
    ("write", "insert", ("ids",)),
    ("write", "replay", ()),
    ("write", "veto", ()),
    ("write", "checkpoint", ()),
    ("write", "calibrate", ()),
    ("write", "add_terminal", ("column",)),
    ("write", "add_channel", ("column",)),
    ("write", "remove_channel", ()),
    ("write", "bind_embedder", ()),
    ("write", "partition", ()),
    ("write", "flush", ()),
)
"""A verb is one line here: what it does to the store, its method, and the names of what it returns."""
NOT_SERVED = {"open", "load", "from_bytes", "repair", "save", "to_bytes", "frozen", "become", "close"}
"""Methods that are not verbs: they concern files, processes, or the store as a whole."""

VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        *(_of_method(*row) for row in METHODS),
        _other("about", (), "Everything that is one number or a name.", _about),
        _other("column", ("name",), "One column of the memories, in the order of `ids`.", _column),
        _other("terminals", (), "(Q,) the memory that holds each channel's key, or -1.", _terminals),
    )
}
"""By name."""

METHODS_OF_STORE = {name for name, _ in inspect.getmembers(ValueStore, callable) if not name.startswith("_")}
if unserved := METHODS_OF_STORE ^ NOT_SERVED ^ {name for _, name, _ in METHODS}:
    raise TypeError(f"methods of ValueStore must be either in METHODS or in NOT_SERVED: {sorted(unserved)}")
