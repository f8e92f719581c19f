"""The disk refuses: full, read-only, or failing. The error is clear, nothing is lost, and one can go on."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import crash
import numpy as np
import pytest
import sharpwave as sw
from paths import HELPERS

BEGIN = """
import errno, os, resource, sys
from pathlib import Path
import crash, numpy as np, pytest, sharpwave as sw
from crash import CONFIG

here = Path(sys.argv[1])
where = here / "store"
steps = lambda seed, n=6: crash.rows(np.random.default_rng(seed), n)
fault = lambda name: Path(os.environ["FAULT_" + name])
"""


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes system calls fail. Rust needs a C compiler for linking, so there is one."""
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    compiler = os.environ.get("CC", "cc").split()
    subprocess.run([*compiler, "-shared", "-fPIC", "-O1", "-o", library, HELPERS / "faults.c", "-ldl"], check=True)
    return library


def run(code: str, directory: Path, shim: Path | None = None) -> None:
    """Runs code in a process of its own, in which the system may be made to refuse."""
    environment = {**os.environ, "PYTHONPATH": str(HELPERS)}
    if shim is not None:
        environment["LD_PRELOAD"] = str(shim)
        for name in ("FSYNC", "FOLDER", "WRITE", "TRUNCATE", "RENAME", "SLOW"):
            environment[f"FAULT_{name}"] = str(directory / name)
    program = [sys.executable, "-c", BEGIN + textwrap.dedent(code), str(directory)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_write_that_fails_halfway_is_undone(tmp_path: Path, shim: Path) -> None:
    run(
        """
        store = sw.ValueStore.open(where, CONFIG)
        store.observe(steps(1))
        before, size = store.digest(), (where / "journal/00000001.log").stat().st_size
        fault("WRITE").touch()
        for write in (lambda: store.observe(steps(2)), lambda: store.add_channel("x"), store.replay,
                      lambda: store.insert(steps(3)), lambda: store.veto(episode=0)):
            with pytest.raises(OSError) as refused:
                write()
            assert refused.value.errno == errno.ENOSPC
        assert store.digest() == before
        assert (where / "journal/00000001.log").stat().st_size == size
        assert store.score(steps(4)).step.shape == (6,)
        fault("WRITE").unlink()
        store.observe(steps(2))
        digest = store.digest()
        del store
        assert sw.ValueStore.load(where).digest() == digest
        """,
        tmp_path,
        shim,
    )


def test_a_write_that_cannot_be_undone_stops_the_writing_until_a_flush(tmp_path: Path, shim: Path) -> None:
    run(
        """
        store = sw.ValueStore.open(where, CONFIG)
        store.observe(steps(1))
        before = store.digest()
        fault("WRITE").touch(); fault("TRUNCATE").touch()
        with pytest.raises(OSError):
            store.observe(steps(2))
        fault("WRITE").unlink(); fault("TRUNCATE").unlink()
        with pytest.raises(OSError, match="flush"):
            store.observe(steps(2))
        assert store.digest() == before
        assert sw.ValueStore.load(where).digest() == before      # what is half there is torn
        store.flush()
        store.observe(steps(2))
        digest = store.digest()
        del store
        assert sw.ValueStore.load(where).digest() == digest
        """,
        tmp_path,
        shim,
    )


def test_a_disk_that_fails_undoes_what_it_refused(tmp_path: Path, shim: Path) -> None:
    """After a failed fsync nobody knows what the disk holds. The store is what was acknowledged, in memory and in its
    files, and takes no more writes until it is opened again."""
    run(
        """
        store = sw.ValueStore.open(where, CONFIG, durability="power")
        store.observe(steps(1))
        done, view = store.digest(), store.frozen()
        expected = store.score(steps(4)).step
        fault("FSYNC").touch()
        with pytest.raises(OSError) as refused:
            store.observe(steps(2))
        assert refused.value.errno == errno.EIO
        assert (store.digest(), store.episodes_observed) == (done, 1)
        fault("FSYNC").unlink()
        for write in (lambda: store.observe(steps(2)), store.replay, store.flush, lambda: store.veto(episode=0)):
            with pytest.raises(OSError, match="closed and opened again"):
                write()
        assert store.digest() == view.digest() == done
        np.testing.assert_array_equal(store.score(steps(4)).step, expected)
        assert sw.ValueStore.load(where).digest() == done
        store.close()
        with sw.ValueStore.open(where, durability="power") as store:
            assert store.digest() == done
            store.observe(steps(2))       # trying again does it once
            assert store.episodes_observed == 2
            done = store.digest()
        assert sw.ValueStore.load(where).digest() == done
        """,
        tmp_path,
        shim,
    )


def test_a_disk_that_fails_altogether_leaves_what_was_acknowledged_in_memory(tmp_path: Path, shim: Path) -> None:
    """When the refused record cannot even be cut off the journal, the file may have it and the store has not."""
    run(
        """
        from concurrent.futures import ThreadPoolExecutor
        store = sw.ValueStore.open(where, CONFIG, durability="power")
        store.observe(steps(1))
        done = store.digest()
        fault("FSYNC").touch(); fault("TRUNCATE").touch()

        def refused(seed):
            with pytest.raises(OSError):
                store.observe(steps(seed))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(refused, range(2, 6)))
        assert store.digest() == done
        store.close()
        fault("FSYNC").unlink(); fault("TRUNCATE").unlink()
        with sw.ValueStore.open(where, durability="power") as store:
            assert 1 <= store.episodes_observed <= 5
            store.observe(steps(7))
            done = store.digest()
        assert sw.ValueStore.load(where).digest() == done
        """,
        tmp_path,
        shim,
    )


def test_what_was_read_is_brought_to_the_disk_before_it_is_gone_on_from(tmp_path: Path, shim: Path) -> None:
    """The system may have read it from its memory, though the process before failed to bring it to the disk."""
    run(
        """
        store = sw.ValueStore.open(where, CONFIG, durability="power")
        store.observe(steps(1))
        done = store.digest()
        del store
        log = where / "journal/00000001.log"
        before, number = log.read_bytes(), log.stat().st_ino
        fault("FSYNC").touch()
        with pytest.raises(OSError) as refused:
            sw.ValueStore.open(where, durability="power")
        assert refused.value.errno == errno.EIO
        assert [p.name for p in (where / "journal").iterdir()] == [log.name]
        assert (log.read_bytes(), log.stat().st_ino) == (before, number)
        store = sw.ValueStore.open(where)          # what need not survive a power cut need not be there
        assert store.digest() == done
        del store
        assert log.stat().st_ino == number
        fault("FSYNC").unlink()
        store = sw.ValueStore.open(where, durability="power")
        assert store.digest() == done
        assert log.read_bytes() == before
        assert log.stat().st_ino != number         # written anew
        """,
        tmp_path,
        shim,
    )


def test_a_snapshot_that_may_not_stay_in_place_ends_the_writing(tmp_path: Path, shim: Path) -> None:
    """It was renamed, but the directory was not brought to the disk: the old one may come back after a power cut, and
    what is written to the new journal would not belong to it."""
    run(
        """
        store = sw.ValueStore.open(where, CONFIG, durability="power")
        store.observe(steps(1))
        done = store.digest()
        fault("FOLDER").touch()
        with pytest.raises(OSError) as refused:
            store.flush()
        assert refused.value.errno == errno.EIO
        fault("FOLDER").unlink()
        with pytest.raises(OSError, match="closed and opened again"):
            store.observe(steps(2))
        assert store.digest() == done
        store.close()
        with sw.ValueStore.open(where, durability="power") as store:
            assert store.digest() == done
            store.observe(steps(2))
        """,
        tmp_path,
        shim,
    )


def test_without_power_durability_nobody_asks_the_disk(tmp_path: Path, shim: Path) -> None:
    run(
        """
        store = sw.ValueStore.open(where, CONFIG)
        fault("FSYNC").touch()
        store.observe(steps(1))
        done = store.digest()
        store.close()          # no snapshot can be written; the journal has it all
        assert sw.ValueStore.load(where).digest() == done
        with sw.ValueStore.open(where, readonly=True) as store:
            assert store.recovery.operations == 1
        """,
        tmp_path,
        shim,
    )


@pytest.mark.parametrize("fault", ["FSYNC", "RENAME", "WRITE"])
def test_a_snapshot_that_fails_leaves_all_as_it_was(tmp_path: Path, shim: Path, fault: str) -> None:
    run(
        f"""
        store = sw.ValueStore.open(where, CONFIG)
        store.observe(steps(1))
        files = sorted(p.relative_to(where) for p in where.rglob("*"))
        fault("{fault}").touch()
        with pytest.raises(OSError):
            store.flush()
        with pytest.raises(OSError):
            store.save(here / "no such place" / "x" if "{fault}" == "WRITE" else here / "copy.safetensors")
        assert sorted(p.relative_to(where) for p in where.rglob("*")) == files
        assert not list(here.glob("copy*"))
        fault("{fault}").unlink()
        store.observe(steps(2))
        digest = store.digest()
        assert sw.ValueStore.load(where).digest() == digest
        store.flush()
        assert sw.ValueStore.load(where).digest() == digest
        """,
        tmp_path,
        shim,
    )


def test_many_calls_wait_for_one_sync(tmp_path: Path, shim: Path) -> None:
    run(
        """
        from concurrent.futures import ThreadPoolExecutor
        store = sw.ValueStore.open(where, CONFIG, durability="power")
        fault("SLOW").touch()
        for seed in range(4):
            store.observe(steps(seed))
        alone = fault("SLOW").stat().st_size
        assert alone == 4
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(store.observe, map(steps, range(64))))
        together = fault("SLOW").stat().st_size - alone
        assert together < 32, together
        """,
        tmp_path,
        shim,
    )


FULL = """
    import errno
    store = sw.ValueStore.open(where, CONFIG)
    store.observe(steps(1))
    {limit}
    refused, done = 0, store.digest()
    for seed in range(3000):
        try:
            store.observe(steps(seed, 40))
            done = store.digest()
        except OSError as error:
            assert error.errno in (errno.EFBIG, errno.ENOSPC), error
            refused += 1
            if refused > 3:
                break
    assert refused > 3
    assert store.digest() == done
    store.score(steps(5))
    with pytest.raises(OSError):
        store.flush()
    with pytest.raises(OSError):
        store.save(where / "copy.safetensors")
    assert not list(where.glob("copy*")), list(where.iterdir())
    assert sw.ValueStore.load(where).digest() == done
    store.close()
    with sw.ValueStore.open(where, readonly=True) as store:
        assert store.digest() == done
"""


def test_a_full_disk_by_the_limit_of_a_files_size(tmp_path: Path) -> None:
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, resource.RLIM_INFINITY))"
    run(FULL.format(limit=limit), tmp_path)


def test_a_full_disk(tmp_path: Path) -> None:
    """A file system of 256 KiB in a namespace of its own, where one can be made; else the limit again, lower."""
    probe = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=256k none {tmp_path}"
    try:
        mounts = subprocess.run([*probe, mount], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounts = False
    if not mounts:
        run(FULL.format(limit="resource.setrlimit(resource.RLIMIT_FSIZE, (50000, resource.RLIM_INFINITY))"), tmp_path)
        return
    code = BEGIN + textwrap.dedent(FULL.format(limit=""))
    program = f'{mount} && exec {sys.executable} -c "$CODE" {tmp_path}'
    environment = {**os.environ, "PYTHONPATH": str(HELPERS), "CODE": code}
    done = subprocess.run([*probe, program], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def drop_privileges() -> None:
    """Root may write anywhere; without this capability, where the permissions let it."""
    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        sets = (ctypes.c_uint32 * 6)()
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.capget(header, sets) == 0
        for at in (0, 1):  # effective and permitted; CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
            sets[at] &= ~0b110
        assert libc.capset(header, sets) == 0


def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    where = tmp_path / "store"
    with sw.ValueStore.open(where, sw.Config(dim=4)) as store:
        store.insert([[1.0, 0, 0, 0]])
        digest = store.digest()
    folders = [where / "journal", where, tmp_path]
    for path in [*where.rglob("*.*"), *folders]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    (where / "lock").chmod(0o444)
    child = os.fork()
    if child == 0:
        code = 3
        try:
            drop_privileges()
            with sw.ValueStore.open(where, readonly=True) as store:
                assert store.digest() == digest
            for name, config in (("store", None), ("new", sw.Config(dim=4))):
                with pytest.raises(PermissionError) as refused:
                    sw.ValueStore.open(tmp_path / name, config)
                assert refused.value.errno == errno.EACCES
                assert refused.value.filename == str(tmp_path / name)
            code = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    for path in reversed(folders):
        path.chmod(0o755)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_record_that_was_not_finished_when_the_process_died_is_not_there(tmp_path: Path) -> None:
    """The limit of the file's size falls into the middle of a record, and its signal kills."""
    where = tmp_path / "store"
    with sw.ValueStore.open(where, crash.CONFIG) as store:
        store.observe(crash.rows(np.random.default_rng(1), 6))
        digest = store.digest()
    code = """
        import signal
        store = sw.ValueStore.open(where)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 + 200, resource.RLIM_INFINITY))
        store.observe(steps(2, 40))
    """
    program = [sys.executable, "-c", BEGIN + textwrap.dedent(code), str(tmp_path)]
    done = subprocess.run(program, env={**os.environ, "PYTHONPATH": str(HELPERS)}, capture_output=True, check=False)
    assert done.returncode == -signal.SIGXFSZ
    with sw.ValueStore.open(where) as store:
        assert store.digest() == digest
        assert store.recovery == sw.Recovery(operations=0, cut=200, cut_at=64)


# Every step that changes what is on the disk, one after the other: the last, or the first for which there is no room

STEPS = """
import ctypes, shutil, signal, traceback

shim = ctypes.CDLL(None)
shim.fault_at.argtypes = (ctypes.c_long, ctypes.c_char)
before = here / "before"                       # what the directory was, for each step anew

def arm():
    shim.fault_at(step, how)

def steps_of(act, check):
    # `act` arms the fault and goes on; it may raise OSError. `check` is told whether it came to its end.
    global step
    for step in range(1, 100):
        shutil.rmtree(where, ignore_errors=True)
        if before.exists():
            shutil.copytree(before, where)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                act()
                code = 0
            except OSError as error:
                code = 2 if error.errno == errno.ENOSPC else 1
                if code == 1:
                    traceback.print_exc()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in ((0, -signal.SIGKILL) if how == b"k" else (0, 2)), (step, code)
        left = sorted(p.name for p in where.rglob("*.tmp")) if where.exists() else []
        assert how == b"k" or not left, (step, left)
        check(code == 0)
        if code == 0 and (how == b"k" or act.__name__ != "closed"):
            break
        if code == 0 and step > 30:            # a store is closed also where no snapshot can be written
            break
    assert step > 4, step

def written(path, *seeds):
    store = sw.ValueStore.open(path, CONFIG)
    for seed in seeds:
        store.observe(steps(seed), episode_ids=[seed])
    return store

def opened():
    with sw.ValueStore.open(where, readonly=True) as store:
        read = store.digest()
    with sw.ValueStore.open(where) as store:
        assert store.digest() == read
        store.add_channel("more")              # it can be gone on with
    assert not list(where.rglob("*.tmp"))
    return read

twin = written(here / "twin", 1, 2)
done = twin.digest()
twin.close()
"""

LIVES = {
    "created": """
        def created():
            arm()
            sw.ValueStore.open(where, CONFIG)
        empty = sw.ValueStore(CONFIG).digest()

        def check(whole):
            with sw.ValueStore.open(where, CONFIG) as store:
                assert store.digest() == empty
        steps_of(created, check)
        """,
    "flushed": """
        def flushed():
            store = written(where, 1, 2)
            arm()
            store.flush()
        steps_of(flushed, lambda whole: opened() == done or pytest.fail(f"step {step}"))
        """,
    "closed": """
        def closed():
            store = written(where, 1, 2)
            arm()
            store.close()
        steps_of(closed, lambda whole: opened() == done or pytest.fail(f"step {step}"))
        """,
    "opened for the power's end": """
        written(before, 1, 2)
        def reopened():
            arm()
            sw.ValueStore.open(where, durability="power")
        steps_of(reopened, lambda whole: opened() == done or pytest.fail(f"step {step}"))
        """,
    "saved": """
        where.mkdir()
        sw.ValueStore.load(here / "twin").save(where / "copy")
        where.rename(before)
        other = sw.ValueStore(CONFIG)
        def saved():
            arm()
            other.save(where / "copy")
        def check(whole):
            found = sw.ValueStore.load(where / "copy").digest()
            assert found in (done, other.digest()) and (not whole or found == other.digest())
        steps_of(saved, check)
        """,
    "repaired": """
        written(before, 1, 2, 3, 4)
        log = before / "journal/00000001.log"
        data = bytearray(log.read_bytes())
        data[64 + 24 + 300] ^= 1               # the first of them
        log.write_bytes(data)
        twin = sw.ValueStore(CONFIG)
        for seed in (2, 3, 4):
            twin.observe(steps(seed), episode_ids=[seed])

        def repaired():
            arm()
            sw.ValueStore.repair(where)
        ends = set()
        def check(whole):
            report = sw.ValueStore.repair(where)
            begun = report.operations == 0      # the snapshot was in place
            ends.add(begun)
            assert not report.complete, step
            if begun:
                assert report.set_aside == [("journal/00000001.log.damaged", 4)]
            else:
                assert (report.operations, report.damaged, report.set_aside) == (3, 1, [])
            aside = [p.name for p in where.rglob("*.damaged*")]
            assert aside == ["00000001.log.damaged"]
            assert (where / "journal" / aside[0]).read_bytes() == data
            assert sw.ValueStore.load(where).digest() == twin.digest()
            assert not list(where.rglob("*.tmp"))
            again = sw.ValueStore.repair(where)
            assert again.set_aside == [("journal/00000001.log.damaged", 4)] and not again.complete
        steps_of(repaired, check)
        assert ends == {False, True}
        (where / "journal/00000001.log.damaged").unlink()
        assert sw.ValueStore.repair(where).complete
        """,
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("how", ["killed", "full"])
@pytest.mark.parametrize("life", list(LIVES))
def test_every_step_may_be_the_last_or_find_no_room(tmp_path: Path, shim: Path, life: str, how: str) -> None:
    run(STEPS + f"how = b{how[0]!r}\n" + textwrap.dedent(LIVES[life]), tmp_path, shim)
