"""Any bytes as the request of a served store: answered or refused in one line, and what was refused changed nothing.

`tests/serve/test_serve_bodies.py` tries the corpus and what Hypothesis makes of it; `fuzz_http.py`, what a fuzzer does.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import sharpwave as sw
from sharpwave.serve import wire
from sharpwave.serve.app import create_app
from sharpwave.serve.limits import Limits
from sharpwave.serve.service import Service
from sharpwave.serve.verbs import VERBS

DIM = 4
PATHS = [*(f"/v1/{verb}" for verb in sorted(VERBS)), "/v1/snapshot"]
TYPES = [wire.JSON, wire.BINARY, "application/octet-stream", ""]
REFUSALS = {400, 404, 405, 409, 413, 415}
"""What a client may be told. Never 500, which is a mistake of ours; nor 503 and 504, since nobody else is served."""


class Served:
    """A small store, and the application that serves it, in this process and without a socket."""

    def __init__(self) -> None:
        self.store = sw.ValueStore(sw.Config(dim=DIM, capacity=40))
        self.store.add_channel("verifier")
        self.store.add_terminal("goal", np.eye(DIM, dtype=np.float32)[3])
        self.store.observe(np.eye(DIM, dtype=np.float32), texts=["a", "b", "c", "d"], episode_ids=[7])
        self.store.replay()
        self.fresh = sw.ValueStore.from_bytes(self.store.to_bytes())
        self.before = self.store.digest()
        self.service = Service(self.store, readers=1, linger=0.0)
        self.app = create_app(self.service, limits=Limits(body=1 << 16, snapshot=1 << 20, answer=1 << 16, seconds=3600))
        self.loop = asyncio.new_event_loop()

    def close(self) -> None:
        self.service.close()
        self.loop.close()

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """One request through the whole application."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        sent: list[dict[str, Any]] = []
        pieces = [body]

        async def receive() -> dict[str, Any]:
            if pieces:
                return {"type": "http.request", "body": pieces.pop(), "more_body": False}
            await asyncio.sleep(3600)  # the client stays
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        self.loop.run_until_complete(self.app(scope, receive, send))
        start = next(message for message in sent if message["type"] == "http.response.start")
        said = {bytes(name).decode(): bytes(value).decode() for name, value in start["headers"]}
        return start["status"], said, b"".join(message.get("body", b"") for message in sent)

    def one(self, data: bytes) -> int:
        """Ask what the bytes say: which path, which form, and the body; returns the status."""
        if len(data) < 2:
            return 0
        path, form, body = PATHS[data[0] % len(PATHS)], data[1], data[2:]
        method = "PUT" if path == "/v1/snapshot" else "POST"
        headers = {"host": "127.0.0.1", "content-type": TYPES[form % len(TYPES)], "content-length": str(len(body))}
        if form & 4:
            headers["accept"] = wire.BINARY
        status, said, answer = self.ask(method, path, headers, body)
        if status == 200:
            if said["content-type"] == wire.BINARY:
                wire.unpack(answer)
            else:
                json.loads(answer)
        else:
            assert status in REFUSALS, (path, status, answer)
            error = json.loads(answer)
            assert set(error) == {"error", "kind"}, error
            assert error["error"], error
            assert "\n" not in error["error"], error
            assert self.store.digest() == self.before, (path, error)
        if self.store.digest() != self.before or len(self.store) != len(self.fresh):
            self._holds_together()
        self.store.become(self.fresh)
        return status

    def _holds_together(self) -> None:
        store = self.store
        assert np.isfinite(store.values).all()
        assert (np.diff(store.ids) > 0).all()
        assert sw.ValueStore.from_bytes(store.to_bytes()).digest() == store.digest()


def good() -> dict[str, dict[str, Any]]:
    """Arguments of each verb that needs some, which are answered."""
    eye = np.eye(DIM, dtype=np.float32)
    return {
        "score": {"steps": eye, "offsets": [0, 4], "details": True},
        "search": {"queries": eye[:2], "k": 3},
        "value": {"queries": eye[:2]},
        "explain": {"steps": eye, "weights": {"goal": 1.0}},
        "recall": {"query": eye[0], "depth": 2, "beams": 2},
        "recall_many": {"queries": eye[:2], "depth": 2},
        "associate": {"queries": eye[:1], "k": 2},
        "search_report": {"queries": eye[:2], "k": 2},
        "column": {"name": "texts"},
        "keys_of": {"ids": [0, 1]},
        "terminal_key": {"name": "goal"},
        "observe": {"steps": eye[::-1], "drives": {"verifier": [0.5]}, "texts": ["x", None, "y", "z"]},
        "insert": {"keys": 2 * eye[:2], "texts": ["n", "m"]},
        "replay": {"budget": 10, "order": "reverse"},
        "veto": {"episode": 7},
        "checkpoint": {"keep": 2},
        "without": {"episodes": [7]},
        "provenance": {"memory": 1},
        "calibrate": {"steps": eye},
        "add_terminal": {"name": "other", "key": eye[0], "low": 0.1, "high": 0.9},
        "add_channel": {"name": "judge", "low": -1.0, "high": 1.0},
        "remove_channel": {"name": "verifier"},
        "bind_embedder": {"fingerprint": "an embedder"},
        "partition": {"blocks": 2, "seed": 1},
    }


def seeds() -> dict[str, bytes]:
    """One request a verb that is answered, in each form: what the corpus begins with."""
    eye = np.eye(DIM, dtype=np.float32)
    found = {}
    for verb in VERBS:
        arguments, at = good().get(verb, {}), PATHS.index(f"/v1/{verb}")
        found[f"{verb}.json"] = bytes([at, 0]) + wire.to_json(arguments)
        found[f"{verb}.safetensors"] = bytes([at, 5]) + wire.pack(arguments)
    store = sw.ValueStore(sw.Config(dim=DIM))
    store.insert(eye[:2])
    found["snapshot"] = bytes([PATHS.index("/v1/snapshot"), 1]) + store.to_bytes()
    return found
