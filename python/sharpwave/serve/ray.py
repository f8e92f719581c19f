"""Over Ray: a named actor with one store, and handles that have the methods of a store.

    handle = sharpwave.serve.ray.actor("store", "runs/a/store")     # starts the actor if there is none of that name
    reward = sw.InstrumentalReward(handle, embedder, learn="propose")

The actor does what the HTTP server does, with the same `Service`: it answers what many ask at once together, does
writes one after the other, and each once. If its process dies, Ray starts it again, it opens its directory, and the
handles send again what was not answered: a write that had been done is not done again.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from sharpwave import _coerce
from sharpwave._lazy import require
from sharpwave.config import Config
from sharpwave.serve import wire
from sharpwave.serve.ledger import Unsettled
from sharpwave.serve.remote import RemoteStore, key_for
from sharpwave.serve.service import Service
from sharpwave.serve.verbs import Data
from sharpwave.store import Durability, ValueStore

CONCURRENT = 1024
SILENCE = 60.0
"""Seconds without an answer after which a request is sent again."""


class StoreActor:
    """The actor's class. Bodies are bytes (`wire.pack`), so that the caller owns the arrays that it gets."""

    def __init__(
        self, directory: str | None, config: str | None, durability: Durability, snapshot: bytes | None
    ) -> None:
        if directory is None:
            assert snapshot is not None
            self.service = Service(ValueStore.from_bytes(snapshot))
        else:
            made = None if config is None else Config.from_json(config)
            self.service = Service.open(directory, made, durability=durability)

    async def call(self, verb: str, arguments: bytes, key: str | None) -> bytes:
        """A verb of `Service`."""
        waiting = asyncio.wrap_future(self.service.submit(verb, wire.unpack(arguments), key))
        return wire.pack(await asyncio.shield(waiting))

    async def snapshot(self) -> bytes:
        """`ValueStore.to_bytes`."""
        return await asyncio.wrap_future(self.service.read(lambda store: store.to_bytes()))

    async def become(self, snapshot: bytes, key: str | None) -> None:
        """`ValueStore.become`."""
        waiting = await asyncio.to_thread(self.service.become, bytes(snapshot), key)
        await asyncio.shield(asyncio.wrap_future(waiting))

    async def close(self) -> None:
        """Finish the requests that were begun and close the store. The actor answers no request afterwards."""
        await asyncio.to_thread(self.service.close)

    async def process(self) -> int:
        """The number of the actor's process."""
        return os.getpid()


def actor(
    name: str,
    directory: str | os.PathLike[str] | None = None,
    config: Config | None = None,
    *,
    store: ValueStore | None = None,
    namespace: str | None = None,
    durability: Durability = "process",
    patience: float = 120.0,
    **options: Any,
) -> Handle:
    """A handle of the actor of that name, which is started if there is none.

    Args:
        name: under which every process of the cluster finds it.
        directory: where its store lives, on the node where the actor runs; `config` as for `ValueStore.open`.
        store: instead of a directory: the actor begins with a copy of it, in memory. If its process dies, what was
            written to it is lost, so it is not started again.
        namespace: of Ray; the driver's own by default.
        patience: see `Handle`.
        options: of the actor, such as ``num_cpus=2`` or ``resources=``; by default it takes no CPU for itself and
            outlives the driver.

    Raises:
        TypeError: not exactly one of `directory` and `store`.
        As `ValueStore.open`, at the first call: `OSError`, `ValueError`.
    """
    ray = require("ray", "ray")
    if (directory is None) == (store is None):
        raise TypeError("actor takes either a directory or store=")
    given: dict[str, Any] = {
        "name": _coerce.string("name", name),
        "namespace": namespace,
        "get_if_exists": True,
        "lifetime": "detached",
        "num_cpus": 0,
        "max_concurrency": CONCURRENT,
        "max_restarts": 0 if directory is None else -1,
        "max_task_retries": 0,  # the handle sends again, with the key of the request
        **options,
    }
    ray.remote(StoreActor).options(**given).remote(
        None if directory is None else str(Path(directory).resolve()),
        None if config is None else config.to_json(),
        durability,
        None if store is None else store.to_bytes(),
    )
    return Handle(name, namespace, patience=patience)


class RayLink:
    """A link to a named actor, which is looked up once per process."""

    def __init__(self, name: str, namespace: str | None, patience: float) -> None:
        self.name, self.namespace, self.patience = name, namespace, patience
        self._actor: Any = None
        self._process = 0

    def call(self, verb: str, arguments: Data) -> Data:
        return wire.unpack(bytearray(self.ask("call", verb, wire.pack(arguments), key_for(verb))))

    def snapshot(self) -> bytes:
        return self.ask("snapshot")

    def become(self, snapshot: bytes) -> None:
        self.ask("become", snapshot, key_for("become"))

    def ask(self, method: str, *arguments: Any) -> Any:
        """The result of a method of the actor. The call is repeated while the actor restarts, and if no answer comes:
        a write carries its key, and reads can be repeated."""
        ray = require("ray", "ray")
        end, pause = time.monotonic() + self.patience, 0.05
        while True:
            try:
                return ray.get(getattr(self._found(ray), method).remote(*arguments), timeout=SILENCE)
            except ray.exceptions.RayTaskError as error:
                if not isinstance(error.cause, Unsettled):
                    raise error.cause from None
                failure: Exception = error.cause
            except ray.exceptions.GetTimeoutError as error:
                failure = error
            except ray.exceptions.RayActorError as error:
                if getattr(error, "actor_init_failed", False):
                    raise ConnectionError(f"{self} could not be started: {last_line(error)}") from error
                failure = error
            self._actor = None  # one that was started again, or none, is found by the name
            if time.monotonic() + pause > end and isinstance(failure, Unsettled):
                raise failure
            if time.monotonic() + pause > end:
                raise ConnectionError(f"{self} did not answer within {self.patience:g} seconds") from failure
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def close(self) -> None:
        self._actor = None

    def _found(self, ray: Any) -> Any:
        if self._actor is None or self._process != os.getpid():
            try:
                self._actor = ray.get_actor(self.name, namespace=self.namespace)
            except ValueError:
                raise ConnectionError(f"{self}: there is no actor of that name") from None
            self._process = os.getpid()
        return self._actor

    def __str__(self) -> str:
        return f"ray:{self.namespace or ''}/{self.name}"


class Handle(RemoteStore):
    """A store in a Ray actor: what `ValueStore` has, this has, with the same arguments, results and errors.

    It pickles as the actor's name, and works in every process that is connected to the cluster.

    Args:
        name, namespace: of the actor, as it was started by `actor`.
        patience: seconds to wait for an actor that is being started again.

    Raises:
        ConnectionError: (of any call) there is no such actor, or it is gone.
    """

    __slots__ = ("_ray",)
    _ray: RayLink

    def __init__(self, name: str, namespace: str | None = None, *, patience: float = 120.0) -> None:
        self._ray = RayLink(_coerce.string("name", name), namespace, _coerce.number("patience", patience))
        super().__init__(self._ray)

    @property
    def name(self) -> str:
        """Of the actor."""
        return self._ray.name

    @property
    def namespace(self) -> str | None:
        """Of the actor; None: the driver's own."""
        return self._ray.namespace

    @property
    def process(self) -> int:
        """The number of the actor's process, on its node."""
        return self._ray.ask("process")

    def stop(self) -> None:
        """End the actor: it finishes the requests that were begun, and closes its store."""
        ray = require("ray", "ray")
        self._ray.ask("close")
        ray.kill(ray.get_actor(self._ray.name, namespace=self._ray.namespace), no_restart=True)
        self._ray.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _handle, (self._ray.name, self._ray.namespace, self._ray.patience)


def last_line(error: BaseException) -> str:
    """The last line of an error's message: in a traceback, the error itself."""
    return str(error).strip().splitlines()[-1].strip()


def _handle(name: str, namespace: str | None, patience: float) -> Handle:
    return Handle(name, namespace, patience=patience)
