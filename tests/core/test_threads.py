"""Threads, signals and forks: no call holds the GIL, readers never wait for a sleep, and Ctrl-C gets in."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import sharpwave as sw

DIM = 32


def unit_rows(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def new_store(n: int = 0, **numbers: Any) -> sw.ValueStore:
    store = sw.ValueStore(sw.Config(dim=DIM, **numbers))
    store.add_terminal("goal", unit_rows(1, seed=1)[0])
    store.insert(unit_rows(n, seed=2))
    return store


def restless_store(ring: int = 384, channels: int = 64) -> sw.ValueStore:
    """A ring of memories that full sweeps take about a second to settle: the values go round and round."""
    store = sw.ValueStore(sw.Config(dim=ring, tau=0.9, gamma=0.9999, epsilon=1e-3, equation="return"))
    for channel in range(channels):
        store.add_channel(f"verifier {channel}")
    store.observe(np.tile(np.eye(ring, dtype=np.float32), (2, 1)), drives=np.ones((2 * ring, channels)))
    return store


def long_sleep(store: sw.ValueStore) -> sw.ReplayReport:
    return store.replay(order="full", tol=0)


# The GIL


QUERIES = unit_rows(20000, seed=5)
BY_EIGHT = np.arange(0, 20001, 8)

LONG_CALLS: dict[str, Callable[[sw.ValueStore], Any]] = {
    "search": lambda s: s.search(QUERIES, num_threads=1),
    "value": lambda s: s.value(QUERIES, num_threads=1),
    "score": lambda s: s.score(QUERIES, BY_EIGHT, num_threads=1),
    "explain": lambda s: s.explain(QUERIES[:2000], BY_EIGHT[:251]),
    "observe": lambda s: s.observe(QUERIES[:1600], BY_EIGHT[:201]),
    "insert": lambda s: s.insert(np.tile(QUERIES, (5, 1))),
    "digest": lambda s: s.digest(),
    "to_bytes": lambda s: s.to_bytes(),
    "ablated": lambda s: s.frozen().ablated(constant_transitions=True),
}


@pytest.mark.parametrize("call", LONG_CALLS)
def test_other_threads_run_meanwhile(call: str) -> None:
    store = new_store(100000 if call in ("digest", "to_bytes", "ablated") else 20000)
    turns = 0
    with in_background(lambda: LONG_CALLS[call](store)) as done:
        begin = time.perf_counter()
        while not done.is_set():
            time.sleep(0.0005)
            turns += 1
        took = time.perf_counter() - begin
    # A call that held the GIL would leave a turn before it and one after.
    assert turns > 5, took


# Readers and writers


@contextmanager
def in_background(work: Callable[[], Any]) -> Iterator[threading.Event]:
    """Runs `work` in a thread; the event says that it is done. Its error is raised at the end."""
    done, errors = threading.Event(), []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        thread.join()
    if errors:
        raise errors[0]


def test_scorers_do_not_wait_for_a_sleep() -> None:
    store = restless_store()
    steps = np.eye(store.dim, dtype=np.float32)[:4]
    before = store.score(steps)
    meanwhile: list[sw.Scores] = []
    with in_background(lambda: long_sleep(store)) as awake:
        while not awake.is_set():
            meanwhile.append(store.score(steps))
            time.sleep(0.001)
    after = store.score(steps)
    assert (after.step != before.step).any()
    # The store as it was when it fell asleep; at last as it is: a sleep is over a little before its thread says so.
    asleep = [np.array_equal(scores.step, before.step) for scores in meanwhile]
    assert sum(asleep) > 20
    for scores in meanwhile[sum(asleep) :]:
        np.testing.assert_array_equal(scores.step, after.step)


def test_scorers_get_their_turn_while_episodes_are_written() -> None:
    store = new_store(5000)
    steps = unit_rows(4, seed=7)
    turns = 0
    with in_background(lambda: store.observe(unit_rows(1600, seed=5), np.arange(0, 1601, 8))) as done:
        while not done.is_set():
            store.score(steps)
            turns += not done.is_set()
    assert turns > 20


def test_a_batch_is_written_in_one_piece() -> None:
    store = new_store(tau=0.999)
    with ThreadPoolExecutor(8) as pool:
        batches = [
            pool.submit(
                store.observe, unit_rows(40, seed=100 + i), np.arange(0, 41, 4), episode_ids=10 * i + np.arange(10)
            )
            for i in range(16)
        ]
        inserts = [pool.submit(store.insert, unit_rows(25, seed=200 + i)) for i in range(8)]
    for batch in batches:
        ids = batch.result().memory_ids
        np.testing.assert_array_equal(ids, np.arange(ids[0], ids[0] + 40))
    for batch in inserts:
        ids = batch.result()
        np.testing.assert_array_equal(ids, np.arange(ids[0], ids[0] + 25))
    assert len(store) == 1 + 16 * 40 + 8 * 25
    assert store.episodes_observed == 160


def test_threads_write_what_one_thread_would() -> None:
    """Whatever order the writers came in, the store is the one that this order makes."""
    store = new_store(tau=0.3)
    batches = {i: unit_rows(24, seed=300 + i) for i in range(12)}
    with ThreadPoolExecutor(4) as pool:
        reports = {i: pool.submit(store.observe, steps, [0, 10, 24]) for i, steps in batches.items()}
    twin = new_store(tau=0.3)
    for i in sorted(batches, key=lambda i: reports[i].result().episode_ids[0]):
        twin.observe(batches[i], [0, 10, 24])
    assert store.digest() == twin.digest()


def test_frozen_view_beside_writers() -> None:
    store = new_store(500)
    steps = unit_rows(40, seed=9)
    view = store.frozen()
    expected = view.score(steps).step

    def write() -> None:
        for i in range(30):
            store.observe(unit_rows(8, seed=400 + i))
            store.replay()

    with in_background(write) as done:
        while not done.is_set():
            np.testing.assert_array_equal(view.score(steps).step, expected)
    assert (store.score(steps).step != expected).any()


def test_freezing_beside_writers() -> None:
    store = new_store(200)

    def write() -> None:
        for i in range(60):
            store.observe(unit_rows(6, seed=500 + i))

    with in_background(write) as done:
        while not done.is_set():
            view = store.frozen()
            digest = view.digest()
            time.sleep(0.001)
            assert view.digest() == digest


def test_many_scorers_at_once() -> None:
    store = new_store(3000)
    steps, ends = unit_rows(64, seed=9), np.arange(0, 65, 8)
    expected = store.score(steps, ends).step
    with ThreadPoolExecutor(8) as pool:
        for scores in pool.map(lambda _: store.score(steps, ends, num_threads=2), range(64)):
            np.testing.assert_array_equal(scores.step, expected)


def test_closing_beside_readers() -> None:
    store = new_store(3000)
    steps = unit_rows(16, seed=9)
    outcomes: list[str] = []

    def read() -> None:
        try:
            while True:
                store.score(steps)
        except ValueError as error:
            outcomes.append(str(error))

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(read)
        time.sleep(0.05)
        store.close()
    assert outcomes == ["store is closed"] * 3


# Signals

needs_kill = pytest.mark.skipif(
    sys.platform == "win32" or threading.current_thread() is not threading.main_thread(),
    reason="sends signals to the main thread",
)


@contextmanager
def signal_after(seconds: float, handler: Any = signal.default_int_handler) -> Iterator[None]:
    """Presses Ctrl-C in a while."""
    previous = signal.signal(signal.SIGINT, handler)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        signal.signal(signal.SIGINT, previous)


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Presses Ctrl-C in a while; the block, which would take far longer, must raise soon."""
    begin = time.perf_counter()
    with signal_after(seconds), pytest.raises(KeyboardInterrupt):
        yield
    assert time.perf_counter() - begin < seconds + 5


@needs_kill
def test_ctrl_c_ends_a_sleep() -> None:
    store = restless_store(1024)
    before = store.values
    with interrupted_after(0.1):
        long_sleep(store)
    assert (store.values != before).any()  # what was done by then stays
    twin = pickle.loads(pickle.dumps(store))
    assert twin.digest() == store.digest()
    store.replay(order="prioritized", tol=0.1)


@needs_kill
def test_ctrl_c_ends_a_batch_between_two_episodes() -> None:
    store = new_store(20000)
    steps = unit_rows(8000, seed=5)
    before = store.episodes_observed
    with interrupted_after(0.2):
        store.observe(steps, np.arange(0, 8001, 8))
    written = store.episodes_observed - before
    assert 0 < written < 1000
    twin = new_store(20000)
    twin.observe(steps[: 8 * written], np.arange(0, 8 * written + 1, 8))
    assert store.digest() == twin.digest()


@needs_kill
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("call", ["search", "value", "score"])
def test_ctrl_c_ends_a_read(call: str, threads: int) -> None:
    store = new_store(60000)
    before = store.digest()
    steps = unit_rows(60000, seed=5)
    with interrupted_after(0.2):
        getattr(store, call)(steps, num_threads=threads)
    assert store.digest() == before


@needs_kill
def test_ctrl_c_ends_a_veto_and_leaves_no_trace() -> None:
    store = new_store(4000)
    steps = unit_rows(8000, seed=5)
    store.observe(steps, np.arange(0, 8001, 8))
    before = store.digest()
    with interrupted_after(0.1):
        store.veto(episode=0)
    assert store.digest() == before


@needs_kill
def test_a_signal_that_raises_nothing_ends_nothing() -> None:
    seen: list[int] = []
    store = restless_store()
    with signal_after(0.05, lambda number, frame: seen.append(number)):
        assert long_sleep(store).converged
    assert seen == [signal.SIGINT]


@needs_kill
def test_a_handler_raises_its_own_error() -> None:
    def handler(number: int, frame: Any) -> None:
        raise TimeoutError("enough")

    store = restless_store(1024)
    with signal_after(0.1, handler), pytest.raises(TimeoutError, match="enough"):
        long_sleep(store)


@needs_kill
@pytest.mark.parametrize("call", ["observe", "score"])
def test_ctrl_c_ends_the_waiting_for_another_thread(call: str) -> None:
    """A sleep keeps other writers waiting, and a long insertion all others."""
    store = restless_store(1024) if call == "observe" else new_store()
    steps = np.eye(store.dim, dtype=np.float32)[:4]
    stop = threading.Event()

    def work() -> None:
        if call == "observe":
            long_sleep(store)
        else:
            store.insert(np.tile(QUERIES, (30, 1)))
        stop.set()

    with in_background(work) as done:
        time.sleep(0.05)
        with signal_after(0.1), pytest.raises(KeyboardInterrupt):
            while True:
                getattr(store, call)(steps)
        assert not done.is_set()


MANY = np.tile(QUERIES, (15, 1))
HANDLED: dict[str, tuple[Callable[[sw.ValueStore], Any], list[str]]] = {
    "a batch": (lambda s: s.observe(QUERIES[:8000], np.arange(0, 8001, 8)), ["score", "digest", "frozen"]),
    "a read": (lambda s: s.score(MANY, np.arange(0, len(MANY) + 1, 8)), ["score", "digest", "frozen"]),
    "an insertion": (lambda s: s.insert(MANY), []),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("call", HANDLED)
def test_a_signal_handler_may_use_the_store_it_interrupts(call: str) -> None:
    """It reads where there is a whole store to read. What would wait for its own thread is told, not waited for."""
    work, allowed = HANDLED[call]

    def child() -> tuple[list[list[str]], list[str]]:
        store = new_store(20000)
        said, told = list[list[str]](), list[str]()

        def handler(number: int, frame: Any) -> None:
            said.append([])
            for name, ask in (
                ("score", lambda: store.score(QUERIES[:4])),
                ("digest", store.digest),
                ("frozen", lambda: store.frozen().digest()),
                ("observe", lambda: store.observe(QUERIES[:4])),
                ("close", store.close),
            ):
                try:
                    ask()
                    said[-1].append(name)
                    if name == "observe":
                        break  # nothing was interrupted
                except RuntimeError as error:
                    told.append(str(error))
            signal.setitimer(signal.ITIMER_REAL, 0 if allowed in said else 0.05)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        while allowed not in said:
            work(store)
        store.observe(QUERIES[:4])
        return said, told

    said, told = in_child(child)
    assert said[-1] == allowed
    assert len(told) >= 5 - len(allowed)
    assert all("in the middle of a call" in message for message in told)


# Processes

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns, or the error it raises, in a forked child that has two minutes."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = work()
        except BaseException as error:  # noqa: BLE001
            answer = error
        with os.fdopen(there, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(there)
    watchdog = threading.Timer(120, os.kill, (child, signal.SIGKILL))
    watchdog.start()
    with os.fdopen(here, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    watchdog.cancel()
    watchdog.join()
    assert data, "the child hung"
    return pickle.loads(data)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_goes_on() -> None:
    store = new_store(2000)
    steps, ends = unit_rows(64, seed=9), np.arange(0, 65, 8)
    scores = store.score(steps, ends, num_threads=2)  # the parent has its threads
    store.replay(order="full", num_threads=2)

    def work() -> tuple[Any, str]:
        step = store.score(steps, ends, num_threads=2).step
        store.observe(steps, ends)
        store.replay(order="full", num_threads=2)
        return step, store.digest()

    step, digest = in_child(work)
    np.testing.assert_array_equal(step, scores.step)
    store.observe(steps, ends)
    store.replay(order="full", num_threads=2)
    assert store.digest() == digest


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_write_is_told() -> None:
    store = new_store(20000)
    view = store.frozen()
    steps = unit_rows(4, seed=9)
    expected = view.score(steps).step
    with in_background(lambda: store.observe(unit_rows(4000, seed=5), np.arange(0, 4001, 8))) as done:
        time.sleep(0.05)
        assert not done.is_set()
        error = in_child(lambda: store.score(steps))
        assert not done.is_set()
        np.testing.assert_array_equal(in_child(lambda: view.score(steps).step), expected)
    assert isinstance(error, RuntimeError)
    assert "forked" in str(error)
    store.score(steps)  # the parent is none the worse


def score_there(store: sw.ValueStore, view: sw.FrozenView, steps: np.ndarray) -> tuple[str, Any, Any]:
    return store.digest(), store.score(steps).step, view.score(steps).step


@pytest.mark.slow
def test_a_spawned_child_gets_a_copy() -> None:
    store = new_store(200)
    steps = unit_rows(8, seed=9)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        digest, live, frozen = pool.apply(score_there, (store, store.frozen(), steps))
    assert digest == store.digest()
    np.testing.assert_array_equal(live, store.score(steps).step)
    np.testing.assert_array_equal(frozen, live)


# Threads of others


def test_torch_works_beside_and_within() -> None:
    """Torch's threads and the core's side by side; and scoring from within a backward pass while others write."""
    import torch

    store = new_store(3000)
    steps, ends = unit_rows(512, seed=9), np.arange(0, 513, 8)
    expected = store.frozen().score(steps, ends).step
    view = store.frozen()
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    class Scored(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return x * torch.from_numpy(view.score(steps, ends, num_threads=2).step)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return grad * torch.from_numpy(view.score(steps, ends, num_threads=2).step)

    def train(_: int) -> torch.Tensor:
        x = torch.ones(512, requires_grad=True)
        (Scored.apply(x) @ torch.ones(512, 512)).sum().backward()  # pyright: ignore[reportOptionalMemberAccess]
        assert x.grad is not None
        return x.grad

    def write(seed: int) -> int:
        store.observe(unit_rows(16, seed=600 + seed))
        return store.replay(num_threads=2).backups

    try:
        with ThreadPoolExecutor(4) as pool:
            written = [pool.submit(write, i) for i in range(16)]
            gradients = list(pool.map(train, range(16)))
            for done in written:
                done.result(timeout=60)
    finally:
        torch.set_num_threads(before)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient.numpy(), np.float32(512) * expected)
    assert store.episodes_observed == 16


# Threads of the core


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_threads_start_when_they_are_needed() -> None:
    """The work must be worth waking them."""

    def count() -> int:
        code = (
            "import os, numpy as np, sharpwave as sw\n"
            "x = np.eye(500, dtype='f4'); s = sw.ValueStore(sw.Config(500)); s.insert(x)\n"
            "before = len(os.listdir('/proc/self/task'))\n"
            "s.score(x, num_threads=1); s.replay()\n"
            "print(before, len(os.listdir('/proc/self/task')))\n"
            "s.score(np.tile(x, (2, 1)), num_threads=3)\n"
            "print(len(os.listdir('/proc/self/task')) - before)\n"
        )
        import subprocess

        out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
        assert out[0] == out[1]
        return int(out[2])

    assert count() == 2, "the third is the one that calls"
