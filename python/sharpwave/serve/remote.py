"""A store that lives elsewhere, with the methods of one that lives here.

A `RemoteStore` has the methods of `ValueStore`, made from the table of verbs: each checks its arguments, sends them
over a *link* and restores the result, so that callers see the same types and the same messages. A link carries a verb
and its arguments to a `Service` and brings the answer back; there is one for HTTP (`client.py`) and one for Ray
(`ray.py`).

`RemoteStore` inherits `ValueStore` so that every function that takes a store takes a client as well, for type checkers
and for ``isinstance``. A protocol or a common base class would state the signature of each method a second time, and
code that asks for a `ValueStore` would refuse a client. The usual fault of such inheritance, an inherited method that
looks for a store in this process, cannot occur: the import fails if a public member is not replaced.
"""

from __future__ import annotations

import functools
import inspect
import os
import uuid
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, Protocol, Self

import numpy as np

from sharpwave import _coerce
from sharpwave.config import Config
from sharpwave.serve.verbs import COLUMNS, VERBS, Data, Verb
from sharpwave.store import ValueStore
from sharpwave.view import FrozenView


class Link(Protocol):
    """The way to a `Service`. Whatever goes wrong there is raised here, as the same exception."""

    def call(self, verb: str, arguments: Data) -> Data:
        """The answer of a verb; sent with `key_for` it, a write is done once, however often it has to be sent."""
        ...

    def snapshot(self) -> bytes:
        """`ValueStore.to_bytes` of the store."""
        ...

    def become(self, snapshot: bytes) -> None:
        """`ValueStore.become`, a write."""
        ...

    def close(self) -> None:
        """Let go of connections; the next call makes new ones."""
        ...

    def __str__(self) -> str:
        """Where it leads."""
        ...


def key_for(verb: str) -> str | None:
    """The idempotency key of one request: new for each write, none for a read."""
    return uuid.uuid4().hex if verb == "become" or VERBS[verb].kind == "write" else None


class RemoteStore(ValueStore):
    """The interface of `ValueStore` over a link; see `sharpwave.serve.Client` and `sharpwave.serve.ray.Handle`.

    Every call is at least one message there and back, columns (`keys`, `values`, …) travel whole, and so does the store
    itself for `frozen()`, `save()`, `to_bytes()` and `become()`. ``num_threads=`` is the server's to decide. `close`
    closes connections and leaves the store alone.

    It holds no store: every member of `ValueStore` that would touch one is replaced, which is checked on import.
    """

    __slots__ = ("_link",)
    remote: ClassVar[bool] = True
    _link: Link

    def __init__(self, link: Link) -> None:
        self._link = link
        self._dim, self._path, self._recovery = 0, None, None

    def _ask(self, verb: str, **arguments: Any) -> Data:
        return self._link.call(verb, arguments)

    def _about(self, name: str) -> Any:
        return self._ask("about")[name]

    def __len__(self) -> int:
        return self._about("memories")

    @property
    def dim(self) -> int:
        """d, the length of a step's embedding; asked for once."""
        if not self._dim:
            self._dim = self._about("dim")
        return self._dim

    @property
    def config(self) -> Config:
        """The numbers in force; after `calibrate`, the fitted ones."""
        return Config.from_dict(self._about("config"))

    @property
    def channels(self) -> list[str]:
        """The names of the Q channels, in the order of their columns."""
        return [name for name, _, _, _ in self._about("channels")]

    @property
    def channel_ranges(self) -> dict[str, tuple[float, float]]:
        """The low and high of each channel."""
        return {name: (low, high) for name, _, low, high in self._about("channels")}

    @property
    def scalar_channels(self) -> list[str]:
        """The names of the channels that `drives` feeds, in the order of their columns there."""
        return [name for name, scalar, _, _ in self._about("channels") if scalar]

    @property
    def closed(self) -> bool:
        """False: the next call makes a new connection."""
        return False

    def _writes(self) -> int:
        return self._about("writes")

    # The store as a whole

    def to_bytes(self) -> bytes:
        """A snapshot (safetensors) of the served store."""
        return self._link.snapshot()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a snapshot (safetensors) beside `path`, here, and rename it into place."""
        ValueStore.from_bytes(self.to_bytes()).save(path)

    def frozen(self) -> FrozenView:
        """This moment of the served store, as a copy that lives here."""
        return ValueStore.from_bytes(self.to_bytes()).frozen()

    def become(self, other: ValueStore) -> None:
        """The served store takes over the content of another, which travels there as a snapshot."""
        if not isinstance(other, ValueStore):
            raise TypeError(f"other must be a ValueStore, got {type(other).__name__}")
        self._link.become(other.to_bytes())
        self._dim = 0

    def close(self) -> None:
        """Close the connections; the served store stays open."""
        self._link.close()

    @classmethod
    def open(cls, *_: Any, **__: Any) -> NoReturn:
        """A served store is opened by its server."""
        raise TypeError(f"{cls.__name__} is a store that somebody else has opened: use ValueStore.open there")

    @classmethod
    def load(cls, *_: Any, **__: Any) -> NoReturn:
        """A served store is loaded by its server, or takes over another's content by `become`."""
        raise TypeError(f"{cls.__name__}.load: use ValueStore.load, and become() to send it to the server")

    @classmethod
    def from_bytes(cls, *_: Any, **__: Any) -> NoReturn:
        """As `load`."""
        raise TypeError(f"{cls.__name__}.from_bytes: use ValueStore.from_bytes, and become() to send it to the server")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._link)!r})"


def _method(verb: Verb, method: Callable[..., Any]) -> Callable[..., Any]:
    """The method of a store as a request."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def ask(self: RemoteStore, *arguments: Any, **options: Any) -> Any:
        given = signature.bind(self, *arguments, **options).arguments
        _coerce.threads(given.get("num_threads"))
        return verb.result(self._ask(verb.name, **verb.coerced(self, given)))  # pyright: ignore[reportPrivateUsage]

    return ask


def _column(name: str) -> Callable[[RemoteStore], Any]:
    def ask(self: RemoteStore) -> Any:
        column = self._ask("column", name=name)["column"]  # pyright: ignore[reportPrivateUsage]
        if isinstance(column, np.ndarray):
            column.flags.writeable = False
        return column

    return ask


def _fact(name: str) -> Callable[[RemoteStore], Any]:
    return lambda self: self._about(name)  # pyright: ignore[reportPrivateUsage]


FACTS = ("embedder", "episodes_observed", "episodes_proposed", "blocks", "nbytes", "readonly")
for _verb in VERBS.values():
    if _verb.method is not None:
        setattr(RemoteStore, _verb.name, _method(_verb, _verb.method))
for _name in (*COLUMNS, *FACTS):
    _get = _column(_name) if _name in COLUMNS else _fact(_name)
    setattr(RemoteStore, _name, property(_get, doc=getattr(ValueStore, _name).__doc__))

_SAME = {"path", "recovery", "repair"}
"""Members of `ValueStore` that touch no store in this process: a served one has no path and no recovery here."""
if _left := {name for name in dir(ValueStore) if not name.startswith("_")} - vars(RemoteStore).keys() - _SAME:
    raise TypeError(f"RemoteStore would look for a store in this process: {sorted(_left)}")
