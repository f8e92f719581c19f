"""A server that is killed loses nothing that it acknowledged, and does nothing twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from typing import Any

import crash
import httpx
import numpy as np
import pytest
import sharpwave as sw
from paths import HELPERS
from served import Server, ask_app
from sharpwave.cli import app
from sharpwave.serve import Client, Limits, Service, wire
from sharpwave.serve.ledger import Conflict, Ledger

KILLS = int(os.environ.get("SHARPWAVE_CRASHES", "26")) // 8
RNG = np.random.default_rng(2)


def test_a_killed_server_is_bit_for_bit_one_that_was_never_killed(tmp_path: Path) -> None:
    with Server(tmp_path / "store") as server:
        client, done, over = server.client(patience=600), 0, threading.Event()
        client.become(sw.ValueStore(crash.CONFIG))

        def live() -> None:
            nonlocal done
            while not over.is_set():
                crash.operation(11, done)(client)
                done += 1

        life = threading.Thread(target=live)
        life.start()
        waits = np.random.default_rng(4).uniform(0.05, 0.4, KILLS)
        for wait in waits:
            before = done
            while done < before + 3:
                assert life.is_alive()
                time.sleep(0.01)
            time.sleep(wait)
            server.kill()
            server.start()
        over.set()
        life.join()
        uncrashed = next(islice(crash.uncrashed(11), done, None))
        assert done > 3 * KILLS
        assert client.digest() == uncrashed.digest()
        assert server.stop() == 0
    assert sw.ValueStore.open(tmp_path / "store").digest() == uncrashed.digest()


def writers(client: Client, count: int, over: threading.Event) -> tuple[list[threading.Thread], list[str]]:
    """Threads that insert memories of texts that are used once, and the texts that were acknowledged."""
    acknowledged: list[str] = []

    def write(number: int) -> None:
        rng = np.random.default_rng(number)
        for turn in range(10**6):
            texts = [f"{number}/{turn}/{row}" for row in range(3)]
            try:
                client.insert(rng.normal(size=(3, crash.DIM)), texts=texts)
            except ConnectionError:
                assert over.is_set()
                return
            acknowledged.extend(texts)
            if over.is_set():
                return

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads, acknowledged


def test_clients_of_a_killed_server_go_on_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    with Server(tmp_path / "store") as server:
        over = threading.Event()
        threads, acknowledged = writers(server.client(patience=600), 6, over)
        for _ in range(max(2, KILLS // 2)):
            before = len(acknowledged)
            while len(acknowledged) < before + 60:
                assert all(thread.is_alive() for thread in threads)
                time.sleep(0.01)
            server.kill()
            server.start()
        over.set()
        for thread in threads:
            thread.join()
        found = Counter(server.client().texts)
    assert found == Counter(acknowledged)


def test_a_server_that_is_asked_to_end_finishes_and_loses_nothing(tmp_path: Path) -> None:
    for which in (signal.SIGTERM, signal.SIGINT):
        directory = tmp_path / str(int(which))
        with Server(directory) as server:
            over = threading.Event()
            threads, acknowledged = writers(server.client(patience=0.1), 6, over)
            while len(acknowledged) < 60:
                time.sleep(0.01)
            over.set()
            assert server.stop(which) == 0
            for thread in threads:
                thread.join()
            assert "everything that was acknowledged" in server.said[-1]
        with sw.ValueStore.open(directory) as store:
            assert set(acknowledged) <= set(store.texts)
            assert max(Counter(store.texts).values()) == 1
            assert store.recovery is not None
            assert store.recovery.operations == 0  # a snapshot was written, and the lock let go of


# Between the store and the ledger

DIES = """
import os, sys
import numpy as np, sharpwave as sw, crash
from sharpwave.serve import Service, ledger

directory, where, verb, seed = sys.argv[1:]
service = Service.open(directory, crash.CONFIG)
real = ledger.Ledger.intend, ledger.Ledger.done
def intend(self, *given):
    if where == "before the intent": os._exit(9)
    real[0](self, *given)
    if where == "before the store": os._exit(9)
def done(self, *given):
    if where == "before the ledger": os._exit(9)
    real[1](self, *given)
    if where == "before the answer": os._exit(9)
ledger.Ledger.intend, ledger.Ledger.done = intend, done
from test_serve_durability import request
service.call(verb, request(verb, int(seed)), "the key")
"""
PLACES = ("before the intent", "before the store", "before the ledger", "before the answer")


def request(verb: str, seed: int) -> dict[str, Any]:
    steps = crash.rows(np.random.default_rng(seed), 9)
    return {
        "observe": {"steps": steps, "offsets": np.array([0, 2, 5, 9]), "texts": list("abcdefghi")},
        "insert": {"keys": steps},
        "replay": {"budget": 5},
        "veto": {"episode": 0},
        "add_channel": {"name": "another"},
    }[verb]


def dies(directory: Path, where: str, verb: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIES, str(directory), where, verb, "3"],
        env={**os.environ, "PYTHONPATH": f"{HELPERS}:{Path(__file__).parent}"},
        check=False,
    )
    assert done.returncode == 9


def seeded(directory: Path) -> sw.ValueStore:
    """A store in a directory, and the same in memory."""
    here = sw.ValueStore(crash.CONFIG)
    with sw.ValueStore.open(directory, crash.CONFIG) as store:
        for one in (here, store):
            for number in range(8):
                crash.operation(3, number)(one)
    return here


@pytest.mark.parametrize("verb", ["observe", "replay", "veto"])
@pytest.mark.parametrize("where", PLACES)
def test_a_crash_between_store_and_ledger_neither_loses_nor_doubles(tmp_path: Path, verb: str, where: str) -> None:
    here = seeded(tmp_path / "store")
    before = here.digest()
    dies(tmp_path / "store", where, verb)
    with Service(here) as local:
        expected = local.call(verb, request(verb, 3))
        after = here.digest()
        assert after != before
        with Service.open(tmp_path / "store") as service:
            undone = where in ("before the store", "before the ledger")
            assert (service.settled is not None) == undone
            assert service.store.digest() == (after if where == "before the answer" else before)
            for _ in range(2):  # sent again, and once more
                found = service.call(verb, request(verb, 3), "the key")
                for name, value in expected.items():
                    if name != "seconds":
                        np.testing.assert_array_equal(found[name], value)
                assert service.store.digest() == after


def test_a_part_of_a_batch_is_undone_and_done_whole(tmp_path: Path) -> None:
    here = seeded(tmp_path / "store")
    dies(tmp_path / "store", "before the ledger", "observe")
    (journal,) = (tmp_path / "store" / "journal").iterdir()
    whole = journal.stat().st_size
    for left in (whole - 100, whole - 700, whole - 1500):  # the last record torn; then fewer of its three episodes
        copy = tmp_path / f"left {left}"
        subprocess.run(["cp", "-r", str(tmp_path / "store"), str(copy)], check=True)
        os.truncate(copy / "journal" / journal.name, left)
        with Service.open(copy) as service:
            service.call("observe", request("observe", 3), "the key")
            with Service(sw.ValueStore.from_bytes(here.to_bytes())) as local:
                local.call("observe", request("observe", 3))
                assert service.store.digest() == local.store.digest()


def test_what_somebody_else_wrote_since_is_never_cut(tmp_path: Path) -> None:
    seeded(tmp_path / "store")
    dies(tmp_path / "store", "before the ledger", "observe")
    with sw.ValueStore.open(tmp_path / "store") as store:
        store.observe(crash.rows(RNG, 3))
        kept = store.digest()
    with Service.open(tmp_path / "store") as service:
        assert service.settled is not None
        assert "not known" in service.settled
        assert service.store.digest() == kept
        with pytest.raises(Conflict, match="nobody knows"):
            service.call("observe", request("observe", 3), "the key")
        service.call("observe", request("observe", 4), "another key")


def test_a_directory_that_is_written_to_is_not_recovered(tmp_path: Path) -> None:
    seeded(tmp_path / "store")
    dies(tmp_path / "store", "before the ledger", "observe")
    with sw.ValueStore.open(tmp_path / "store") as store:
        kept = store.digest()
        with pytest.raises(BlockingIOError, match="somebody is writing"):
            Service.open(tmp_path / "store")
        assert store.digest() == kept


def test_a_key_is_done_once_and_for_one_request(tmp_path: Path) -> None:
    for store in (sw.ValueStore(crash.CONFIG), None):
        service = Service(store) if store is not None else Service.open(tmp_path / "store", crash.CONFIG)
        with service:
            futures = [service.submit("observe", request("observe", 3), "a") for _ in range(5)]
            for future in futures:
                np.testing.assert_array_equal(future.result()["memory_ids"], futures[0].result()["memory_ids"])
            assert service.store.episodes_observed == 3
            with pytest.raises(Conflict, match="another request"):
                service.call("observe", request("observe", 4), "a")
            with pytest.raises(ValueError, match="row 0 contains NaN"):
                service.call("observe", {"steps": np.full((1, crash.DIM), np.nan, np.float32)}, "b")
            service.call("observe", request("observe", 4), "b")  # what failed left no trace and may be tried again
            service.call("observe", request("observe", 5))
            service.call("observe", request("observe", 5))  # without a key, again is again
            assert service.store.episodes_observed == 12


def test_a_write_that_failed_halfway_is_not_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with Service(sw.ValueStore(crash.CONFIG)) as service:
        real = sw.ValueStore.observe

        def halfway(self: sw.ValueStore, steps: Any, offsets: Any = None, **rest: Any) -> Any:
            real(self, steps[: offsets[1]])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(sw.ValueStore, "observe", halfway)
        with pytest.raises(OSError, match="No space"):
            service.call("observe", request("observe", 3), "a")
        monkeypatch.undo()
        with pytest.raises(Conflict, match=r"a part of it was carried out.*No space"):
            service.call("observe", request("observe", 3), "a")
        assert service.store.episodes_observed == 1


def test_old_keys_are_forgotten(tmp_path: Path) -> None:
    ledger = Ledger(None, keep=3)
    for number in range(9):
        ledger.intend(str(number), b"hash")
        ledger.done(str(number), {"column": number})
    assert ledger.find("8", b"hash") == {"column": 8}
    assert ledger.find("4", b"hash") is None


# Who is let in, how much, how long


def test_others_are_let_in_by_a_token_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHARPWAVE_TOKEN", raising=False)
    with Server(tmp_path / "store", "--token", "right", "--host", "0.0.0.0") as server:
        server.url = f"http://127.0.0.1:{server.port}"
        for token in (None, "wrong", "right ", "Right", "right right"):
            with pytest.raises(PermissionError, match="a bearer token is needed"):
                len(server.client(token=token))
        with pytest.raises(PermissionError):
            server.client(token="wrong").metrics()
        assert server.client().health()["status"] == "ok"
        assert len(server.client(token="right")) == 0
        monkeypatch.setenv("SHARPWAVE_TOKEN", "right")
        monkeypatch.setenv("SHARPWAVE_TOKEN_ORIGIN", server.url)
        assert len(server.client()) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "0.0.0.0 can be reached from elsewhere: give a --token"),
        (["--host", "::"], ":: can be reached from elsewhere"),
        (["--token", " "], "the token must be printable ASCII in one line, and not empty"),
        (["--port", "70000"], "70000"),
        (["--concurrent", "0"], "concurrent must be at least 1"),
        (["--durability", "none"], "durability"),
        (["--host", "192.0.2.1", "--token", "x"], "192.0.2.1:8808"),
        ([], "no store: pass a config to create one"),
    ],
)
def test_a_server_that_cannot_be_says_so_in_a_line(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHARPWAVE_TOKEN", raising=False)
    dim = ["--dim", "4"] if options else []
    with pytest.raises(SystemExit) as ended:
        app(["serve", str(tmp_path / "store"), *dim, *options])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1


def test_a_port_that_is_taken_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Server(tmp_path / "store") as server:
        with pytest.raises(SystemExit) as ended:
            app(["serve", str(tmp_path / "other"), "--dim", "4", "--port", str(server.port)])
        with pytest.raises(SystemExit) as locked:
            app(["serve", str(tmp_path / "store"), "--port", "0"])
    assert (ended.value.code, locked.value.code) == (2, 2)
    first, second = capsys.readouterr().err.splitlines()
    assert "in use" in first
    assert str(tmp_path / "store") in second


def test_too_much_too_many_and_too_long_are_told() -> None:
    store = sw.ValueStore(sw.Config(dim=4))
    store.observe(np.eye(4, dtype=np.float32))
    free = threading.Event()
    with Service(store) as service:

        async def large(client: httpx.AsyncClient) -> None:
            body = json.dumps({"steps": np.ones((100, 4)).tolist()}).encode()

            async def pieces() -> AsyncIterator[bytes]:
                for first in range(0, len(body), 100):
                    yield body[first : first + 100]

            for content in (body, pieces()):
                answer = await client.post("/v1/score", content=content, headers={"Content-Type": wire.JSON})
                assert answer.status_code == 413
                assert answer.json()["error"] == "the body must not be longer than 1000 bytes"
            answer = await client.post("/v1/search", json={"queries": [[1, 0, 0, 0]] * 2, "k": 51})
            assert (answer.status_code, answer.json()["error"]) == (
                413,
                "search: an answer of 102 numbers is more than 100",
            )
            assert (await client.post("/v1/search", json={"queries": [[1, 0, 0, 0]] * 2, "k": 50})).status_code == 200

        ask_app(service, Limits(body=1000, answer=100), large)
        service._writer.submit(free.wait)

        async def slow(client: httpx.AsyncClient) -> None:
            key = {"Idempotency-Key": "slow"}
            first = asyncio.create_task(client.post("/v1/add_channel", json={"name": "late"}, headers=key))
            await asyncio.sleep(0.05)
            second = await client.post("/v1/score", json={"steps": [[1, 0, 0, 0]]})
            assert second.status_code == 503
            assert second.headers["retry-after"] == "1"
            assert second.json()["error"] == "1 requests are being answered: try again"
            assert (await client.get("/health")).status_code == 200
            answer = await first
            assert (answer.status_code, answer.json()["error"]) == (504, "no answer within 0.3 seconds")
            free.set()
            again = await client.post("/v1/add_channel", json={"name": "late"}, headers=key)
            assert (again.status_code, again.json()) == (200, {"column": 0})  # it was done, once

        ask_app(service, Limits(concurrent=1, seconds=0.3), slow)
        assert store.channels == ["late"]


def test_a_client_gives_up_in_time() -> None:
    with pytest.raises(ValueError, match="url must be like"):
        Client("ftp://somewhere")
    with pytest.raises(ValueError, match="url must be like"):
        Client("http://somewhere/below")
    begun = time.monotonic()
    with pytest.raises(ConnectionError, match=r"http://127.0.0.1:9 did not answer within 0.2 seconds"):
        len(Client("http://127.0.0.1:9", patience=0.2))
    assert time.monotonic() - begun < 30
