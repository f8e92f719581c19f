"""Forks while other threads use what has a lock or a connection."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import sharpwave as sw
from sharpwave import embed

pytestmark = pytest.mark.filterwarnings("ignore:the store has no channel")

FORKS = 40


def letters(texts: list[str]) -> np.ndarray:
    return np.array([[len(t) + 1, t.count("1") + 1.0] for t in texts], np.float32)


@contextmanager
def busy(work: Callable[[int], None], threads: int = 2) -> Iterator[None]:
    """Threads that do ``work`` over and over."""
    stop, failed = threading.Event(), []

    def run(thread: int) -> None:
        n = 0
        try:
            while not stop.is_set():
                work(n * threads + thread)
                n += 1
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    running = [threading.Thread(target=run, args=(t,)) for t in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in running:
            thread.join(30)
    assert not failed


def in_a_child(work: Callable[[], None]) -> int:
    """The exit code of a fork that does ``work``; one that hangs is ended by SIGALRM."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        work()
        code = 0
    finally:
        os._exit(code)


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_fork_while_threads_use_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    cache = embed.EmbeddingCache(path)

    def use(n: int) -> None:
        rows = cache.embed("m", [f"text {n}", f"text {n // 2}"], letters)
        assert (rows == letters([f"text {n}", f"text {n // 2}"])).all()

    def child() -> None:
        for n in range(3):
            use(10_000_000 + os.getpid() * 10 + n)
        cache.close()

    with busy(use):
        codes = [in_a_child(child) for _ in range(FORKS)]
    assert codes == [0] * FORKS
    cache.close()
    again = embed.EmbeddingCache(path)
    assert (again.embed("m", ["text 0", "text 1"], letters) == letters(["text 0", "text 1"])).all()
    assert again.misses == 0  # what the parent wrote is there, children or not


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_data_loaders_workers_use_the_cache(tmp_path: Path) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    cache = embed.EmbeddingCache(tmp_path / "cache.sqlite")

    class Rows:
        def __len__(self) -> int:
            return 24

        def __getitem__(self, n: int) -> np.ndarray:
            return cache.embed("m", [f"text {n}"], letters)[0]

    with busy(lambda n: cache.embed("m", [f"other {n}"], letters) is None):
        loader = torch_data.DataLoader(Rows(), batch_size=4, num_workers=2, multiprocessing_context="fork", timeout=60)
        rows = np.concatenate([batch.numpy() for batch in loader])
    np.testing.assert_array_equal(rows, letters([f"text {n}" for n in range(24)]))


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_fork_while_a_thread_holds_each_lock() -> None:
    """What a thread of the parent holds is free in the child, and the reward's own thread is there again."""
    from sharpwave.trainers import pointwise

    store = sw.ValueStore(sw.Config(dim=2))
    store.observe(letters(["a", "11"]), np.array([0, 2]))
    reward = sw.InstrumentalReward(store, letters, normalise="none")
    assert reward.submit(["a"], ["b c."]).result().rewards is not None
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with reward._lock, pointwise._making:
            held.set()
            done.wait(60)

    def child() -> None:
        assert reward._lock.acquire(blocking=False)
        reward._lock.release()
        assert pointwise._making.acquire(blocking=False)
        reward.submit(["a"], ["b c."]).result(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    code = in_a_child(child)
    done.set()
    thread.join()
    assert code == 0


def test_every_owner_of_a_lock_is_renewed_in_children() -> None:
    """A class that makes a lock, and is not told of forks, hangs in a child; those of a server are named here."""
    server = {"serve/service.py", "serve/ledger.py", "serve/batching.py"}
    package = Path(sw.__file__).parent
    makes = re.compile(r"threading\.(R?Lock|Condition)\(")
    missing = [
        name
        for path in sorted(package.rglob("*.py"))
        if makes.search(source := path.read_text("utf-8"))
        and "renewed_in_children" not in source
        and "register_at_fork" not in source
        and (name := str(path.relative_to(package))) not in server
    ]
    assert missing == ["_progress.py"]  # it ends with the command that shows it
