"""One store, many processes: a server with one store, and clients that have the methods of a store.

service.py    `Service`: reads together, writes one after the other, each write once
verbs.py      the table of verbs, from which routes, schema and clients are made
batching.py   concurrent queries become one call
ledger.py     a write that is sent again is not done again, also after a crash
wire.py       bodies: safetensors and JSON
app.py        `create_app`: the HTTP service (needs the extra ``serve``)
limits.py     `Limits`: who is let in, how many, how much, how long
metrics.py    what is counted, for Prometheus
openapi.py    what the documentation of the API says
server.py     `serve`: the process, from its socket to its end
remote.py     `RemoteStore`: the interface of a `ValueStore` over a link
client.py     `Client`: over HTTP
aio.py        `AsyncStore`: for programs with an event loop
ray.py        over Ray: a named actor and its `Handle` (needs the extra ``ray``)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sharpwave.serve.aio import AsyncStore
from sharpwave.serve.client import Client
from sharpwave.serve.remote import RemoteStore
from sharpwave.serve.service import Service

if TYPE_CHECKING:
    from sharpwave.serve.app import create_app
    from sharpwave.serve.limits import Limits
    from sharpwave.serve.server import serve

__all__ = ["AsyncStore", "Client", "Limits", "RemoteStore", "Service", "create_app", "serve"]

_LATER = {"Limits": "limits", "create_app": "app", "serve": "server"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"sharpwave.serve.{_LATER[name]}"), name)
    raise AttributeError(f"module 'sharpwave.serve' has no attribute {name!r}")
