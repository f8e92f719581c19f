"""Who is let in: pages in a browser, slow clients, long headers, and where a token goes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
from served import Server, ask_app
from sharpwave.serve import Client, Limits, Service, serve, wire
from sharpwave.serve.remote import RemoteStore
from sharpwave.serve.verbs import VERBS

SECRET = "s3cret-and-long"
STEPS = np.eye(4, dtype=np.float32)


PROGRAM = """
import sys, numpy as np, sharpwave as sw
from dataclasses import replace
from sharpwave.serve import Limits, Service, serve

store = sw.ValueStore(sw.Config(dim=4))
store.observe(np.eye(4, dtype=np.float32))
limits = Limits(headers=1000, arrival=0.5, body=100_000, concurrent=4, connections=60, arriving=200_000)
limits = replace(limits, seconds=float(sys.argv[1]))
serve(Service(store), port=0, limits=limits, ready=lambda url: print(url, flush=True))
"""


class Here:
    """A server with narrow limits, and `seconds` for an answer."""

    def __init__(self, seconds: float = 2) -> None:
        command = [sys.executable, "-c", PROGRAM, str(seconds)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rsplit(":", 1)[1])

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(30) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()

    def digest(self) -> str:
        client = Client(self.url)
        try:
            return client.digest()
        finally:
            client.close()

    def sockets(self) -> set[str]:
        found = set[str]()
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                found.add(str(link.readlink()))
        return {name for name in found if name.startswith("socket:")}

    def connect(self, first: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(first)
        return connection

    def raw(self, request: bytes) -> tuple[int, dict[str, Any]]:
        """The status and the body of an answer to some bytes."""
        with self.connect(request) as connection:
            return answer(connection)


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    with contextlib.closing(http.client.HTTPResponse(connection)) as response:
        response.begin()
        return response.status, json.loads(response.read())


def post(
    verb: str, body: bytes = b"{}", kind: str | None = wire.JSON, host: str = "localhost", extra: tuple[str, ...] = ()
) -> bytes:
    lines = [f"POST /v1/{verb} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", *extra]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    here = Here()
    yield here
    here.stop()


# Pages in a browser


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("127.0.0.1:1", 200),
        ("127.9.9.9", 200),
        ("[::1]:8808", 200),
        ("localhost.", 200),
        ("evil.example", 421),
        ("evil.example:8808", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example@localhost", 421),
        ("10.0.0.1", 421),
        ("0.0.0.0", 421),
        ("", 421),
        ("localhost\r\nHost: evil.example", 421),
    ],
)
def test_a_name_that_is_not_the_servers_is_refused(here: Here, host: str, status: int) -> None:
    found, said = here.raw(post("digest", host=host))
    assert found == status
    assert status == 200 or "see --allowed-host" in said["error"]


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        (("Origin: http://localhost",), 200),
        (("Sec-Fetch-Site: same-origin",), 200),
        (("Origin: http://evil.example",), 403),
        (("Origin: null",), 403),
        (("Origin: http://localhost:3000",), 403),
        (("Origin: ",), 403),
        (("Origin: http://localhost.evil.example",), 403),
        (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"), 403),
        (("Sec-Fetch-Site: same-site",), 403),
    ],
)
def test_a_page_of_another_origin_is_refused(here: Here, extra: tuple[str, ...], status: int) -> None:
    assert here.raw(post("digest", extra=extra))[0] == status


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_wants_a_type(here: Here, verb: str) -> None:
    before = here.digest()
    for kind in (None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        for body in (b"", b"{}"):
            status, said = here.raw(post(verb, body, kind))
            assert (status, said["kind"]) == (415, "TypeError")
    assert here.digest() == before


def test_a_snapshot_wants_a_type_too(here: Here) -> None:
    before = here.digest()
    body = sw.ValueStore(sw.Config(dim=4)).to_bytes()
    head = f"PUT /v1/snapshot HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    for kind in ("", "Content-Type: text/plain\r\n", "Content-Type: application/json\r\n"):
        assert here.raw(f"{head}{kind}\r\n".encode() + body)[0] == 415
    assert here.digest() == before


def test_the_page_loads_nothing(here: Here) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", here.port)
    connection.request("GET", "/docs")
    response = connection.getresponse()
    page = response.read().decode()
    connection.close()
    assert response.status == 200
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "<script" not in page
    assert "//" not in page
    for verb in VERBS:
        assert f"<code>{verb}</code>" in page


def test_other_names_can_be_allowed(tmp_path: Path) -> None:
    with Server(tmp_path / "store", "--allowed-host", "store.example", dim=4) as server:
        for host, status in (("store.example", 200), ("localhost", 200), ("evil.example", 421)):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
                connection.sendall(post("digest", host=host))
                assert answer(connection)[0] == status


# Headers, and slow clients


LONG: dict[str, bytes] = {
    "one header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 5000,
    "many": b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 1000,
    "many, and an end": b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
    "a path": b"GET /" + b"a" * 5000,
    "a path, and an end": b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "behind a good one": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n",
    "blank lines": b"\r\n" * 3000,
}


@pytest.mark.parametrize("name", LONG)
def test_long_headers_are_refused(here: Here, name: str) -> None:
    with here.connect(LONG[name]) as connection:
        if name == "behind a good one":
            received = b""
            while piece := connection.recv(1 << 16):
                received += piece
            assert b"HTTP/1.1 431 " in received
        else:
            status, said = answer(connection)
            assert (status, said["error"]) == (431, "headers must not be longer than 1000 bytes")
            assert connection.recv(1) == b""


CHUNKED = post("digest", b"", extra=("Transfer-Encoding: chunked", "Expect: 100-continue")).replace(
    b"Content-Length: 0\r\n", b""
)


@pytest.mark.parametrize("begun", [b"1;", b"1\r\n{", b"2\r\n{}\r\n0\r\nX: "])
def test_what_stands_between_the_pieces_of_a_body_is_no_longer(here: Here, begun: bytes) -> None:
    with here.connect(CHUNKED) as connection:
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(begun)
        connection.sendall(b"\r\n1;" * begun.startswith(b"1\r") + b"a" * 5000)
        with contextlib.suppress(TimeoutError):
            assert answer(connection)[0] in (431, 408)
        assert connection.recv(1) == b""


def test_a_request_that_is_none_is_told(here: Here) -> None:
    assert here.raw(b"hello\r\n\r\n") == (400, {"error": "this is no HTTP request", "kind": "ValueError"})


def test_headers_that_do_not_come_are_not_waited_for(here: Here) -> None:
    for begun in (b"", b"GET /health HTTP/1.1\r\nHo"):
        with here.connect(begun) as connection:
            if begun:
                status, said = answer(connection)
                assert (status, said["error"]) == (408, "headers must be there within 0.5 seconds")
            assert connection.recv(1) == b""
    with here.connect() as connection:  # the time begins anew with the second request
        for _ in range(2):
            connection.sendall(post("digest"))
            assert answer(connection)[0] == 200
        connection.sendall(b"POST ")
        assert answer(connection)[0] == 408


SLOW = post("digest", b"", extra=("Content-Length: 90000",)).replace(b"Content-Length: 0\r\n", b"")


def test_slow_bodies_do_not_hold_the_places_of_others(here: Here) -> None:
    slow = [here.connect(SLOW + b"{") for _ in range(40)]  # ten times as many as there are places
    client = Client(here.url, patience=0)
    for _ in range(3):
        assert client.score(STEPS).step.shape == (4,)
    for connection in slow:
        connection.close()


def test_more_connections_than_there_may_be_close_the_slowest(here: Here) -> None:
    client = Client(here.url, patience=0)
    client.digest()
    slow = [here.connect(SLOW + b"{") for _ in range(90)]
    assert client.score(STEPS).step.shape == (4,)
    slow[0].settimeout(30)
    assert slow[0].recv(1 << 10) == b""
    slow[-1].sendall(b" " * 89_998 + b"}")
    assert answer(slow[-1])[0] == 200
    for connection in slow:
        connection.close()


def test_bodies_on_their_way_are_bounded_together(here: Here) -> None:
    slow = [here.connect(SLOW + b" " * 80_000) for _ in range(2)]
    third = here.connect(SLOW + b" " * 80_000)
    status, said = answer(slow[0])
    assert (status, said["error"]) == (408, "the body took too long to arrive")
    for connection in (slow[1], third):
        connection.sendall(b" " * 9_998 + b"{}")
        assert answer(connection)[0] == 200
    for connection in (*slow, third):
        connection.close()


ASKS_MUCH = post(
    "search", json.dumps({"queries": STEPS.tolist() * 12, "k": 20_000}).encode(), extra=(f"Accept: {wire.BINARY}",)
)


def test_answers_that_are_not_read_hold_no_place() -> None:
    patient = Here(seconds=600)  # so that none is given up meanwhile, however slow the machine
    client = Client(patient.url, patience=0)
    with contextlib.ExitStack() as slow:
        client.digest()
        before = patient.sockets()
        for _ in range(8):  # twice as many as there are places
            connection = slow.enter_context(patient.connect(ASKS_MUCH))
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert client.score(STEPS).step.shape == (4,)
        assert len(patient.sockets() - before) == 8
    client.close()
    patient.stop()


def test_an_answer_that_is_not_read_is_given_up(here: Here) -> None:
    client = Client(here.url, patience=0)
    client.health()
    before = here.sockets()  # some of earlier tests among them, that may go at any time
    with here.connect(ASKS_MUCH) as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"
        (new,) = here.sockets() - before
        while new in here.sockets():  # the time of the test ends it
            client.health()


# Tokens


class Recorder:
    """Something that answers every request, and keeps its headers."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        kept = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                kept.headers.append(dict(self.headers))
                kept.paths.append(f"{self.command} {self.path}")
                self.send_response(400)
                body = b'{"error": "recorded", "kind": "ValueError"}'
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_PUT = do_GET = do_POST

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def asked(self, client: Client) -> dict[str, str]:
        with pytest.raises(ValueError, match="recorded"):
            client.digest()
        return self.headers.pop()


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.server.shutdown()
    recorder.server.server_close()


def test_every_write_carries_a_key_of_its_own(recorder: Recorder) -> None:
    """Every verb of the table, and `become`, which is none."""
    client = Client(recorder.url)
    keys = set[str]()
    for name, verb in VERBS.items():
        with pytest.raises(ValueError, match="recorded"):
            client._link.call(name, {})
        key = recorder.headers.pop().get("Idempotency-Key")
        assert (key is not None) == (verb.kind == "write"), name
        keys |= {key} if key else set()
    with pytest.raises(ValueError, match="recorded"):
        client.become(sw.ValueStore(sw.Config(dim=4)))
    assert recorder.paths.pop() == "PUT /v1/snapshot"
    keys.add(recorder.headers.pop()["Idempotency-Key"])
    assert len(keys) == sum(verb.kind == "write" for verb in VERBS.values()) + 1
    writes = {name for name, verb in VERBS.items() if verb.kind == "write"}
    assert writes <= set(vars(RemoteStore).keys())


def test_a_token_of_the_environment_goes_where_the_environment_says(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARPWAVE_TOKEN", SECRET + "\n")
    port = recorder.server.server_port
    for named in (
        None,
        "",
        "http://store.example",
        f"https://127.0.0.1:{port}",
        f"http://127.0.0.1:{port + 1}",
        f"http://localhost:{port}",
    ):
        if named is not None:
            monkeypatch.setenv("SHARPWAVE_TOKEN_ORIGIN", named)
        assert "Authorization" not in recorder.asked(Client(recorder.url)), named
        config = {"store": recorder.url, "embedder": lambda texts: np.ones((len(texts), 4))}
        with pytest.raises(ValueError, match="recorded"):
            sw.InstrumentalReward.from_config(config)
        assert "Authorization" not in recorder.headers.pop(), named
    for named in (recorder.url, f"http://store.example, {recorder.url}/", f"  HTTP://127.0.0.1:{port}"):
        monkeypatch.setenv("SHARPWAVE_TOKEN_ORIGIN", named)
        assert recorder.asked(Client(recorder.url))["Authorization"] == f"Bearer {SECRET}"


def test_a_client_pickles_without_its_token(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHARPWAVE_TOKEN", raising=False)
    client = Client(recorder.url, SECRET, timeout=7, patience=3)
    sent = pickle.dumps(client)
    assert SECRET.encode() not in sent
    assert "Authorization" not in recorder.asked(pickle.loads(sent))
    monkeypatch.setenv("SHARPWAVE_TOKEN", SECRET)
    monkeypatch.setenv("SHARPWAVE_TOKEN_ORIGIN", recorder.url)
    again = pickle.loads(sent)
    assert recorder.asked(again)["Authorization"] == f"Bearer {SECRET}"
    assert SECRET.encode() not in pickle.dumps(again)
    monkeypatch.delenv("SHARPWAVE_TOKEN")
    whole = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(Client(recorder.url, SECRET, pickle_token=True)))))
    assert recorder.asked(whole)["Authorization"] == f"Bearer {SECRET}"


BAD = (f"{SECRET}\nx", f"{SECRET}\x00", f"{SECRET}é", f"\r{SECRET}", SECRET.encode())


@pytest.mark.parametrize("token", BAD)
def test_a_token_that_is_none_is_refused_and_not_shown(token: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((ValueError, TypeError), match="the token must be") as told:
        Client("http://127.0.0.1:9", token)
    assert SECRET not in "".join(traceback.format_exception(told.value))
    with pytest.raises((ValueError, TypeError), match="the token must be"):
        serve(Service(sw.ValueStore(sw.Config(dim=4))), token=token)
    if isinstance(token, str) and "\0" not in token:
        monkeypatch.setenv("SHARPWAVE_TOKEN", token)
        monkeypatch.setenv("SHARPWAVE_TOKEN_ORIGIN", "http://127.0.0.1:9")
        with pytest.raises(ValueError, match="the token must be"):
            Client("http://127.0.0.1:9")


def test_a_token_is_never_shown(recorder: Recorder) -> None:
    client = Client(recorder.url, f"{SECRET}\r\n")
    assert recorder.asked(client)["Authorization"] == f"Bearer {SECRET}"
    shown = [repr(client), str(client), repr(client._link), str(client._link), str(vars(client._link).keys())]
    for url in (
        f"http://user:{SECRET}@127.0.0.1:9",
        f"http://{SECRET}@127.0.0.1",
        f"ftp://u:{SECRET}@x",
        f"http://u:{SECRET}@x:port",
    ):
        with pytest.raises(ValueError, match="url must be like") as refused:
            Client(url)
        shown.append("".join(traceback.format_exception(refused.value)))
    with pytest.raises(ConnectionError) as told:
        Client("http://127.0.0.1:9", SECRET, patience=0).digest()
    shown.append("".join(traceback.format_exception(told.value)))
    assert all(SECRET not in one for one in shown)


def test_the_command_line_does_not_show_a_token(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "sharpwave.cli", "serve"]
    environment = {**os.environ, "SHARPWAVE_TOKEN": SECRET}
    subprocess.run([*command, "--help"], env=environment, check=True)
    bad = {**os.environ, "SHARPWAVE_TOKEN": f"{SECRET}\nx"}
    done = subprocess.run([*command, str(tmp_path / "store"), "--dim", "4"], env=bad, check=False)
    assert done.returncode == 2
    printed = capfd.readouterr()
    assert "the token must be" in printed.err
    assert SECRET not in printed.out + printed.err


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR "])
def test_the_scheme_is_read_in_any_case(scheme: str, tmp_path: Path) -> None:
    del tmp_path
    with Service(sw.ValueStore(sw.Config(dim=4))) as service:

        async def ask(client: Any) -> None:
            given = {"Authorization": f"{scheme} {SECRET}"}
            assert (await client.post("/v1/digest", json={}, headers=given)).status_code == 200
            for wrong in (f"Basic {SECRET}", SECRET, f"{scheme}{SECRET}x", f"{scheme} {SECRET}x", f"{scheme} "):
                answered = await client.post("/v1/digest", json={}, headers={"Authorization": wrong})
                assert answered.status_code == 401, wrong

        ask_app(service, Limits(), ask, token=SECRET)
