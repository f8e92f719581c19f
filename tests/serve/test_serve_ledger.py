"""A ledger that cannot be written to: writes wait, and nothing that was acknowledged is ever cut off."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import crash
import numpy as np
import pytest
import sharpwave as sw
from paths import HELPERS
from served import ask_app
from sharpwave.serve import Client, Limits, Service, serve, wire
from sharpwave.serve.ledger import FILE, Conflict, Ledger, Unsettled
from sharpwave.serve.verbs import VERBS

pytestmark = pytest.mark.filterwarnings("ignore:the store has no channel")

KILLS = int(os.environ.get("SHARPWAVE_CRASHES", "26")) // 8
STRIDE = "1" if KILLS > 3 else "4"
"""Between the steps of a recovery at which the disk is full."""
PATHS = f"{HELPERS}:{Path(__file__).parent}"
"""Where a process that imports this file finds it, and what it imports."""


def steps(seed: int, n: int = 6) -> np.ndarray:
    return crash.rows(np.random.default_rng(seed), n)


def insert(seed: int) -> dict[str, Any]:
    return {"keys": steps(seed, 2), "texts": [f"{seed}/0", f"{seed}/1"]}


@contextlib.contextmanager
def full(ledger: Ledger) -> Generator[None]:
    """The ledger's file may not grow by a page."""
    run = ledger._file.execute
    run(f"PRAGMA max_page_count={run('PRAGMA page_count').fetchone()[0]}")
    try:
        yield
    finally:
        run("PRAGMA max_page_count=1073741823")


def large(seed: int) -> dict[str, Any]:
    """A write whose report takes many pages, while its intent takes none."""
    return {"steps": steps(seed, 600), "offsets": np.arange(601), "texts": [f"{seed}/{n}" for n in range(600)]}


CONFIG = sw.Config(dim=crash.DIM, min_novelty=0.0)


def test_a_full_ledger_takes_no_write_until_it_is_settled(tmp_path: Path) -> None:
    with Service.open(tmp_path / "store", CONFIG) as service:
        service.call("insert", insert(1), "a")
        with full(service.ledger):
            with pytest.raises(Unsettled, match="database or disk is full") as told:
                service.call("observe", large(2), "b")
            assert told.value.errno == errno.ENOSPC
            digest = service.store.digest()
            for verb, arguments, key in (
                ("observe", large(2), "b"),
                ("insert", insert(3), "c"),
                ("insert", insert(3), None),
                ("flush", {}, "d"),
            ):
                with pytest.raises(Unsettled):
                    service.call(verb, arguments, key)
            with pytest.raises(Unsettled):
                service.become(sw.ValueStore(CONFIG).to_bytes(), "e").result()
            assert service.store.digest() == digest
            assert service.call("score", {"steps": steps(4)})["total"].shape == (1,)  # reads go on
        found = service.call("observe", large(2), "b")
        assert len(found["memory_ids"]) == 600
        assert service.store.digest() == digest
        service.call("insert", insert(3), "c")


def test_a_client_waits_for_a_ledger_that_is_full(tmp_path: Path) -> None:
    """507 with Retry-After, and the same key again: so long as the client has patience."""
    with Service.open(tmp_path / "store", CONFIG) as service:
        service.call("insert", insert(1), "a")
        body = wire.pack(large(2))
        headers = {"Content-Type": wire.BINARY, "Accept": wire.BINARY, "Idempotency-Key": "b"}

        async def ask(client: Any) -> None:
            with full(service.ledger):
                for _ in range(2):
                    told = await client.post("/v1/observe", content=body, headers=headers)
                    assert (told.status_code, told.headers["retry-after"]) == (507, "1")
                    assert told.json()["kind"] == "OSError"
                assert (await client.post("/v1/digest", json={})).status_code == 200
            assert (await client.post("/v1/observe", content=body, headers=headers)).status_code == 200

        ask_app(service, Limits(), ask)


def test_a_patient_client_is_answered_once_there_is_room(tmp_path: Path) -> None:
    with Service.open(tmp_path / "store", CONFIG) as service:
        told, stop = list[str](), threading.Event()
        thread = threading.Thread(
            target=serve, args=(service,), kwargs={"port": 0, "ready": lambda url: (told.append(url), stop.set())}
        )
        thread.daemon = True
        thread.start()
        assert stop.wait(30)
        client = Client(told[0], patience=0)
        client.insert(insert(1)["keys"])
        with full(service.ledger):
            given = large(2)
            with pytest.raises(OSError, match="database or disk is full"):
                client.observe(given["steps"], given["offsets"])
            patient = Client(told[0], patience=60)
            waiting = threading.Thread(target=lambda: patient.insert(insert(3)["keys"]))
            waiting.start()
            waiting.join(0.2)
            assert waiting.is_alive()
        waiting.join()
        assert len(service.store) == 604


def test_the_ledger_is_nobody_elses_to_read(tmp_path: Path) -> None:
    with Service.open(tmp_path / "store", CONFIG) as service:
        service.call("insert", insert(1), "a")
        files = list((tmp_path / "store").glob(f"{FILE}*"))
        assert len(files) > 1
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "store" / FILE).unlink()
    (tmp_path / "store" / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=FILE):
        Service.open(tmp_path / "store")
    assert (tmp_path / "elsewhere").read_bytes() == b""


DIES = """
import os, sys
from test_serve_ledger import *

service = Service.open(sys.argv[1], CONFIG)
for number in range(20):
    service.call("insert", insert(number), str(number))
try:
    with full(service.ledger):
        service.call("observe", large(99), "stuck")
except Unsettled:
    pass
settles = sys.argv[2] == "settles"
if settles:
    for number in range(20, 25):
        service.call("insert", insert(number), str(number) if number % 2 else None)
os._exit(9)
"""


def dies(program: str, *arguments: str) -> int:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": PATHS}, check=False).returncode


@pytest.mark.parametrize("settles", [True, False])
def test_a_failed_note_and_a_kill_lose_nothing_that_was_acknowledged(tmp_path: Path, settles: bool) -> None:
    assert dies(DIES, str(tmp_path / "store"), "settles" if settles else "dies") == 9
    with Service.open(tmp_path / "store") as service:
        texts = set(service.store.texts)
        acknowledged = {f"{n}/{row}" for n in range(25 if settles else 20) for row in (0, 1)}
        assert acknowledged <= texts
        # The one that failed was settled by the next write, or was never acknowledged and is undone, whole.
        assert len(texts - acknowledged) == (600 if settles else 0)
        before = service.store.digest()
        service.call("observe", large(99), "stuck")
        assert (service.store.digest() == before) == settles
        assert len(service.store) == len(acknowledged) + 600


def test_a_locked_ledger_is_waited_for(tmp_path: Path) -> None:
    with Service.open(tmp_path / "store", CONFIG) as service:
        service.ledger._file.execute("PRAGMA busy_timeout=20")
        other = sqlite3.connect(tmp_path / "store" / FILE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(Unsettled, match="locked") as told:
                service.call("insert", insert(1), "a")
            assert told.value.errno == errno.EAGAIN
        assert len(service.store) == 0
        other.execute("ROLLBACK")
        other.close()
        service.call("insert", insert(1), "a")
        assert len(service.store) == 2


def test_a_write_that_failed_is_told_also_if_the_ledger_fails(tmp_path: Path) -> None:
    with Service.open(tmp_path / "store", CONFIG) as service:
        real = service.ledger.failed

        def locked(*given: Any) -> None:
            service.ledger._file.execute("PRAGMA busy_timeout=20")
            other = sqlite3.connect(tmp_path / "store" / FILE, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            try:
                real(*given)
            finally:
                other.close()

        service.ledger.failed = locked
        with pytest.raises(KeyError, match="900"):
            service.call("veto", {"episode": 900}, "a")
        service.ledger.failed = real
        with pytest.raises(KeyError, match="900"):
            service.call("veto", {"episode": 900}, "a")
        service.call("insert", insert(1), "b")


def test_a_store_opened_without_recovery_is_never_cut(tmp_path: Path) -> None:
    assert dies(DIES, str(tmp_path / "store"), "dies") == 9
    with Service(sw.ValueStore.open(tmp_path / "store")) as service:
        service.call("insert", insert(50), "later")
        with pytest.raises(Conflict, match="nobody knows"):
            service.call("observe", large(99), "stuck")
        digest = service.store.digest()
    with Service.open(tmp_path / "store") as service:
        assert service.settled is None
        assert service.store.digest() == digest


def test_an_intent_of_an_older_server_is_never_cut(tmp_path: Path) -> None:
    """Older servers went on behind an intent that they had failed to settle."""
    assert dies(DIES, str(tmp_path / "store"), "dies") == 9
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / FILE)) as file:
        file.execute("PRAGMA user_version=0")
    before = sw.ValueStore.load(tmp_path / "store").digest()
    with Service.open(tmp_path / "store") as service:
        assert service.store.digest() == before
        with pytest.raises(Conflict, match="nobody knows"):
            service.call("observe", large(99), "stuck")


# Each write once


def written(store: sw.ValueStore) -> dict[str, dict[str, Any]]:
    """Arguments of each verb that writes, for a store that has a channel and is calibrated no more."""
    return {
        "observe": {"steps": steps(1), "texts": list("abcdef")},
        "insert": {"keys": steps(2)},
        "replay": {"budget": 5},
        "veto": {"memory": int(store.ids[0]) if len(store) else 0},
        "checkpoint": {},
        "calibrate": {"steps": steps(3)},
        "add_terminal": {"name": "goal", "key": steps(4)[0]},
        "add_channel": {"name": "another"},
        "remove_channel": {"name": "verifier"},
        "bind_embedder": {"fingerprint": "an embedder"},
        "partition": {"blocks": 2, "seed": 1},
        "flush": {},
    }


WRITES = [name for name, verb in VERBS.items() if verb.kind == "write"] + ["become"]


@pytest.mark.parametrize("verb", WRITES)
def test_each_write_is_done_once_whatever_comes_between(tmp_path: Path, verb: str) -> None:
    """Sent again after another client's write, also by way of a new process, it changes nothing."""
    with Service.open(tmp_path / "store", crash.CONFIG) as service:
        if verb != "calibrate":
            service.call("observe", {"steps": steps(9, 12)})
            service.call("add_channel", {"name": "verifier"})
        other = sw.ValueStore(crash.CONFIG)
        other.observe(steps(8))
        snapshot = other.to_bytes()
        arguments = written(service.store)

        def ask(service: Service) -> Any:
            if verb == "become":
                return service.become(snapshot, "the key").result()
            return service.call(verb, arguments[verb], "the key")

        first = ask(service)
        service.call("observe", {"steps": steps(20), "texts": list("uvwxyz")}, "another client's")
        if verb == "partition":
            service.call("partition", {"blocks": 3, "seed": 2}, "another client's, too")
        after = service.store.digest()
        for name, value in ask(service).items():
            np.testing.assert_array_equal(value, first[name])
        assert service.store.digest() == after
    with Service.open(tmp_path / "store") as service:
        ask(service)
        assert service.store.digest() == after


BECOMES = """
import os, sys
from test_serve_ledger import *

service = Service.open(sys.argv[1], CONFIG)
service.call("insert", insert(1), "a")
def dies(*_): os._exit(9)
if sys.argv[2] == "before":
    sw.ValueStore.become = dies
else:
    Ledger.done = dies
service.become(Path(sys.argv[3]).read_bytes(), "the key").result()
"""


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_crash_while_a_snapshot_is_taken_over_is_settled(tmp_path: Path, where: str) -> None:
    other = sw.ValueStore(CONFIG)
    other.insert(steps(5))
    other.save(tmp_path / "other")
    assert dies(BECOMES, str(tmp_path / "store"), where, str(tmp_path / "other")) == 9
    with Service.open(tmp_path / "store") as service:
        assert (service.store.digest() == other.digest()) == (where == "after")
        assert service.settled is not None
        service.call("insert", insert(7), "another client's") if where == "after" else None
        before = service.store.digest()
        service.become((tmp_path / "other").read_bytes(), "the key").result()
        assert service.store.digest() == (before if where == "after" else other.digest())


# Kills


LIVES = """
import os, random, sys, threading
from test_serve_ledger import *

directory, seed = sys.argv[1], int(sys.argv[2])
chance = random.Random(seed)
service = Service.open(directory, CONFIG)
service.ledger._file.execute("PRAGMA busy_timeout=5")
run = service.ledger._file.execute
threading.Timer(chance.uniform(0.02, 0.15), lambda: os._exit(9)).start()
other = sqlite3.connect(os.path.join(directory, FILE), isolation_level=None, timeout=5)
number = 0
while True:
    # What fails: nothing, a page more, a lock of somebody else; it begins and ends anywhere.
    what = chance.choice(["nothing", "nothing", "full", "locked"])
    if what == "full":
        run(f"PRAGMA max_page_count={run('PRAGMA page_count').fetchone()[0]}")
    if what == "locked":
        with contextlib.suppress(sqlite3.Error):
            other.execute("BEGIN IMMEDIATE")
    for _ in range(chance.randrange(1, 6)):
        key = f"{seed}-{number}" if chance.random() < 0.8 else None
        rows = chance.choice([1, 3, 400])
        texts = [f"{seed}-{number}/{row}" for row in range(rows)]
        verb = chance.choice(["insert", "observe"])
        given = {"keys": steps(1000 * seed + number, rows)} if verb == "insert" else {
            "steps": steps(1000 * seed + number, rows), "offsets": np.arange(rows + 1)}
        number += 1
        try:
            service.call(verb, {**given, "texts": texts}, key)
        except Unsettled:
            continue
        os.write(1, f"{seed}-{number - 1} {rows}\\n".encode())
    run("PRAGMA max_page_count=1073741823")
    if other.in_transaction:
        other.execute("ROLLBACK")
"""


def test_kills_with_a_ledger_that_fails_lose_nothing_acknowledged_and_leave_nothing_in_parts(tmp_path: Path) -> None:
    acknowledged: dict[str, int] = {}
    environment = {**os.environ, "PYTHONPATH": PATHS}
    for seed in range(KILLS):
        command = [sys.executable, "-c", LIVES, str(tmp_path / "store"), str(seed)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 9
        for line in done.stdout.splitlines():
            name, rows = line.split()
            acknowledged[name] = int(rows)
    with Service.open(tmp_path / "store") as service:
        found: dict[str, list[str]] = {}
        for text in service.store.texts:
            assert text is not None
            found.setdefault(text.split("/")[0], []).append(text)
    assert len(acknowledged) > KILLS
    for name, rows in acknowledged.items():
        assert sorted(found[name]) == sorted(f"{name}/{row}" for row in range(rows)), name
    for name, texts in found.items():  # what was not acknowledged is there once and whole, or not at all
        assert len(texts) == len(set(texts)), name
        assert len(texts) in (1, 3, 400), name


def test_many_that_ask_meanwhile_are_refused_and_answered_later(tmp_path: Path) -> None:
    with Service.open(tmp_path / "store", CONFIG) as service:
        with full(service.ledger), pytest.raises(Unsettled):
            service.call("observe", large(1), "stuck")
        told: list[Any] = []
        threads = [
            threading.Thread(target=lambda n=n: told.append(service.call("insert", insert(n), str(n % 5))))
            for n in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == 5
        assert len(service.store) == 610


# A disk that is full while a killed server is opened again


RECOVERS = """
import ctypes, shutil
from test_serve_ledger import *

state, work = Path(sys.argv[1]), Path(sys.argv[2])
disk = ctypes.CDLL(None)
disk.full_after.argtypes = [ctypes.c_char_p, ctypes.c_long]
disk.full_refused.restype = ctypes.c_long

def child(work_of):
    process = os.fork()
    if process == 0:
        try:
            os._exit(work_of())
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

def opens(n):
    disk.full_after(os.fsencode(work), n)
    try:
        Service.open(work)
    except OSError as error:
        assert len(str(error).splitlines()) == 1, error
    return 1 if disk.full_refused() else 0  # and dies, whatever it was doing

def whole():
    with Service.open(work) as service:
        assert service.store.digest() == sys.argv[3]
    return 0

n = 0
while True:
    shutil.copytree(state, work)
    code = child(lambda: opens(n))
    assert code in (0, 1), n
    assert child(whole) == 0, n
    shutil.rmtree(work)
    if code == 0:
        break
    n += int(sys.argv[4])
print(n)
"""


def test_a_full_disk_at_any_step_of_the_recovery_loses_nothing(tmp_path: Path) -> None:
    library = tmp_path / "full.so"
    source = HELPERS / "full.c"
    subprocess.run(
        [*os.environ.get("CC", "cc").split(), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True
    )
    before = sw.ValueStore(CONFIG)
    for number in range(20):
        before.insert(insert(number)["keys"], texts=insert(number)["texts"])
    other = sw.ValueStore(CONFIG)
    other.insert(steps(5))
    other.save(tmp_path / "other")
    assert dies(DIES, str(tmp_path / "undone"), "dies") == 9
    assert dies(BECOMES, str(tmp_path / "became"), "after", str(tmp_path / "other")) == 9
    for name, store in (("undone", before), ("became", other)):
        command = [sys.executable, "-c", RECOVERS, str(tmp_path / name), str(tmp_path / "work"), store.digest(), STRIDE]
        environment = {**os.environ, "PYTHONPATH": PATHS, "LD_PRELOAD": str(library)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) > 3
