"""A store in a directory outlives its process: nothing acknowledged is lost, and a second writer is refused."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import crash
import numpy as np
import pytest
import sharpwave as sw
from crash import CONFIG, DIM

CRASHES = int(os.environ.get("SHARPWAVE_CRASHES", "26"))
HERE = Path(__file__).parent


def journal(directory: Path) -> Path:
    (path,) = (directory / "journal").glob("*.log")
    return path


def episode(seed: int, n: int = 6) -> np.ndarray:
    return crash.rows(np.random.default_rng(seed), n)


# Crashes


def killed(directory: Path, seed: int, first: int, durability: str, after: float) -> int:
    """Lives in a process that is killed ``after`` seconds; returns the number of the next operation by its account."""
    program = [sys.executable, str(HERE / "crash.py"), str(directory), str(seed), str(first), durability]
    with subprocess.Popen(program, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        said = child.stdout.readline().decode() if first % 2 else ""  # sometimes at once, sometimes after a while
        time.sleep(after)
        child.send_signal(signal.SIGKILL)
        said += child.stdout.read().decode()
    assert child.returncode == -signal.SIGKILL
    numbers = [int(line) for line in said.splitlines(keepends=True) if line.endswith("\n")]
    assert numbers == list(range(first, first + len(numbers)))
    return first + len(numbers)


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_killed_store_has_everything_that_was_acknowledged(tmp_path: Path, durability: str) -> None:
    """The same store is killed again and again; afterwards it is, bit for bit, one that was never killed."""
    chance = random.Random(durability)
    twins = crash.uncrashed(7)
    twin, done, moments = next(twins), 0, set[str]()
    for _ in range(CRASHES // 2):
        acknowledged = killed(tmp_path, 7, done, durability, chance.expovariate(1 / 0.06))
        for _ in range(acknowledged - done):
            twin = next(twins)
        done = acknowledged
        with sw.ValueStore.open(tmp_path, readonly=True) as store:
            found = store.recovery
            assert found is not None
            if store.to_bytes() != twin.to_bytes():  # the operation that was under way had been recorded
                twin, done = next(twins), done + 1
                moments.add("recorded, not acknowledged")
            assert store.digest() == twin.digest()
            assert store.to_bytes() == twin.to_bytes()
        moments.add("torn" if found.cut else "between two records")
    assert done >= CRASHES // 4
    assert "between two records" in moments
    sw.ValueStore.open(tmp_path).close()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_store_that_is_let_go_of_is_all_there(tmp_path: Path) -> None:
    store = sw.ValueStore.open(tmp_path, CONFIG)
    crash.operation(1, 1)(store)
    store.observe(episode(1))
    digest = store.digest()
    del store  # neither closed nor flushed
    with sw.ValueStore.open(tmp_path) as store:
        assert store.digest() == digest
        assert store.recovery == sw.Recovery(operations=2)


def test_a_torn_record_is_cut_off_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = sw.ValueStore.open(tmp_path, CONFIG)
    store.observe(episode(1))
    digest, whole = store.digest(), journal(tmp_path).stat().st_size
    store.observe(episode(2))
    del store
    os.truncate(journal(tmp_path), whole + 100)
    with sw.ValueStore.open(tmp_path, readonly=True) as store:
        assert store.digest() == digest
    assert journal(tmp_path).stat().st_size == whole + 100  # a reader changes nothing
    with caplog.at_level(logging.WARNING, logger="sharpwave"), sw.ValueStore.open(tmp_path) as store:
        assert store.digest() == digest
        assert store.recovery == sw.Recovery(operations=1, cut=100, cut_at=whole)
    assert "100 bytes" in caplog.messages[-1]
    with sw.ValueStore.open(tmp_path) as store:
        assert store.digest() == digest
        assert store.recovery == sw.Recovery(operations=0)


def test_what_a_dead_writer_left_half_written_is_removed(tmp_path: Path) -> None:
    with sw.ValueStore.open(tmp_path, CONFIG) as store:
        store.observe(episode(1))
        digest = store.digest()
    files = sorted(path.name for path in tmp_path.rglob("*"))
    others = [tmp_path / "notes.tmp", tmp_path / "snapshot.safetensors.copy"]
    left = [tmp_path / "snapshot.safetensors.123.tmp", tmp_path / "journal" / "00000002.log.tmp"]
    for path in [*left, *others]:
        path.write_bytes(b"half")
    sw.ValueStore.open(tmp_path, readonly=True).close()
    assert all(path.exists() for path in left)  # a reader changes nothing
    with sw.ValueStore.open(tmp_path) as store:
        assert store.digest() == digest
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted([*files, *(path.name for path in others)])


def test_a_damaged_middle_is_named_and_repaired(tmp_path: Path) -> None:
    twin = sw.ValueStore(CONFIG)
    store = sw.ValueStore.open(tmp_path, CONFIG)
    for seed in range(5):
        at = journal(tmp_path).stat().st_size
        store.observe(episode(seed), episode_ids=[seed])
        if seed == 2:
            damage = at
        else:
            twin.observe(episode(seed), episode_ids=[seed])
    del store
    data = bytearray(journal(tmp_path).read_bytes())
    data[damage + 400] ^= 4
    journal(tmp_path).write_bytes(data)
    for readonly in (False, True):
        with pytest.raises(sw.FormatError, match=rf"journal/00000001\.log: the record at byte {damage} is damaged"):
            sw.ValueStore.open(tmp_path, readonly=readonly)
    report = sw.ValueStore.repair(tmp_path)
    assert (report.operations, report.damaged, report.complete) == (4, 1, False)
    assert "1 operations are damaged and lost" in str(report)
    with sw.ValueStore.open(tmp_path) as store:
        assert store.digest() == twin.digest()
    assert (tmp_path / "journal" / "00000001.log.damaged").read_bytes() == data
    assert sw.ValueStore.repair(tmp_path).complete


# Snapshots


def test_a_flush_begins_a_new_journal(tmp_path: Path) -> None:
    with sw.ValueStore.open(tmp_path, CONFIG) as store:
        first = journal(tmp_path)
        store.flush()
        assert journal(tmp_path) == first  # nothing to do
        store.observe(episode(1))
        digest = store.digest()
        store.flush()
        assert journal(tmp_path) != first
        assert sw.ValueStore.load(tmp_path / "snapshot.safetensors").digest() == digest
        store.observe(episode(2))
        digest = store.digest()
        assert sw.ValueStore.load(tmp_path).digest() == digest
        with sw.ValueStore.open(tmp_path, readonly=True) as reader:
            assert reader.digest() == digest
            assert reader.recovery == sw.Recovery(operations=1)


def test_a_store_that_was_laid_out_anew_is_the_same(tmp_path: Path) -> None:
    """A snapshot puts the memories of a store that forgets back into the order of age; nothing else shows it."""
    config = sw.Config(dim=DIM, capacity=60, half_life=3, novelty=0.01)
    with sw.ValueStore.open(tmp_path, config) as store:
        twin = sw.ValueStore(config)
        for n in range(80):
            for one in (store, twin):
                one.observe(episode(n), texts=[f"{n} {t}" for t in range(6)])
            if n % 20 == 19:
                view, before = store.frozen(), store.score(episode(200))
                store.flush()
                np.testing.assert_array_equal(view.score(episode(200)).step, before.step)
            assert store.digest() == twin.digest()
        assert store.ids[-1] > 2 * len(store)  # most took the place of another
        store.replay()
        twin.replay()
        for a, b in zip(store.search(episode(201), 8), twin.search(episode(201), 8), strict=True):
            np.testing.assert_array_equal(a, b)
        for one in (store, twin):
            one.veto(episode=70)
        assert store.digest() == twin.digest()
        assert store.texts == twin.texts


def test_scoring_goes_on_during_a_snapshot(tmp_path: Path) -> None:
    with sw.ValueStore.open(tmp_path, sw.Config(dim=DIM, keep_episodes=False)) as store:
        store.insert(crash.rows(np.random.default_rng(0), 60000))
        steps = episode(5)
        expected, done = store.score(steps).step, threading.Event()

        def flush() -> None:
            store.flush()
            done.set()

        with ThreadPoolExecutor(1) as pool:
            flushing = pool.submit(flush)
            turns = 0
            while not done.is_set():
                np.testing.assert_array_equal(store.score(steps).step, expected)
                turns += not done.is_set()
            flushing.result()
        assert turns > 3


def test_a_snapshot_is_written_when_the_journal_is_long(tmp_path: Path) -> None:
    """From 64 MiB on, and then when it has outgrown the snapshot."""
    with sw.ValueStore.open(tmp_path, sw.Config(dim=1024, keep_episodes=False)) as store:
        wide = np.random.default_rng(0).normal(size=(6000, 1024)).astype(np.float32)
        first = journal(tmp_path)
        store.insert(wide)
        store.insert(wide)
        assert journal(tmp_path) == first
        store.insert(wide)
        assert journal(tmp_path) != first
        digest = store.digest()
    assert sw.ValueStore.load(tmp_path).digest() == digest


def test_the_largest_episode_id_comes_back(tmp_path: Path) -> None:
    largest = np.iinfo(np.int64).max - 1
    with sw.ValueStore.open(tmp_path, CONFIG) as store:
        store.observe(episode(1), episode_ids=[largest])
        with pytest.raises(ValueError, match="episode_ids"):
            store.observe(episode(2))
        digest = store.digest()
    assert sw.ValueStore.load(tmp_path).digest() == digest


def test_taking_over_another_store_is_durable(tmp_path: Path) -> None:
    other = sw.ValueStore(CONFIG)
    other.observe(episode(3))
    store = sw.ValueStore.open(tmp_path, CONFIG)
    store.observe(episode(1))
    view = store.frozen()
    before = view.digest()
    store.become(other)
    other.observe(episode(4))
    assert view.digest() == before
    store.observe(episode(5))
    digest = store.digest()
    assert digest != other.digest()
    del store
    with sw.ValueStore.open(tmp_path, CONFIG) as store:
        assert store.digest() == digest
    with pytest.raises(TypeError, match="other"):
        other.become(3)  # pyright: ignore[reportArgumentType]


# One writer, many readers


HOLDER = """
import sys, crash, sharpwave as sw
store = sw.ValueStore.open(sys.argv[1], crash.CONFIG)
crash.operation(0, 0)(store)
store.observe([[1.0] * crash.DIM])
print("open", flush=True)
sys.stdin.read()
store.close()
"""


@contextmanager
def held_elsewhere(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The store is open for writing in another process, until its stdin is closed."""
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    program = [sys.executable, "-c", HOLDER, str(directory)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(program, env=environment, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield process


@pytest.mark.slow
def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as process:
        with pytest.raises(BlockingIOError, match=f"open for writing in process {process.pid}") as refused:
            sw.ValueStore.open(tmp_path)
        assert refused.value.filename == str(tmp_path)
        with pytest.raises(BlockingIOError):
            sw.ValueStore.repair(tmp_path)
        with sw.ValueStore.open(tmp_path, readonly=True) as reader:
            assert reader.readonly
            assert reader.episodes_observed == 1
            for write in (
                lambda: reader.observe(episode(1)),
                reader.replay,
                lambda: reader.add_channel("x"),
                lambda: reader.veto(episode=0),
                lambda: reader.become(reader),
            ):
                with pytest.raises(ValueError, match="read-only"):
                    write()
            reader.flush()
            reader.partition(1)  # an index is nothing that is kept
            assert reader.blocks == 1
        process.communicate()
        with sw.ValueStore.open(tmp_path) as store:
            with pytest.raises(BlockingIOError, match="in this process already"):
                sw.ValueStore.open(tmp_path)
            assert store.episodes_observed == 1


@pytest.mark.slow
def test_a_killed_writers_lock_is_free(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as process:
        process.kill()
        process.wait()
        with sw.ValueStore.open(tmp_path) as store:
            assert store.episodes_observed == 1


ORPHAN = """
import os, sys, time
import sharpwave as sw
store = sw.ValueStore.open(sys.argv[1], sw.Config(dim=8))
store.insert([[1.0] + [0] * 7])
if os.fork() == 0:
    time.sleep(60)
    os._exit(0)
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_dead_writers_lock_is_taken_over_from_its_child(tmp_path: Path) -> None:
    """A child inherits the lock, so the system still holds it when the writer is dead; but the child cannot write."""
    with subprocess.Popen([sys.executable, "-c", ORPHAN, str(tmp_path)], start_new_session=True) as dead:
        dead.wait(timeout=30)
        try:
            assert dead.returncode == -signal.SIGKILL
            os.killpg(dead.pid, 0)  # the child lives
            with sw.ValueStore.open(tmp_path) as store:
                assert len(store) == 1
                with pytest.raises(BlockingIOError):
                    sw.ValueStore.open(tmp_path)
        finally:
            os.killpg(dead.pid, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_reads_and_does_not_write(tmp_path: Path) -> None:
    with sw.ValueStore.open(tmp_path, CONFIG) as store:
        store.observe(episode(1))
        size, digest = journal(tmp_path).stat().st_size, store.digest()
        child = os.fork()
        if child == 0:
            try:
                ok = store.digest() == digest
                try:
                    store.observe(episode(2))
                    ok = False
                except ValueError as error:
                    ok = ok and "forked" in str(error)
                store.close()
                os._exit(0 if ok else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert journal(tmp_path).stat().st_size == size
        with pytest.raises(BlockingIOError):
            sw.ValueStore.open(tmp_path)  # still the parent's
        store.observe(episode(2))
        digest = store.digest()
    assert sw.ValueStore.load(tmp_path).digest() == digest


def test_readers_beside_a_writer_always_see_a_whole_store(tmp_path: Path) -> None:
    """Also while the writer puts new snapshots and journals in place."""
    digests = {sw.ValueStore(CONFIG).digest()}
    with sw.ValueStore.open(tmp_path, CONFIG) as store, ThreadPoolExecutor(2) as pool:
        stop = threading.Event()

        def read() -> list[str]:
            seen = []
            while not stop.is_set():
                with sw.ValueStore.open(tmp_path, readonly=True) as reader:
                    seen.append(reader.digest())
            return seen

        readers = [pool.submit(read) for _ in range(2)]
        for seed in range(60):
            store.observe(episode(seed, 3))
            digests.add(store.digest())
            if seed % 3 == 0:
                store.flush()
        stop.set()
        for reader in readers:
            seen = reader.result()
            assert len(seen) > 2
            assert set(seen) <= digests


def test_threads_that_write_at_once_wait_for_the_disk_together(tmp_path: Path) -> None:
    store = sw.ValueStore.open(tmp_path, CONFIG, durability="power")
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(store.observe, map(episode, range(24))))
    assert sorted(int(r.episode_ids[0]) for r in reports) == list(range(24))
    digest = store.digest()
    del store
    assert sw.ValueStore.load(tmp_path).digest() == digest


def test_arguments_of_open(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='durability: "forever"'):
        sw.ValueStore.open(tmp_path / "a", CONFIG, durability="forever")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        sw.ValueStore.open(tmp_path / "a", CONFIG, readonly=True)
    assert not (tmp_path / "a").exists()
    memory = sw.ValueStore(CONFIG)
    assert not memory.readonly
    assert memory.recovery is None
    memory.flush()
