"""A store that lives elsewhere, with the methods of one that lives here.

`ValueStore` checks its arguments, asks its core, and words the answer. `RemoteStore` is a `ValueStore` whose core asks
a *link* instead: the same methods, the same types, the same messages. A link carries a verb and its arguments to a
`Service` and brings the answer back; there is one for HTTP (`client.py`) and one for Ray (`ray.py`).
"""

from __future__ import annotations

import json
import uuid
from typing import Any, ClassVar, NoReturn, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from sharpwave import _core
from sharpwave.results import OUTCOMES
from sharpwave.serve.verbs import VERBS, Data
from sharpwave.store import ValueStore


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


class RemoteCore:
    """What `_core.Store` is to a `ValueStore`, at the other end of a link."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def _about(self, name: str) -> Any:
        return self.link.call("about", {})[name]

    def _column(self, name: str) -> Any:
        return self.link.call("column", {"name": name})["column"]

    # Scoring

    def search(
        self, queries: NDArray[np.float32], k: int, nprobe: int | None, _: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        found = self.link.call("search", _given(queries=queries, k=k, nprobe=nprobe))
        return found["ids"], found["similarity"]

    def search_report(self, queries: NDArray[np.float32], k: int, nprobe: int | None, _: int | None) -> Data:
        return self.link.call("search_report", _given(queries=queries, k=k, nprobe=nprobe))

    def value(self, queries: NDArray[np.float32], _: int | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        found = self.link.call("value", {"queries": queries})
        return found["values"], found["support"]

    def score(self, *, details: bool, num_threads: int | None, **arguments: Any) -> Data:  # noqa: ARG002
        found = self.link.call("score", _scored(details=details or None, **arguments))
        return {name: array for name, array in found.items() if name not in ("offsets", "context")}

    def explain(self, **arguments: Any) -> list[tuple[Any, ...]]:
        return [
            (
                step["pay"],
                step["support"],
                step["edge"],
                step["redundancy"],
                [
                    (m["id"], m["phi"], m["gain"], m["advantage"], m["pay"], m["terminal"], m.get("text"))
                    for m in step["memories"]
                ],
                list(step["channels"].values()),
                [(a["source"], a["target"], a["weight"], a["agreement"]) for a in step["associations"]],
            )
            for step in self.link.call("explain", _scored(**arguments))["steps"]
        ]

    def recall(
        self,
        queries: NDArray[np.float32],
        depth: int,
        beams: int,
        weights: NDArray[np.float64] | None,
        cleanup: int,
        distinct: bool,
        _: int | None,
    ) -> list[list[tuple[Any, ...]]]:
        given = _given(queries=queries, depth=depth, beams=beams, weights=weights, cleanup=cleanup, distinct=distinct)
        found = self.link.call("recall_many", given)["paths"]
        return [[(p["ids"], p["score"], p["values"], p["texts"]) for p in paths] for paths in found]

    def associate(
        self, queries: NDArray[np.float32], steps: int, damping: float, k: int, _: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        found = self.link.call("associate", {"queries": queries, "steps": steps, "damping": damping, "k": k})
        return found["ids"], found["activations"]

    # Writing

    def _write(self, verb: str, **arguments: Any) -> Data:
        return self.link.call(verb, _given(**arguments))

    def observe(
        self,
        steps: NDArray[np.float32],
        offsets: NDArray[np.int64],
        drives: NDArray[np.float32] | None,
        texts: list[str | None] | None,
        episode_ids: NDArray[np.int64] | None,
        source: str | None,
        propose: bool,
    ) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.int64], int]:
        given = {"steps": steps, "offsets": offsets, "drives": drives, "texts": texts, "episode_ids": episode_ids}
        found = self._write("observe", **given, source=source, propose=propose)
        outcome = np.array([OUTCOMES.index(one) for one in found["outcome"]], np.intp)
        return found["memory_ids"], outcome, found["episode_ids"], found["backups"]

    def insert(
        self, keys: NDArray[np.float32], drives: NDArray[np.float32] | None, texts: list[str | None] | None
    ) -> NDArray[np.int64]:
        return self._write("insert", keys=keys, drives=drives, texts=texts)["ids"]

    def replay(
        self,
        budget: int | None,
        seconds: float | None,
        tol: float,
        order: str,
        need: str | NDArray[np.int64],
        floor: float,
        extend: bool,
        consolidate: bool,
        max_drift: float | None,
        _: int | None,
    ) -> Data:
        given = {"budget": budget, "seconds": seconds, "tol": tol, "order": order, "need": need}
        given |= {"floor": floor, "extend": extend, "consolidate": consolidate, "max_drift": max_drift}
        found = self._write("replay", **given)
        return {"drift": None, **found, "trail": tuple(found["trail"])}

    def veto(self, memory: int | None, episode: int | None) -> None:
        self._write("veto", memory=memory, episode=episode)

    def calibrate(self, steps: NDArray[np.float32], offsets: NDArray[np.int64]) -> dict[str, float]:
        return self._write("calibrate", steps=steps, offsets=offsets)

    def add_terminal(self, name: str, key: NDArray[np.float32], low: float | None, high: float | None) -> int:
        return self._write("add_terminal", name=name, key=key, low=low, high=high)["column"]

    def add_channel(self, name: str, low: float, high: float) -> int:
        return self._write("add_channel", name=name, low=low, high=high)["column"]

    def remove_channel(self, name: str) -> None:
        self._write("remove_channel", name=name)

    def bind_embedder(self, fingerprint: str) -> None:
        self._write("bind_embedder", fingerprint=fingerprint)

    def partition(self, blocks: int | None, seed: int, _: int | None) -> None:
        self._write("partition", blocks=blocks, seed=seed)

    def flush(self) -> None:
        self._write("flush")

    # What it is

    def __len__(self) -> int:
        return self._about("memories")

    def dim(self) -> int:
        return self._about("dim")

    def nbytes(self) -> int:
        return self._about("nbytes")

    def config(self) -> str:
        return json.dumps(self._about("config"))

    def channels(self) -> list[tuple[str, bool, float, float]]:
        return [(name, scalar, low, high) for name, scalar, low, high in self._about("channels")]

    def embedder(self) -> str | None:
        return self._about("embedder")

    def episodes(self) -> tuple[int, int]:
        found = self.link.call("about", {})
        return found["episodes_observed"], found["episodes_proposed"]

    def blocks(self) -> int | None:
        return self._about("blocks")

    def writes(self) -> int:
        return self._about("writes")

    def readonly(self) -> bool:
        return self._about("readonly")

    def closed(self) -> bool:
        return False

    def ids(self) -> NDArray[np.int64]:
        return self._column("ids")

    def keys(self) -> NDArray[np.float32]:
        return self._column("keys")

    def values(self) -> NDArray[np.float32]:
        return self._column("values")

    def drives(self) -> NDArray[np.float32]:
        return self._column("drives")

    def baseline(self) -> NDArray[np.float32]:
        return self._column("baseline")

    def counts(self) -> NDArray[np.int64]:
        return self._column("counts")

    def mass(self) -> NDArray[np.float64]:
        return self._column("mass")

    def is_terminal(self) -> NDArray[np.bool_]:
        return self._column("is_terminal")

    def texts(self) -> list[str | None]:
        return self._column("texts")

    def keys_of(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.link.call("keys_of", {"ids": ids})["keys"]

    def terminals(self) -> NDArray[np.int64]:
        return self.link.call("terminals", {})["ids"]

    def edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        found = self.link.call("edges", {})
        return found["source"], found["target"], found["weight"]

    # All of it

    def digest(self) -> str:
        return self.link.call("digest", {})["digest"]

    def to_bytes(self) -> bytes:
        return self.link.snapshot()

    def save(self, path: str) -> None:
        _core.Store.from_bytes(self.link.snapshot()).save(path)

    def frozen(self) -> _core.View:
        return _core.Store.from_bytes(self.link.snapshot()).frozen()

    def become(self, other: _core.Store) -> None:
        self.link.become(other.to_bytes())

    def close(self) -> None:
        self.link.close()


class RemoteStore(ValueStore):
    """A `ValueStore` that is asked over a link; see `sharpwave.serve.Client` and `sharpwave.serve.ray.Handle`.

    Every call is at least one message there and back, columns (`keys`, `values`, …) travel whole, and so does the store
    itself for `frozen()`, `save()`, `to_bytes()` and `become()`. ``num_threads=`` is the server's to decide. `close`
    closes connections and leaves the store alone.
    """

    __slots__ = ("_link",)
    remote: ClassVar[bool] = True
    _link: Link

    def __init__(self, link: Link) -> None:
        self._link = link
        self._core = cast("_core.Store", RemoteCore(link))
        self._dim, self._path, self._recovery = 0, None, None

    @property
    def dim(self) -> int:
        """d, the length of a step's embedding; asked for once."""
        if not self._dim:
            self._dim = self._core.dim()
        return self._dim

    def terminal_key(self, name: str) -> NDArray[np.float32]:
        """(d,) the key of an embedding channel; a scalar channel has none, which is a KeyError."""
        return self._link.call("terminal_key", {"name": name})["key"]

    def become(self, other: ValueStore) -> None:
        """The served store takes over the content of another, which travels there as a snapshot."""
        super().become(other)
        self._dim = 0

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


def _given(**arguments: Any) -> Data:
    """Those that were given."""
    return {name: value for name, value in arguments.items() if value is not None}


def _scored(*, habituation: Any, **arguments: Any) -> Data:
    given = _given(**arguments)
    if habituation is not None:
        ids, uses, eta = habituation
        given["habituation"] = {"ids": ids, "uses": uses, "eta": eta}
    return given
