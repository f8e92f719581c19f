"""Any bytes as the body of a request: the corpus of the fuzzer, and what Hypothesis makes. `make fuzz` goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import http_bodies
import numpy as np
import pytest
import sharpwave as sw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paths import ROOT
from sharpwave.serve import wire

CORPUS = sorted((ROOT / "rust" / "fuzz" / "corpus" / "http").iterdir())
EXAMPLES = 20_000 if os.environ.get("SHARPWAVE_HYPOTHESIS") == "long" else 150


@pytest.fixture(scope="module")
def served() -> Iterator[http_bodies.Served]:
    served = http_bodies.Served()
    yield served
    served.close()


def test_what_the_fuzzer_kept_is_answered_or_refused(served: http_bodies.Served) -> None:
    statuses = [served.one(path.read_bytes()) for path in CORPUS]
    assert len(statuses) > 50
    assert statuses.count(200) > 20
    assert statuses.count(400) > 1


def test_the_good_requests_are_answered(served: http_bodies.Served) -> None:
    refused = {name for name, data in http_bodies.seeds().items() if served.one(data) != 200}
    # A store that holds memories cannot be calibrated.
    assert refused == {"calibrate.json", "calibrate.safetensors"}


SEEDS = sorted(http_bodies.seeds().items())


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 1 << 12), st.binary(max_size=6), st.integers(0, 6)), max_size=4),
    cut=st.none() | st.integers(0, 1 << 12),
)
def test_requests_that_are_damaged_are_answered_or_refused(
    served: http_bodies.Served,
    seed: tuple[str, bytes],
    edits: list[tuple[int, bytes, int]],
    cut: int | None,
) -> None:
    data = bytearray(seed[1][:cut])
    for at, new, old in edits:
        data[at % max(len(data), 1) : at % max(len(data), 1) + old] = new
    served.one(bytes(data))


NAMES = sorted({name for verb in http_bodies.VERBS.values() for name in verb.arguments})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(["goal", "full"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.integers(0, len(http_bodies.PATHS) - 1),
    form=st.sampled_from([0, 1, 4, 5]),
    arguments=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4),
)
def test_arguments_of_any_kind_are_answered_or_refused(
    served: http_bodies.Served, path: int, form: int, arguments: dict[str, object]
) -> None:
    body = wire.pack(arguments) if form & 1 else http_bodies.json.dumps(arguments).encode()
    served.one(bytes([path, form]) + body)


@pytest.mark.parametrize("depth", [900, 2000, 100_000])
def test_bodies_that_are_nested_deep_are_refused(served: http_bodies.Served, depth: int) -> None:
    at = http_bodies.PATHS.index("/v1/score")
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        nested = opening * depth + b"1" + closing * depth
        body = (b'{"steps":' + nested + b"}")[: 1 << 15] if depth > 2000 else b'{"steps":' + nested + b"}"
        assert served.one(bytes([at, 0]) + body) in (400, 413)


# JSON as other languages have it: no NaN, no infinities


def strict(text: str | bytes) -> Any:
    """What a parser says that knows JSON alone."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def asked(served: http_bodies.Served, verb: str, body: bytes, kind: str) -> tuple[int, bytes]:
    headers = {"host": "localhost", "content-type": kind, "accept": kind}
    status, _, answer = served.ask("POST", f"/v1/{verb}", headers, body)
    return status, answer


def plain(value: Any) -> Any:
    """As JSON has it, without the time that it took."""
    found = strict(wire.to_json({"value": value}))["value"]
    return {name: item for name, item in found.items() if name != "seconds"} if isinstance(found, dict) else found


ODD = st.sampled_from(
    [None, float("nan"), float("inf"), float("-inf"), -0.0, 1e308, 5e-324, 0.1, 1 << 62, "\ud800", "“"]
)
DRIVES = st.none() | st.floats(0, 1, width=32)


@st.composite
def requests(draw: Any, verb: str) -> dict[str, Any]:
    """Arguments that are answered, with what JSON finds hard wherever they may have it."""
    arguments = dict(http_bodies.good().get(verb, {}))
    eye = np.eye(http_bodies.DIM, dtype=np.float32)
    if verb in ("observe", "insert"):
        rows = draw(st.integers(1, 4))
        arguments["steps" if verb == "observe" else "keys"] = eye[:rows]
        arguments["texts"] = draw(st.lists(st.none() | st.text(max_size=3), min_size=rows, max_size=rows))
        table = draw(st.lists(st.lists(DRIVES, min_size=1, max_size=1), min_size=rows, max_size=rows))
        arguments["drives"] = draw(st.sampled_from([table, {"verifier": [row[0] for row in table]}]))
    if verb in ("search", "search_report", "associate"):
        arguments["k"] = draw(st.integers(1, 60))  # more than there are: −∞
    if verb == "replay":
        arguments["max_drift"] = draw(st.sampled_from([None, 0.5]))
    return arguments


def with_numbers(value: Any) -> Any:
    """As the binary form may have it: NaN for null in drives."""
    if isinstance(value, dict):
        return {name: with_numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [with_numbers(item) for item in value]
    return float("nan") if value is None else value


@pytest.mark.parametrize("verb", sorted(http_bodies.VERBS))
@settings(max_examples=max(EXAMPLES // 20, 5), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_verb_says_in_json_what_it_says_in_binary(
    served: http_bodies.Served, verb: str, data: st.DataObject
) -> None:
    arguments = data.draw(requests(verb))
    if verb == "calibrate":
        served.store.become(sw.ValueStore(sw.Config(dim=http_bodies.DIM)))
    before = served.store.to_bytes()
    status, answer = asked(served, verb, wire.to_json(arguments), wire.JSON)
    after = served.store.digest()
    if http_bodies.VERBS[verb].kind == "write":
        served.store.become(sw.ValueStore.from_bytes(before))
    numbers = {name: with_numbers(item) if name == "drives" else item for name, item in arguments.items()}
    packed = wire.pack(numbers)
    strict(metadata(packed))
    other, binary = asked(served, verb, packed, wire.BINARY)
    assert (status, other) == (200, 200), (answer, binary)
    strict(metadata(binary))
    assert plain(strict(answer)) == plain(wire.unpack(binary))
    assert served.store.digest() == after
    served.store.become(served.fresh)


def metadata(packed: bytes) -> str:
    """What a binary body has in JSON."""
    return strict(packed[8 : 8 + int.from_bytes(packed[:8], "little")])["__metadata__"]["data"]


WORDS = st.sampled_from(["a", "b", "steps"])
NESTED = st.recursive(
    ODD | st.floats(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner), max_leaves=5
)


@settings(max_examples=EXAMPLES // 2)
@given(st.dictionaries(WORDS, NESTED))
def test_any_body_is_json_for_everybody_and_comes_back(data: dict[str, Any]) -> None:
    packed = wire.pack(data)
    strict(metadata(packed))
    assert repr(sorted_(wire.unpack(packed))) == repr(sorted_(data))
    strict(wire.to_json(data))


def sorted_(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: sorted_(value[name]) for name in sorted(value)}
    return [sorted_(item) for item in value] if isinstance(value, list) else value


HUGE = 10**400
HUGES: list[tuple[str, dict[str, Any]]] = [
    ("search", {"queries": [[1, 0, 0, 0]], "k": HUGE}),
    ("score", {"steps": [[HUGE, 0, 0, 0]]}),
    ("score", {"steps": [[1, 0, 0, 0]], "discount": HUGE}),
    ("score", {"steps": [[1, 0, 0, 0]], "habituation": {"ids": [1], "uses": [HUGE]}}),
    ("score", {"steps": [[1, 0, 0, 0]], "habituation": {"ids": [HUGE], "uses": [1]}}),
    ("observe", {"steps": [[1, 0, 0, 0]], "drives": [[HUGE]]}),
    ("observe", {"steps": [[1, 0, 0, 0]], "episode_ids": [HUGE]}),
    ("veto", {"episode": HUGE}),
]


@pytest.mark.parametrize("number", range(len(HUGES)))
def test_numbers_that_are_too_large_are_refused(served: http_bodies.Served, number: int) -> None:
    verb, arguments = HUGES[number]
    status, answer = asked(served, verb, json.dumps(arguments).encode(), wire.JSON)
    assert status in (400, 413), answer
