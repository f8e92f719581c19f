"""No panic reaches Python, no call is deaf to Ctrl-C, no request beyond the memory is granted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
from paths import ROOT
from sharpwave.cli import app

DIM = 32


def rows(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)


# Bugs


def test_a_panic_is_told_as_a_bug_and_the_store_is_not_used_again() -> None:
    store = sw.ValueStore(sw.Config(dim=DIM))
    store.observe(rows(5))
    view = store.frozen()
    digest = view.digest()
    with pytest.raises(RuntimeError, match="a bug in sharpwave: asked to"):
        store._core._panic()
    for call in (store.digest, store.replay, lambda: store.score(rows(3)), lambda: store.observe(rows(3))):
        with pytest.raises(RuntimeError, match="open or load it again"):
            call()
    assert view.digest() == digest  # a moment before is none the worse
    store.close()


def test_a_panic_leaves_no_record(tmp_path: Path) -> None:
    store = sw.ValueStore.open(tmp_path, sw.Config(dim=DIM))
    store.observe(rows(5))
    digest = store.digest()
    with pytest.raises(RuntimeError, match="bug"):
        store._core._panic()
    with sw.ValueStore.open(tmp_path) as again:  # the lock is free
        assert again.digest() == digest
        assert again.recovery == sw.Recovery(operations=1)


# Ctrl-C

INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np, sharpwave as sw
path, call = sys.argv[1:]
rows = lambda n, seed=0: np.random.default_rng(seed).standard_normal((n, 64), dtype=np.float32)
many = rows(4_000 if call in ("explain", "recall", "associate") else 600_000)
lives = call in ("flush", "close", "become", "veto", "episode", "insert there")
config = sw.Config(dim=64, keep_episodes=not lives or call == "veto")
store = sw.ValueStore.open(path, config) if lives else sw.ValueStore(config)
if call not in ("insert", "calibrate"):
    store.insert(many, texts=[f"text {i}" for i in range(len(many))] if call == "texts" else None)
if lives:
    store.insert(many[:50_000])  # the first was long enough for a snapshot of its own
if call in ("explain", "recall", "associate", "veto", "consolidate"):
    store.observe(many[:800], np.arange(0, 801, 8), propose=call == "consolidate")
if call == "frozen":
    view = store.frozen()
if call == "become":
    other = sw.ValueStore(config)
    other.insert(many[::-1])
before, size = store.digest(), len(store)
if call in ("load", "from_bytes"):
    store.save(path + "/copy.safetensors"); data = store.to_bytes()
calls = {
    "insert": lambda: store.insert(many),
    "insert there": lambda: store.insert(many),
    "episode": lambda: store.observe(many[:8000]),
    "calibrate": lambda: store.calibrate(many[:20000], [0, 20000]),
    "digest": store.digest,
    "keys": lambda: store.keys,
    "texts": lambda: store.texts,
    "explain": lambda: store.explain(np.tile(many, (20, 1)), np.arange(0, 80_001, 8)),
    "recall": lambda: store.recall_many(np.tile(many, (20, 1))),
    "associate": lambda: store.associate(np.tile(many, (20, 1))),
    "ablated": lambda: store.frozen().ablated(constant_transitions=True),
    "veto": lambda: store.veto(episode=0),
    "consolidate": lambda: store.replay(consolidate=True),
    "frozen": lambda: store.observe(many[:8]),  # the first write since, which copies the store
    "to_bytes": store.to_bytes,
    "save": lambda: store.save(path + "/saved.safetensors"),
    "flush": store.flush,
    "close": store.close,
    "become": lambda: store.become(other),
    "load": lambda: sw.ValueStore.load(path + "/copy.safetensors"),
    "from_bytes": lambda: sw.ValueStore.from_bytes(data),
}
pressed = 0.0
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
begun = threading.Event()
def press():
    global pressed
    begun.wait()
    time.sleep(0.005 if brief else 0.05)
    pressed = time.perf_counter()
    os.kill(os.getpid(), signal.SIGINT)
brief = call in ("keys", "texts", "ablated", "frozen")  # a copy of much memory and no more
timer = threading.Thread(target=press)
timer.start()
begun.set()
try:
    calls[call]()
except KeyboardInterrupt:
    took = time.perf_counter() - pressed
else:
    raise SystemExit(f"{call} went on to its end")
timer.join()
if call == "frozen":
    assert (view.digest(), len(view)) == (before, size)
if call == "close":
    assert store.closed
    store = sw.ValueStore.open(path)
assert (store.digest(), len(store)) == (before, size)
left = [name for name in os.listdir(path) if "saved" in name or ".tmp" in name]
assert not left, left
store.insert(rows(3)); store.observe(rows(5))
if lives:
    digest = store.digest(); del store
    assert sw.ValueStore.load(path).digest() == digest
print(took)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "call",
    [
        *["insert", "insert there", "episode", "calibrate", "frozen", "consolidate", "veto"],
        *["become", "flush", "close"],
        *["digest", "keys", "texts", "ablated", "explain", "recall", "associate"],
        *["to_bytes", "save", "load", "from_bytes"],
    ],
)
def test_ctrl_c_ends_what_takes_long_and_leaves_no_trace(tmp_path: Path, call: str) -> None:
    program = [sys.executable, "-c", INTERRUPTED, str(tmp_path), call]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    print(f"{call}: {1000 * float(done.stdout):.0f} ms")


# The GIL, beside the calls that tests/core/test_threads.py tries


@pytest.mark.parametrize("call", ["save", "flush", "load", "open"])
def test_other_threads_run_while_a_store_is_written_or_read(tmp_path: Path, call: str) -> None:
    where = tmp_path / "store"
    store = sw.ValueStore.open(where, sw.Config(dim=256, keep_episodes=False))
    store.insert(rows(30000, dim=256))
    if call in ("load", "open"):
        store.close()
    calls: dict[str, Callable[[], Any]] = {
        "save": lambda: store.save(tmp_path / "copy"),
        "flush": store.flush,
        "load": lambda: sw.ValueStore.load(where),
        "open": lambda: sw.ValueStore.open(where),
    }
    turns, done = 0, threading.Event()

    def work() -> None:
        try:
            calls[call]()
        finally:
            done.set()

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        while not done.is_set():
            time.sleep(0.0005)
            turns += 1
        working.result()
    assert turns > 5


# Requests


@pytest.mark.parametrize(
    ("argument", "request_"),
    [
        ("k", lambda s: s.search(rows(1), k=1 << 40)),
        ("k", lambda s: s.search(rows(200_000), k=1 << 20)),
        ("beams", lambda s: s.recall(rows(1)[0], beams=1 << 40)),
    ],
)
def test_a_request_beyond_the_memory_is_refused(argument: str, request_: Callable[[sw.ValueStore], Any]) -> None:
    store = sw.ValueStore(sw.Config(dim=DIM))
    store.insert(rows(50))
    with pytest.raises(ValueError, match=argument):
        request_(store)
    assert store.search(rows(1), k=3)[0].shape == (1, 3)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_counted() -> None:
    store = sw.ValueStore(sw.Config(dim=128))
    empty = store.nbytes
    assert empty < 10000
    before = resident()
    texts = [f"a text of some length, number {i}" for i in range(100_000)]
    keys = rows(100_000, dim=128)
    grown = resident()
    store.insert(keys, texts=texts)
    grown = resident() - grown
    assert store.nbytes - empty > 2 * keys.nbytes  # the keys, and the archive
    assert 0.5 * grown < store.nbytes < 1.6 * grown + before * 0.1
    assert store.frozen().nbytes == store.nbytes
    without = sw.ValueStore(sw.Config(dim=128, keep_episodes=False))
    without.insert(keys)
    assert without.nbytes < 0.75 * store.nbytes


# All at once


@pytest.mark.slow
def test_scorers_a_writer_and_a_sleeper_at_once(tmp_path: Path) -> None:
    """What a scorer sees is always one of the stores that the writer made, whole. Minutes of it in `make torture`."""
    seconds = float(os.environ.get("SHARPWAVE_SECONDS", "3"))
    steps = rows(24, seed=9)
    ends = np.arange(0, 25, 6)
    seen: set[bytes] = set()
    made: set[bytes] = set()
    stop, failed = threading.Event(), []

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                while not stop.is_set():
                    work()
            except BaseException as error:  # noqa: BLE001
                failed.append(error)
                stop.set()

        return run

    with sw.ValueStore.open(tmp_path, sw.Config(dim=DIM, tau=0.1, min_novelty=0.6, capacity=300)) as store:
        store.add_terminal("goal", rows(1, seed=1)[0])
        turns = {"write": 0, "sleep": 0}
        turn = threading.Lock()

        def note() -> None:
            made.add(store.frozen().score(steps, ends).step.tobytes())

        def write() -> None:
            with turn:
                store.observe(rows(8, seed=100 + turns["write"]))
                note()
            turns["write"] += 1
            if turns["write"] % 50 == 0:
                store.flush()

        def sleep() -> None:
            with turn:
                store.replay(budget=200)
                note()
            turns["sleep"] += 1

        def read() -> None:
            seen.add(store.score(steps, ends, num_threads=2).step.tobytes())
            store.search(steps, num_threads=1)

        note()
        threads = [threading.Thread(target=guarded(work)) for work in (write, sleep, read, read, read)]
        for thread in threads:
            thread.start()
        stop.wait(seconds)
        stop.set()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        assert min(turns.values()) > 5
        assert len(seen) > 5
        assert seen <= made
        digest = store.digest()
    assert sw.ValueStore.load(tmp_path).digest() == digest


# What is written down


def test_every_guarantee_names_tests_that_exist() -> None:
    """The tables of docs/trust.md, and the README's, which leads to each of them."""
    rust = ROOT / "rust" / "core"
    sources = [*(ROOT / "tests").rglob("*.py"), *(rust / "tests").rglob("*.rs"), *(rust / "src").rglob("*.rs")]
    there = {name for path in sources for name in re.findall(r"^(?:def|    fn|fn) (\w+)", path.read_text(), re.M)}
    page = (ROOT / "docs" / "trust.md").read_text().partition("## Limits")[0]
    rows = [line for line in page.splitlines() if line.startswith("| ") and line != "| guarantee | held by |"]
    assert len(rows) > 25
    for row in rows:
        named = re.findall(r"`([\w/.-]+)`", row.split("|")[2])
        assert named, row
        for name in named:
            assert (ROOT / name).exists() if re.search(r"[/.]", name) else name in there, name
    readme = (ROOT / "README.md").read_text()
    for part in re.findall(r"^## (.*)$", page, re.M):
        anchor = part.lower().replace(" ", "-")
        assert f"docs/trust.md#{anchor})" in readme, part


def test_texts_from_a_file_do_not_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = sw.ValueStore(sw.Config(dim=4))
    store.add_terminal("end\x1b]0;owned\x07", [1.0, 0, 0, 0])
    store.observe(np.eye(4, dtype=np.float32), texts=["", "\x1b[2Jgone", "a\rb ü", "\x9b31m"])
    store.save(tmp_path / "snapshot.safetensors")
    app(["inspect", str(tmp_path)])
    with pytest.raises(SystemExit):
        app(["inspect", str(tmp_path / "no\x1b[31m")])
    said = "".join(capsys.readouterr())
    assert r"\x1b[2Jgone" in said
    assert r"a\rb ü" in said
    assert not set(said) & {"\x1b", "\x07", "\r", "\x9b"}
