"""A store in a directory outlives its process: nothing acknowledged is lost, and a second writer is refused."""

from __future__ import annotations

import logging
import os
import random
import shutil
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
from paths import HELPERS

pytestmark = pytest.mark.filterwarnings("ignore:the store has no channel")

CRASHES = int(os.environ.get("SHARPWAVE_CRASHES", "26"))


def journal(directory: Path) -> Path:
    (path,) = (directory / "journal").glob("*.log")
    return path


def episode(seed: int, n: int = 6) -> np.ndarray:
    return crash.rows(np.random.default_rng(seed), n)


# Crashes


def killed(directory: Path, seed: int, first: int, durability: str, after: float) -> int:
    """Lives in a process that is killed ``after`` seconds; returns the number of the next operation by its account."""
    program = [sys.executable, str(HELPERS / "crash.py"), str(directory), str(seed), str(first), durability]
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
    again = sw.ValueStore.repair(tmp_path)
    assert again.set_aside == [("journal/00000001.log.damaged", 5)]
    assert not again.complete
    (tmp_path / "journal" / "00000001.log.damaged").unlink()
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
    config = sw.Config(dim=DIM, capacity=60, half_life=3, min_novelty=0.01)
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
    environment = {**os.environ, "PYTHONPATH": str(HELPERS)}
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
runs, tell = os.pipe()
if os.fork() == 0:
    os.write(tell, b"!")
    time.sleep(60)
    os._exit(0)
os.read(runs, 1)  # what a fork does in the child is done
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_dead_writers_lock_is_free_though_its_child_lives(tmp_path: Path) -> None:
    """A child inherits what its parent has open; it lets go of the lock at once, since it cannot write."""
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


# Where a store is


def three(directory: Path, seed: int) -> str:
    with sw.ValueStore.open(directory, CONFIG) as store:
        store.insert(episode(seed, 3))
        return store.digest()


@pytest.mark.parametrize("end", ["close", "flush", "neither"])
def test_a_store_is_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """Another working directory, with a store of that name or without one, is nothing to it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "empty").mkdir()
    other = three(tmp_path / "b" / "store", 1)
    monkeypatch.chdir(tmp_path / "a")
    store = sw.ValueStore.open("store", CONFIG)
    assert store.path == tmp_path / "a" / "store"
    for place in ("b", "empty"):
        monkeypatch.chdir(tmp_path / place)
        store.insert(episode(2, 5))
        if end != "neither":
            store.flush()
            store.insert(episode(3, 2))
        with pytest.raises(BlockingIOError, match="in this process already"):
            sw.ValueStore.open(tmp_path / "a" / "store")
    digest = store.digest()
    if end == "close":
        store.close()
    del store
    assert sw.ValueStore.load(tmp_path / "a" / "store").digest() == digest
    assert sw.ValueStore.load(tmp_path / "b" / "store").digest() == other
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("end", ["close", "flush", "become", "neither"])
@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_directory_that_is_moved_takes_its_store_along(tmp_path: Path, end: str, durability: Any) -> None:
    """The one that takes its place is another store, with a writer of its own."""
    store = sw.ValueStore.open(tmp_path / "store", CONFIG, durability=durability)
    store.insert(episode(1, 5))
    (tmp_path / "store").rename(tmp_path / "moved")
    other = sw.ValueStore.open(tmp_path / "store", CONFIG)
    other.insert(episode(2, 3))
    beside = other.digest()
    store.insert(episode(3, 4))
    with pytest.raises(BlockingIOError):
        sw.ValueStore.open(tmp_path / "moved")
    if end == "become":
        store.become(sw.ValueStore(CONFIG))
    elif end != "neither":
        store.flush()
    store.insert(episode(4, 2))
    digest = store.digest()
    if end == "close":
        store.close()
    del store
    assert (other.digest(), len(other)) == (beside, 3)
    other.close()
    assert sw.ValueStore.load(tmp_path / "store").digest() == beside
    assert sw.ValueStore.load(tmp_path / "moved").digest() == digest
    with sw.ValueStore.open(tmp_path / "moved") as moved:
        assert moved.digest() == digest


@pytest.mark.parametrize("what", ["store", "store/journal", "store/journal/00000001.log", "another in its place"])
def test_what_would_be_written_where_nobody_finds_it_is_refused(tmp_path: Path, what: str) -> None:
    where = tmp_path / "store"
    other = three(tmp_path / "other", 1)
    store = sw.ValueStore.open(where, CONFIG)
    store.insert(episode(1, 5))
    digest = store.digest()
    if what == "another in its place":  # file by file, as a backup is put back
        shutil.rmtree(where / "journal")
        for path in where.iterdir():
            path.unlink()
        shutil.copytree(tmp_path / "other", where, dirs_exist_ok=True)
    elif what == "store":
        shutil.rmtree(where)
    else:
        (tmp_path / what).rename(tmp_path / "aside")
    for write in (lambda: store.insert(episode(2, 2)), store.flush, store.replay, store.close):
        with pytest.raises(OSError, match="removed or replaced while the store was open"):
            write()
    assert store.digest() == digest
    store.save(tmp_path / "rescued")
    assert sw.ValueStore.load(tmp_path / "rescued").digest() == digest
    if what == "another in its place":
        assert sw.ValueStore.load(where).digest() == other


def test_a_lock_that_is_removed_still_holds(tmp_path: Path) -> None:
    """Whoever takes the file for a remainder and removes it does not become a second writer."""
    with sw.ValueStore.open(tmp_path, CONFIG) as store:
        store.insert(episode(1, 3))
        (tmp_path / "lock").unlink()
        with pytest.raises(BlockingIOError):
            sw.ValueStore.open(tmp_path)
        with pytest.raises(BlockingIOError):
            sw.ValueStore.repair(tmp_path)
        store.insert(episode(2, 3))
        digest = store.digest()
    with sw.ValueStore.open(tmp_path) as store:
        assert store.digest() == digest


@contextmanager
def in_another_namespace(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A writer whose process has another number where it lives: in a container, 1 or so."""
    program = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", HOLDER]
    if os.geteuid() != 0:
        program[1:1] = ["--user", "--map-root-user"]
    environment = {**os.environ, "PYTHONPATH": str(HELPERS)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*program, str(directory)], env=environment, **pipes) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"open\n":
            pytest.skip("no namespaces may be made here")
        yield process


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="namespaces")
def test_a_writer_in_another_namespace_keeps_its_lock(tmp_path: Path) -> None:
    with in_another_namespace(tmp_path) as process:
        for _ in range(2):
            with pytest.raises(BlockingIOError, match="open for writing"):
                sw.ValueStore.open(tmp_path)
            with pytest.raises(BlockingIOError):
                sw.ValueStore.repair(tmp_path)
        process.communicate()
    with sw.ValueStore.open(tmp_path) as store:
        assert store.episodes_observed == 1


def test_what_a_lock_says_decides_nothing(tmp_path: Path) -> None:
    """Neither the number of a dead process, nor nonsense, nor this process, opens the door."""
    says = ['{"process": 4194303, "began": 1, "machine": "gone"}', '{"process": 4194303, "machine": ""}', "\udcff{", ""]
    with sw.ValueStore.open(tmp_path, CONFIG):
        for text in says:
            (tmp_path / "lock").write_text(text, errors="surrogateescape")
            with pytest.raises(BlockingIOError, match="in this process already"):
                sw.ValueStore.open(tmp_path)
    (tmp_path / "lock").write_text(f'{{"process": {os.getpid()}, "machine": "{os.uname().nodename}"}}')
    sw.ValueStore.open(tmp_path).close()


# Whose the files are


def modes(directory: Path) -> set[tuple[bool, int]]:
    return {(path.is_dir(), path.stat().st_mode & 0o777) for path in [directory, *directory.rglob("*")]}


def test_files_are_their_owners_alone_and_keep_what_was_set(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        where = tmp_path / "above" / "store"
        with sw.ValueStore.open(where, CONFIG, durability="power") as store:
            store.insert(episode(1, 3))
            store.flush()
            store.save(tmp_path / "copy")
            assert modes(where) == {(True, 0o700), (False, 0o600)}
            assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
            for path, mode in ((where, 0o750), (where / "journal", 0o750), (tmp_path / "copy", 0o644)):
                path.chmod(mode)
            for path in (where / "snapshot.safetensors", journal(where)):
                path.chmod(0o640)
            (where / "lock").chmod(0o644)
            store.save(tmp_path / "copy")
            assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o644
            store.insert(episode(2, 3))
            store.flush()
            store.insert(episode(3, 3))
        with sw.ValueStore.open(where, durability="power") as store:
            store.insert(episode(4, 3))
        for path in (where / "snapshot.safetensors", journal(where)):
            assert path.stat().st_mode & 0o777 == 0o640
        sw.ValueStore.repair(where)
        (where / "snapshot.safetensors").chmod(0o400)
        with sw.ValueStore.open(where) as store:
            store.insert(episode(5, 3))
        assert (where / "snapshot.safetensors").stat().st_mode & 0o777 == 0o400
        assert (where / "lock").stat().st_mode & 0o777 == 0o644
        assert {mode for folder, mode in modes(where) if folder} == {0o750}
    finally:
        os.umask(before)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files to other groups")
def test_a_group_that_was_set_is_kept(tmp_path: Path) -> None:
    with sw.ValueStore.open(tmp_path, CONFIG) as store:
        store.insert(episode(1, 3))
        for path in (tmp_path / "snapshot.safetensors", journal(tmp_path)):
            os.chown(path, -1, 4242)
            path.chmod(0o640)
    for path in (tmp_path / "snapshot.safetensors", journal(tmp_path)):
        assert (path.stat().st_gid, path.stat().st_mode & 0o777) == (4242, 0o640)


def test_nothing_that_is_written_follows_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    where, other = tmp_path / "store", tmp_path / "other"
    with sw.ValueStore.open(where, CONFIG) as store:
        store.insert(episode(1, 3))
    names = ["snapshot.safetensors.{}.tmp", "journal/00000003.log.{}.tmp", "lock.door"]
    for name in (os.getpid(), 1, "tmp"):
        for pattern in names:
            (where / pattern.format(name)).unlink(missing_ok=True)
            (where / pattern.format(name)).symlink_to(victim)
    with sw.ValueStore.open(where, durability="power") as store:
        (where / f"snapshot.safetensors.{os.getpid()}.tmp").symlink_to(victim)
        (where / "journal" / "00000003.log").symlink_to(victim)
        store.insert(episode(2, 3))
        store.flush()
        digest = store.digest()
    assert sw.ValueStore.load(where).digest() == digest
    # The journal of another store, and a lock that is elsewhere.
    three(other, 5)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    for name in ("lock", "journal"):
        mine = tmp_path / f"with another's {name}"
        shutil.copytree(where, mine)
        shutil.rmtree(mine / name) if name == "journal" else (mine / name).unlink()
        (mine / name).symlink_to(other / name)
        with pytest.raises(OSError, match="link"):
            sw.ValueStore.open(mine)
    assert before == {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    assert victim.read_text() == "untouched"
    (tmp_path / "linked").symlink_to(where)  # a store may be reached through one
    with sw.ValueStore.open(tmp_path / "linked") as store:
        assert store.digest() == digest
    # A snapshot that is a link, as a hub's cache has it, is read; what replaces it is a file.
    (where / "snapshot.safetensors").rename(tmp_path / "blob")
    (where / "snapshot.safetensors").symlink_to(tmp_path / "blob")
    blob = (tmp_path / "blob").read_bytes()
    with sw.ValueStore.open(where) as store:
        assert store.digest() == digest
        store.insert(episode(3, 1))
    assert (tmp_path / "blob").read_bytes() == blob


def test_a_copy_made_of_links_is_a_store_of_its_own(tmp_path: Path) -> None:
    """As backups make them (``cp -al``, ``rsync --link-dest``)."""
    store = sw.ValueStore.open(tmp_path / "store", CONFIG)
    store.insert(episode(1, 3))
    digest = store.digest()
    del store
    shutil.copytree(tmp_path / "store", tmp_path / "copy", copy_function=os.link)
    store = sw.ValueStore.open(tmp_path / "copy")
    store.insert(episode(2, 3))
    copy = store.digest()
    del store
    assert sw.ValueStore.load(tmp_path / "store").digest() == digest
    assert sw.ValueStore.load(tmp_path / "copy").digest() == copy


# Repairs


def test_a_repair_that_an_earlier_version_broke_off_is_finished(tmp_path: Path) -> None:
    """It had renamed the journals, and the snapshot was as before."""
    store = sw.ValueStore.open(tmp_path, CONFIG)
    store.insert(episode(1, 50))
    store.flush()
    store.insert(episode(2, 50))
    digest = store.digest()
    del store
    log = journal(tmp_path)
    log.rename(log.with_suffix(".log.damaged"))
    report = sw.ValueStore.repair(tmp_path)
    assert (report.operations, report.complete, report.missing) == (1, True, False)
    with sw.ValueStore.open(tmp_path) as store:
        assert (len(store), store.digest()) == (100, digest)
    assert sw.ValueStore.repair(tmp_path).complete


def test_a_repair_counts_what_it_cannot_use(tmp_path: Path) -> None:
    store = sw.ValueStore.open(tmp_path / "store", CONFIG)
    store.insert(episode(1, 5))
    shutil.copy(tmp_path / "store" / "snapshot.safetensors", tmp_path / "old")
    store.flush()
    store.insert(episode(2, 5))
    store.insert(episode(3, 5))
    del store
    shutil.copy(tmp_path / "old", tmp_path / "store" / "snapshot.safetensors")  # a backup is put back
    with pytest.raises(sw.FormatError):
        sw.ValueStore.open(tmp_path / "store")
    for _ in range(2):
        report = sw.ValueStore.repair(tmp_path / "store")
        assert report.set_aside == [("journal/00000002.log.damaged", 2)]
        assert not report.complete
        assert "holds 2 operations that the store may not have" in str(report)
    with sw.ValueStore.open(tmp_path / "store") as store:
        assert len(store) == 0
