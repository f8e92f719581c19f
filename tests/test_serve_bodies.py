"""Any bytes as the body of a request: the corpus of the fuzzer, and what Hypothesis makes. `make fuzz` goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import http_bodies
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sharpwave.serve import wire

CORPUS = sorted((Path(__file__).resolve().parent.parent / "rust" / "fuzz" / "corpus" / "http").iterdir())
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
