"""A served store is a store: the same methods, results and errors, for one caller and for many."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crash
import numpy as np
import pytest
import safetensors.numpy
import sharpwave as sw
import tiny
from served import Server
from sharpwave.serve import AsyncStore, Client, Service, verbs, wire

pytestmark = pytest.mark.filterwarnings("ignore:the store has no channel")

LIFE = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("served") / "store") as running:
        yield running


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that tests write to."""
    with Server(tmp_path_factory.mktemp("other") / "store") as running:
        yield running


@pytest.fixture(scope="module")
def pair(server: Server) -> tuple[sw.ValueStore, Client]:
    """A store here and one that is served, after the same life."""
    here = sw.ValueStore(crash.CONFIG)
    client = server.client(patience=5)
    client.become(sw.ValueStore(crash.CONFIG))
    for number in range(LIFE):
        crash.operation(5, number)(here)
        crash.operation(5, number)(client)
    here.observe(STEPS, OFFSETS, drives=None, texts=TEXTS)
    client.observe(STEPS, OFFSETS, drives=None, texts=TEXTS)
    return here, client


RNG = np.random.default_rng(3)
STEPS = crash.rows(RNG, 30)
OFFSETS = np.array([0, 12, 12, 30])
TEXTS = [f"step {n} “x”" if n != 3 else None for n in range(30)]


def same(a: Any, b: Any) -> None:
    """Equal to the bit, types included."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
    elif isinstance(a, dict):
        same(list(a.items()), list(b.items()))
    elif hasattr(a, "__dataclass_fields__"):
        for name in a.__dataclass_fields__:
            if name != "seconds":
                same(getattr(a, name), getattr(b, name))
    else:
        assert a == b


def used() -> sw.Habituation:
    table = sw.Habituation(episodes=8, eta=0.7)
    here = sw.ValueStore(crash.CONFIG)
    for number in range(LIFE):
        crash.operation(5, number)(here)
    table.record(here.score(STEPS, OFFSETS, details=True))
    return table


CALLS: dict[str, Any] = {
    "score": lambda s: s.score(STEPS, OFFSETS),
    "score, weighted": lambda s: s.score(
        STEPS, OFFSETS, weights={"goal": 1.5, "verifier": -0.5}, functional="progress"
    ),
    "score, details": lambda s: s.score(STEPS, OFFSETS, context=[0, 0, 3], details=True, discount=0.9),
    "score, habituated": lambda s: s.score(STEPS, OFFSETS, habituation=used(), functional="potential"),
    "score, one": lambda s: s.score(STEPS[:4].tolist(), context=False),
    "score, none": lambda s: s.score(STEPS[:0]),
    "search": lambda s: s.search(STEPS, k=5),
    "search, more than there are": lambda s: s.search(STEPS[:2], k=1000),
    "search, one": lambda s: s.search(STEPS[0]),
    "search_report": lambda s: s.search_report(STEPS, k=5),
    "value": lambda s: s.value(STEPS),
    "explain": lambda s: s.explain(STEPS, OFFSETS, habituation=used()),
    "recall": lambda s: s.recall(STEPS[0], weights=[1.0] + [0.0] * (len(s.channels) - 1), cleanup=1),
    "recall_many": lambda s: s.recall_many(STEPS[:5], depth=4, beams=2, distinct=True),
    "associate": lambda s: s.associate(STEPS[:5], k=7),
    "edges": lambda s: s.edges(),
    "episodes": lambda s: s.episodes(),
    "provenance": lambda s: [s.provenance(memory) for memory in s.ids[:3].tolist()],
    "without": lambda s: s.without(episodes=[record.id for record in s.episodes()[:2]]),
    "digest": lambda s: s.digest(),
    "frozen": lambda s: (s.frozen().digest(), s.frozen().score(STEPS, OFFSETS)),
    "terminal_key": lambda s: s.terminal_key("goal"),
    "keys_of": lambda s: s.keys_of(s.ids[:3]),
    "columns": lambda s: [s.ids, s.keys, s.values, s.drives, s.baseline, s.counts, s.mass, s.is_terminal, s.texts],
    "names": lambda s: [s.channels, s.channel_ranges, s.scalar_channels, s.embedder, s.config, s.dim, len(s), s.blocks],
    "counts": lambda s: [s.episodes_observed, s.episodes_proposed, s.readonly, s.closed, s.nbytes > 0],
}


@pytest.mark.parametrize("name", CALLS)
def test_a_client_answers_as_the_store_does(pair: tuple[sw.ValueStore, Client], name: str) -> None:
    here, there = pair
    same(CALLS[name](here), CALLS[name](there))


WRITES: dict[str, Any] = {
    "observe": lambda s: s.observe(STEPS, OFFSETS, {"verifier": [0.1, np.nan, 0.3]}, texts=TEXTS, source="test"),
    "observe with ids": lambda s: s.observe(STEPS[:3], episode_ids=[900]),
    "observe nothing": lambda s: s.observe(STEPS[:0]),
    "propose": lambda s: s.observe(STEPS[:5], propose=True),
    "replay": lambda s: s.replay(budget=50, consolidate=True, max_drift=0.9, need=s.ids[:2]),
    "replay ahead": lambda s: s.replay(budget=30, need=s.ids[:2], floor=1e-10, extend=True),
    "insert": lambda s: s.insert(STEPS[:3], texts=["a", None, "b"]),
    "veto": lambda s: s.veto(episode=900),
    "checkpoint": lambda s: s.checkpoint(),
    "veto several": lambda s: s.veto(episodes=[record.id for record in s.episodes()[1:3]]),
    "add_terminal": lambda s: s.add_terminal("late", STEPS[7], low=0.1, high=0.9),
    "add_channel": lambda s: s.add_channel("other", 0.0, 2.0),
    "remove_channel": lambda s: s.remove_channel("other"),
    "partition": lambda s: s.partition(4, seed=1),
    "flush": lambda s: s.flush(),
}


def test_a_client_writes_as_the_store_does(other: Server) -> None:
    here, there = sw.ValueStore(crash.CONFIG), other.client()
    there.become(here)
    sample = crash.rows(np.random.default_rng(1), 40)
    same(here.calibrate(sample, [0, 20, 40]), there.calibrate(sample, [0, 20, 40]))
    for store in (here, there):
        store.add_terminal("goal", sample[0])
        store.add_channel("verifier")
    for name, write in WRITES.items():
        same(write(here), write(there))
        assert here.digest() == there.digest(), name
    same(here.search(STEPS, nprobe=2), there.search(STEPS, nprobe=2))


ERRORS: dict[str, tuple[type[Exception], Any]] = {
    "a row of NaN": (ValueError, lambda s: s.score(np.full((2, crash.DIM), np.nan))),
    "another dimension": (ValueError, lambda s: s.score(np.ones((2, 5)))),
    "offsets that fall": (ValueError, lambda s: s.score(STEPS, [0, 20, 10, 30])),
    "offsets that do not fit": (ValueError, lambda s: s.score(STEPS, [0, 31])),
    "no such functional": (ValueError, lambda s: s.score(STEPS, functional="best")),
    "no such channel": (KeyError, lambda s: s.score(STEPS, weights={"gaol": 1.0})),
    "too few weights": (ValueError, lambda s: s.score(STEPS, weights=[1.0])),
    "more context than steps": (ValueError, lambda s: s.score(STEPS, context=-1)),
    "no such memory": (KeyError, lambda s: s.veto(memory=10**9)),
    "no such episode": (KeyError, lambda s: s.veto(episode=10**9)),
    "no such episodes": (KeyError, lambda s: s.without(episodes=[0, 10**9])),
    "no such origin": (KeyError, lambda s: s.provenance(10**9)),
    "calibrated twice": (ValueError, lambda s: s.calibrate(STEPS)),
    "a name that is taken": (ValueError, lambda s: s.add_channel("verifier")),
    "another embedder": (sw.EmbedderError, lambda s: s.bind_embedder("somebody else")),
    "texts that do not fit": (ValueError, lambda s: s.observe(STEPS, texts=["a"])),
    "no such order": (ValueError, lambda s: s.replay(order="random")),
    "no such key": (KeyError, lambda s: s.terminal_key("verifier")),
    "an id that is taken": (ValueError, lambda s: s.observe(STEPS[:2], episode_ids=[0])),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_client_refuses_as_the_store_does(pair: tuple[sw.ValueStore, Client], name: str) -> None:
    kind, call = ERRORS[name]
    said = []
    for store in pair:
        before = store.digest()
        with pytest.raises(kind) as refused:
            call(store)
        assert store.digest() == before
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_a_client_saves_sends_and_pickles(pair: tuple[sw.ValueStore, Client], tmp_path: Path) -> None:
    here, there = pair
    there.save(tmp_path / "copy")
    assert sw.ValueStore.load(tmp_path / "copy").digest() == here.digest()
    assert sw.ValueStore.from_bytes(there.to_bytes()).digest() == here.digest()
    again = pickle.loads(pickle.dumps(there))
    assert isinstance(again, Client)
    assert len(pickle.dumps(there)) < 300
    assert again.digest() == here.digest()
    again.close()
    assert again.digest() == here.digest()
    for refused in (lambda: Client.open("x"), lambda: Client.load("x"), lambda: Client.from_bytes(b"")):
        with pytest.raises(TypeError, match=r"somebody else|become"):
            refused()
    assert str(server_url(there)) in repr(there)


def test_a_client_flushes_and_gives_the_served_store(other: Server) -> None:
    client = other.client()
    client.become(sw.ValueStore(crash.CONFIG))
    client.add_channel("flushed")

    def journal() -> float:
        lines = client.metrics().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("sharpwave_journal_bytes "))

    before = journal()
    client.flush()
    assert journal() < before
    here = sw.ValueStore(sw.Config(dim=3))
    here.become(client)
    assert here.digest() == client.digest()
    assert here.dim == crash.DIM


def server_url(client: Client) -> str:
    assert client.health()["status"] == "ok"
    return client.url


def test_an_event_loop_asks_many_at_once(pair: tuple[sw.ValueStore, Client]) -> None:
    here, there = pair

    async def ask() -> list[sw.Scores]:
        store = AsyncStore(there)
        found = await asyncio.gather(*(store.score(STEPS[n : n + 3]) for n in range(20)))
        store.close()
        return found

    for n, found in enumerate(asyncio.run(ask())):
        same(here.score(STEPS[n : n + 3]), found)
    with pytest.raises(AttributeError, match="it has"):
        AsyncStore(here).become


# Batches


def test_what_many_ask_at_once_is_what_each_would_get_alone(pair: tuple[sw.ValueStore, Client]) -> None:
    here, there = pair
    asked = []
    for n in range(24):
        options: dict[str, Any] = {"details": n % 3 == 0, "context": n % 2, "functional": ["coverage", "mean"][n % 2]}
        if n % 5 == 0:
            options["habituation"] = used()
        if n % 4 == 0:
            options["weights"] = {"goal": 1.0}
        asked.append(lambda s, n=n, o=options: s.score(STEPS[n : n + 4], [0, 1, 4] if n % 2 else None, **o))
        asked.append(lambda s, n=n: s.search(STEPS[n : n + 2], k=1 + n % 3))
        asked.append(lambda s, n=n: s.value(STEPS[n]))
    wrong = np.full((3, crash.DIM), np.nan, np.float32)
    asked.append(lambda s: s.search(np.concatenate([STEPS[:2], wrong])))
    found: list[Any] = [None] * len(asked)

    def ask(n: int) -> None:
        try:
            found[n] = asked[n](there)
        except ValueError as error:
            found[n] = error

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert str(found.pop()) == "queries: row 2 contains NaN"
    for call, answer in zip(asked, found, strict=False):
        same(call(here), answer)
    counted = [
        line for line in there.metrics().splitlines() if line.startswith('sharpwave_batch_requests_bucket{le="1.0"}')
    ]
    batches = [line for line in there.metrics().splitlines() if line.startswith("sharpwave_batch_requests_count")]
    assert float(counted[0].split()[1]) < float(batches[0].split()[1])  # some were answered together


def test_offsets_that_lie_do_not_reach_another_caller() -> None:
    store = sw.ValueStore(sw.Config(dim=4))
    store.observe(np.eye(4, dtype=np.float32))
    with Service(store, linger=0.05) as service:
        lies = [{"steps": np.eye(4, dtype=np.float32), "offsets": offsets} for offsets in ([0, 5], [0, 3], [1, 4], [0])]
        good = {"steps": np.eye(4, dtype=np.float32)[:2]}
        futures = [service.submit("score", one) for one in (good, *lies, good)]
        for future in futures[1:-1]:
            with pytest.raises(ValueError, match="offsets"):
                future.result()
        alone = service.call("score", good)
        for future in (futures[0], futures[-1]):
            same(alone, future.result())


# The wire


def post(url: str, body: bytes, kind: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, {"Content-Type": kind, **headers}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_json_does_what_the_client_does(pair: tuple[sw.ValueStore, Client]) -> None:
    here, there = pair
    body = {"steps": STEPS.tolist(), "offsets": OFFSETS.tolist(), "weights": {"goal": 1.0}, "details": True}
    status, answer = post(f"{there.url}/v1/score", json.dumps(body).encode(), wire.JSON)
    expected = here.score(STEPS, OFFSETS, weights={"goal": 1.0}, details=True)
    found = json.loads(answer)
    assert status == 200
    for name in ("total", "step", "support", "edge", "redundancy", "ids", "phi"):
        np.testing.assert_array_equal(np.array(found[name], getattr(expected, name).dtype), getattr(expected, name))
    status, answer = post(
        f"{there.url}/v1/search", json.dumps({"queries": STEPS[:1].tolist(), "k": 1000}).encode(), wire.JSON
    )
    assert json.loads(answer)["similarity"][0][-1] is None  # JSON has no infinity
    assert json.loads(answer)["ids"][0][-1] == -1


def test_any_safetensors_library_can_ask_and_read(pair: tuple[sw.ValueStore, Client]) -> None:
    here, there = pair
    asked = safetensors.numpy.save({"steps": STEPS, "offsets": OFFSETS}, {"data": json.dumps({"functional": "mean"})})
    status, answer = post(f"{there.url}/v1/score", asked, wire.BINARY, Accept=wire.BINARY)
    assert status == 200
    expected = here.score(STEPS, OFFSETS, functional="mean")
    for name, array in safetensors.numpy.load(answer).items():
        np.testing.assert_array_equal(array, getattr(expected, name))


def test_the_documentation_names_every_verb_and_argument(pair: tuple[sw.ValueStore, Client]) -> None:
    _, there = pair
    with urllib.request.urlopen(f"{there.url}/openapi.json", timeout=30) as response:
        found = json.loads(response.read())
    assert {"/v1/score", "/v1/observe", "/v1/replay", "/v1/search", "/v1/explain", "/health", "/metrics"} <= set(
        found["paths"]
    )
    score = found["paths"]["/v1/score"]["post"]
    properties = score["requestBody"]["content"][wire.JSON]["schema"]["properties"]
    assert set(properties) == {
        "steps",
        "offsets",
        "weights",
        "functional",
        "discount",
        "context",
        "habituation",
        "details",
    }
    assert wire.BINARY in score["requestBody"]["content"]
    assert found["paths"]["/v1/observe"]["post"]["parameters"][0]["name"] == "Idempotency-Key"
    assert "parameters" not in score

    def schema(verb: str) -> Any:
        body = found["paths"][f"/v1/{verb}"]["post"]["requestBody"]["content"][wire.JSON]["schema"]
        return body["properties"]

    assert schema("associate")["steps"] == {"type": "integer", "default": 8}
    assert schema("score")["steps"]["type"] == "array"
    assert schema("replay")["order"]["enum"] == ["prioritized", "reverse", "full"]


def test_an_entry_that_leaves_something_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in ((), ("ids",), ("ids", "similarity", "more")):
        with pytest.raises(TypeError, match="does not name what it returns"):
            verbs._of_method("read", "search", names)

    def forget(self: sw.ValueStore, shape: dict[str, int]) -> None:
        """Not sent by any rule."""

    monkeypatch.setattr(sw.ValueStore, "forget", forget, raising=False)
    with pytest.raises(TypeError, match="FORMS does not say how 'shape'"):
        verbs._of_method("write", "forget", ())

    def near(self: sw.ValueStore, queries: np.ndarray, count: int = 3) -> None:
        """A number that may or may not lengthen the answer."""

    monkeypatch.setattr(sw.ValueStore, "near", near, raising=False)
    with pytest.raises(TypeError, match=r"neither SIZES nor NO_SIZES says whether \['count'\]"):
        verbs._of_method("read", "near", ())
    code = "import sharpwave as sw; sw.ValueStore.forget = print; import sharpwave.serve"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "either in METHODS or in NOT_SERVED: ['forget']" in ran.stderr


def test_the_size_of_an_answer_counts_defaults_and_every_argument_that_lengthens_it() -> None:
    queries = STEPS[:3]
    assert verbs.VERBS["search"].size({"queries": queries}) == 3 * 16
    assert verbs.VERBS["associate"].size({"queries": queries.tolist(), "k": 5, "steps": 100}) == 15
    assert verbs.VERBS["recall_many"].size({"queries": queries, "depth": 7, "cleanup": 2}) == 3 * 7 * 4 * 2
    assert verbs.VERBS["recall"].size({"query": STEPS[0], "beams": 2}) == 8 * 2
    assert verbs.VERBS["score"].size({"steps": STEPS}) == 1


BIG = json.dumps({"queries": STEPS[:2].tolist(), "k": 10**9}).encode()
BODIES: dict[str, tuple[str, bytes, str, int, str]] = {
    "no JSON": ("score", b"{", wire.JSON, 400, "no JSON"),
    "no object": ("score", b"[1]", wire.JSON, 400, "must be a JSON object"),
    "nested too deeply": ("score", b'{"steps":' + b"[" * 100_000, wire.JSON, 400, "no JSON"),
    "no steps": ("score", b"{}", wire.JSON, 400, "score needs steps"),
    "an argument that is none": ("score", b'{"stepz": []}', wire.JSON, 400, "no argument 'stepz'"),
    "words for numbers": ("score", b'{"steps": [["a"]]}', wire.JSON, 400, "steps"),
    "ragged rows": ("score", b'{"steps": [[1, 2], [3]]}', wire.JSON, 400, "steps"),
    "a bad table": ("score", b'{"steps": [], "habituation": {"ids": [1]}}', wire.JSON, 400, "habituation"),
    "uneven table": (
        "score",
        b'{"steps": [], "habituation": {"ids": [1], "uses": [1, 2]}}',
        wire.JSON,
        400,
        "habituation",
    ),
    "text": ("score", b"steps", "text/plain", 415, "content type"),
    "short": ("score", b"abc", wire.BINARY, 400, "ends before the header"),
    "a header that is not there": ("score", (1 << 60).to_bytes(8, "little") + b"{}", wire.BINARY, 400, "is not there"),
    "an answer too large": ("search", BIG, wire.JSON, 413, "more than"),
    "a verb that is none": ("forget", b"{}", wire.JSON, 404, "/v1/forget"),
    "a column that is none": ("column", b'{"name": "__class__"}', wire.JSON, 404, "no column"),
    "a key that is too long": ("flush", b"{}", wire.JSON, 400, "Idempotency-Key"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_one_line(server: Server, name: str) -> None:
    verb, body, kind, status, said = BODIES[name]
    key = {"Idempotency-Key": "k" * 200} if "key" in name else {}
    found, answer = post(f"{server.url}/v1/{verb}", body, kind, **key)
    assert found == status
    error = json.loads(answer)["error"]
    assert said in error
    assert "\n" not in error
    assert "Traceback" not in error


def header(entry: dict[str, Any], data: bytes = b"", metadata: Any = None) -> bytes:
    head = json.dumps({"steps": entry, **({} if metadata is None else {"__metadata__": metadata})}).encode()
    return len(head).to_bytes(8, "little") + head + data


FORGED: dict[str, tuple[bytes, str]] = {
    "larger than its bytes": (
        header({"dtype": "F32", "shape": [1 << 40, 48], "data_offsets": [0, 8]}, b"12345678"),
        "does not fit",
    ),
    "beyond the body": (header({"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, b"1234"), "does not fit"),
    "negative": (header({"dtype": "F32", "shape": [-1, 4], "data_offsets": [0, 16]}, b"0" * 16), "whole numbers"),
    "overlapping backwards": (
        header({"dtype": "F32", "shape": [0], "data_offsets": [9, 8]}, b"0" * 16),
        "does not fit",
    ),
    "of no type": (header({"dtype": "F4", "shape": [1], "data_offsets": [0, 4]}, b"0000"), "'F4'"),
    "without a shape": (header({"dtype": "F32", "data_offsets": [0, 4]}, b"0000"), "'shape'"),
    "of too many dimensions": (header({"dtype": "F32", "shape": [1] * 40, "data_offsets": [0, 4]}, b"0000"), "at most"),
    "with fractions": (header({"dtype": "F32", "shape": [1.5], "data_offsets": [0, 6]}, b"000000"), "whole numbers"),
    "a number": (header(5), "dtype"),  # type: ignore[arg-type]
    "with odd metadata": (header({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, b"0000", 7), "metadata"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_tensor_is_refused_before_it_is_made(server: Server, name: str) -> None:
    body, said = FORGED[name]
    with pytest.raises(wire.WireError, match=said):
        wire.unpack(body)
    status, answer = post(f"{server.url}/v1/score", body, wire.BINARY)
    assert status == 400
    assert said in json.loads(answer)["error"]


def test_a_tensor_without_a_place_is_refused() -> None:
    for name in ("a.b", "list.9", "list.x", "text.a", "..", "list.0.q"):
        body = safetensors.numpy.save({name: np.ones(2)}, {"data": '{"list": [null], "text": "t"}'})
        with pytest.raises(wire.WireError, match="no place"):
            wire.unpack(body)


def test_bodies_come_back_as_they_were() -> None:
    data: dict[str, Any] = {
        "steps": np.arange(6, dtype=np.float32).reshape(2, 3),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 4), np.int64),
        "nested": {"list": [1, None, {"x": np.array([1.5])}], "text": "“ß” \udc80\n", "number": 0.1 + 0.2},
        "byte": np.arange(3, dtype=np.uint8),
    }
    back = wire.unpack(wire.pack(data))
    for name in ("steps", "flags", "none", "byte"):
        same(back[name], data[name])
    same(back["nested"]["list"][2]["x"], data["nested"]["list"][2]["x"])
    assert back["nested"]["text"] == data["nested"]["text"]
    assert back["nested"]["number"] == data["nested"]["number"]
    assert safetensors.numpy.load(wire.pack(data)).keys() == {"steps", "flags", "none", "byte", "nested.list.2.x"}


# The reward


def test_a_reward_over_a_client_is_the_reward_over_the_store(other: Server) -> None:
    options: dict[str, Any] = {
        "terminal": "wedding",
        "weights": {"divergence": 0.1},
        "learn": "propose",
        "base": tiny.base(),
        "habituation": {"episodes": 8, "sharing": True},
    }
    client = other.client()
    client.become(tiny.store())
    here = sw.InstrumentalReward(tiny.store(), tiny.embed, **options)
    there = sw.InstrumentalReward(client, tiny.embed, **options)
    copied = pickle.loads(pickle.dumps(there))
    assert copied.store.url == client.url
    assert len(pickle.dumps(there)) < len(pickle.dumps(here))  # it carries the address, not the store
    told = ["Jane met a sailor. They married in spring.", "The cat slept. It stole the fish.", "Yes. Yes. Yes."]
    for reward in (here, there):
        reward.train()
    for _ in range(3):
        prompts = [tiny.PROMPT] * len(told)
        same(here(prompts, told), there(prompts, [*told]))
        here.sleep()
        there.sleep()
        assert here.store.digest() == client.digest()
    same(here.explain_texts(tiny.PROMPT, told[0]), there.explain_texts(tiny.PROMPT, told[0]))


def test_a_reward_over_a_client_saves_and_restores(other: Server, tmp_path: Path) -> None:
    client = other.client()
    client.become(tiny.store())
    reward = sw.InstrumentalReward(client, tiny.embed, terminal=tiny.length, learn="online", base=tiny.base()).train()
    reward.save(tmp_path)
    before = client.digest()
    reward([tiny.PROMPT], ["Jane met a sailor. They married in spring."])
    assert client.digest() != before
    reward.restore(tmp_path)
    assert client.digest() == before
    config = reward.to_config()
    assert config["store"] == {"url": client.url}
    again = sw.InstrumentalReward.from_config(config, embedder=tiny.embed, terminal=tiny.length)
    assert again.store.digest() == before  # by the address
    assert sw.InstrumentalReward.from_config({"store": client.url, "embedder": tiny.embed}).store.remote
