"""A store in a Ray actor: the same methods and results, from any process, also after the actor's process died.

Needs Ray, which is in the second environment: `make test-contracts` runs it there.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import threading
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import crash
import numpy as np
import pytest
import ray
import sharpwave as sw
import tiny
from sharpwave.serve.ray import Handle, actor
from test_serve import CALLS, ERRORS, OFFSETS, STEPS, TEXTS, WRITES, same

LIFE = 40


pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def pair(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[sw.ValueStore, Handle]:
    """A store here and one in an actor, after the same life."""
    here = sw.ValueStore(crash.CONFIG)
    handle = actor("alike", tmp_path_factory.mktemp("alike") / "store", crash.CONFIG)
    for store in (here, handle):
        for number in range(LIFE):
            crash.operation(5, number)(store)
        store.observe(STEPS, OFFSETS, texts=TEXTS)
    return here, handle


@pytest.mark.parametrize("name", CALLS)
def test_a_handle_answers_as_the_store_does(pair: tuple[sw.ValueStore, Handle], name: str) -> None:
    here, there = pair
    same(CALLS[name](here), CALLS[name](there))


@pytest.mark.parametrize("name", ERRORS)
def test_a_handle_refuses_as_the_store_does(pair: tuple[sw.ValueStore, Handle], name: str) -> None:
    kind, call = ERRORS[name]
    said = []
    for store in pair:
        with pytest.raises(kind) as refused:
            call(store)
        said.append((type(refused.value), str(refused.value)))
    assert said[0] == said[1]


def test_a_handle_writes_as_the_store_does() -> None:
    here = sw.ValueStore(crash.CONFIG)
    there = actor("in memory", store=here)
    sample = crash.rows(np.random.default_rng(1), 40)
    for store in (here, there):
        store.calibrate(sample, [0, 20, 40])
        store.add_terminal("goal", sample[0])
        store.add_channel("verifier")
    for name, write in WRITES.items():
        same(write(here), write(there))
        assert here.digest() == there.digest(), name
    other = sw.ValueStore(crash.CONFIG)
    there.become(other)
    assert there.digest() == other.digest()
    there.stop()
    with pytest.raises(ConnectionError, match="ray:/in memory"):
        len(there)


@ray.remote
def score_elsewhere(handle: Handle, steps: np.ndarray, times: int) -> tuple[list[Any], int]:
    return [handle.score(steps).total for _ in range(times)], os.getpid()


def test_many_processes_share_one_store(pair: tuple[sw.ValueStore, Handle]) -> None:
    here, there = pair
    assert len(pickle.dumps(there)) < 200
    assert there.process != os.getpid()
    again = actor("alike", "another directory")  # the one that is there
    assert again.process == there.process
    found = ray.get([score_elsewhere.remote(there, STEPS[n : n + 5], 3) for n in range(8)])
    for n, (totals, process) in enumerate(found):
        assert process not in (os.getpid(), there.process)
        for total in totals:
            same(here.score(STEPS[n : n + 5]).total, total)


def test_an_actor_that_is_killed_is_bit_for_bit_one_that_was_not(tmp_path: Path) -> None:
    handle = actor("killed", tmp_path / "store", crash.CONFIG)
    done, over, failures = 0, threading.Event(), list[BaseException]()

    def live() -> None:
        nonlocal done
        try:
            while not over.is_set():
                crash.operation(11, done)(handle)
                done += 1
        except BaseException as error:  # noqa: BLE001 — raised again below
            failures.append(error)

    life = threading.Thread(target=live)
    life.start()
    for _ in range(2):
        before, process = done, handle.process
        while done < before + 10 and not failures:
            time.sleep(0.01)
        os.kill(process, signal.SIGKILL)
    over.set()
    life.join()
    assert not failures
    assert handle.digest() == next(islice(crash.uncrashed(11), done, None)).digest()
    handle.stop()
    assert sw.ValueStore.open(tmp_path / "store").digest() == next(islice(crash.uncrashed(11), done, None)).digest()


@ray.remote
def insert_elsewhere(handle: Handle, number: int, times: int) -> list[str]:
    rng, acknowledged = np.random.default_rng(number), list[str]()
    for turn in range(times):
        text = f"{number}/{turn}"
        handle.insert(rng.normal(size=(1, crash.DIM)), texts=[text])
        acknowledged.append(text)
    return acknowledged


def test_workers_of_a_killed_actor_go_on_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    handle = actor("shared", tmp_path / "store", crash.CONFIG)
    working = [insert_elsewhere.remote(handle, number, 40) for number in range(2)]
    while len(handle) < 20:
        time.sleep(0.01)
    os.kill(handle.process, signal.SIGKILL)
    acknowledged = [text for texts in ray.get(working) for text in texts]
    assert Counter(handle.texts) == Counter(acknowledged)
    assert len(acknowledged) == 80
    handle.stop()


def test_a_reward_in_a_worker_learns_into_the_shared_store() -> None:
    handle = actor("rewarding", store=tiny.store())
    reward = sw.InstrumentalReward(handle, tiny.embed, learn="online", base=tiny.base()).train()
    here = sw.InstrumentalReward(tiny.store(), tiny.embed, learn="online", base=tiny.base()).train()
    told = ["Jane met a sailor. They married in spring.", "The cat slept. It stole the fish."]

    @ray.remote
    def rewarded(function: Any) -> Any:
        return function([tiny.PROMPT] * 2, told)

    same(here([tiny.PROMPT] * 2, told), ray.get(rewarded.remote(reward)))
    assert handle.digest() == here.store.digest()
    handle.stop()


def test_what_cannot_be_an_actor_is_told(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="either a directory or store="):
        actor("neither")
    with pytest.raises(ConnectionError, match="no actor of that name"):
        len(Handle("nobody"))
    missing = actor("missing", tmp_path / "nothing here", max_restarts=0)
    with pytest.raises(ConnectionError, match=r"could not be started.*no store"):
        len(missing)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "trainers" / "ray.md"
    blocks = re.findall(r"^```py\n(.*?)^```$", page.read_text(), re.M | re.S)
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, str(page), "exec"), {"__name__": "page"})
