"""Bad input, for every public call and argument: the error names the argument, and the store stays as it was."""

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sharpwave as sw

DIM = 8
NAN, INF = math.nan, math.inf


def unit_rows(n: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def new_store(**numbers: Any) -> sw.ValueStore:
    store = sw.ValueStore(sw.Config(dim=DIM, **numbers))
    store.add_terminal("goal", unit_rows(1, seed=1)[0])
    store.add_channel("verifier")
    return store


@pytest.fixture
def store() -> sw.ValueStore:
    store = new_store()
    steps = unit_rows(12)
    store.observe(steps, [0, 5, 12], drives=[[0.5], [1.0]], texts=[f"step {t}" for t in range(12)])
    store.replay()
    return store


@pytest.fixture(autouse=True)
def unchanged(store: sw.ValueStore) -> Iterator[None]:
    """Whatever a test here does to the store is refused, so it leaves no trace."""
    before = store.digest()
    yield
    if not store.closed:
        assert store.digest() == before


def with_row(row: int, value: float | np.ndarray) -> np.ndarray:
    rows = unit_rows(4)
    rows[row] = value
    return rows


def with_element(row: int, column: int, value: float) -> np.ndarray:
    rows = unit_rows(4)
    rows[row, column] = value
    return rows


# Matrices and vectors

BAD_ROWS: dict[str, tuple[Any, type[Exception], str]] = {
    "nan": (with_element(2, 3, NAN), ValueError, "row 2 .*NaN"),
    "inf": (with_element(1, 0, INF), ValueError, "row 1 .*infinity"),
    "minus inf": (with_element(3, 7, -INF), ValueError, "row 3 .*infinity"),
    "zero row": (with_row(2, 0.0), ValueError, "row 2 .*zero"),
    "beyond float32": (with_row(1, 1.0).astype(np.float64) * 1e300, ValueError, "row 0 .*infinity"),
    "wrong dimension": (np.ones((4, DIM + 1), np.float32), ValueError, "shape"),
    "3-d": (np.ones((2, 2, DIM), np.float32), ValueError, "shape"),
    "0-d": (np.float32(1), ValueError, "shape"),
    "empty of wrong dimension": (np.ones((0, DIM + 1), np.float32), ValueError, "shape"),
    "string": ("rows", TypeError, "array of numbers"),
    "none": (None, TypeError, "array of numbers"),
    "dict": ({"a": 1}, TypeError, "array of numbers"),
    "strings": (np.array([["a"] * DIM]), TypeError, "dtype"),
    "bools": (np.ones((4, DIM), bool), TypeError, "dtype"),
    "complex": (np.ones((4, DIM), np.complex64), TypeError, "dtype"),
    "objects": (np.full((4, DIM), object()), TypeError, "dtype"),
    "dates": (np.zeros((4, DIM), "datetime64[s]"), TypeError, "dtype"),
    "ragged list": ([[1.0] * DIM, [1.0]], ValueError, "rectangular"),
}

ROW_CALLS: dict[str, tuple[str, Callable[[sw.ValueStore, Any], Any]]] = {
    "observe": ("steps", lambda s, x: s.observe(x)),
    "propose": ("steps", lambda s, x: s.observe(x, propose=True)),
    "insert": ("keys", lambda s, x: s.insert(x)),
    "search": ("queries", lambda s, x: s.search(x)),
    "search_report": ("queries", lambda s, x: s.search_report(x)),
    "value": ("queries", lambda s, x: s.value(x)),
    "score": ("steps", lambda s, x: s.score(x)),
    "explain": ("steps", lambda s, x: s.explain(x)),
    "frozen search": ("queries", lambda s, x: s.frozen().search(x)),
    "frozen value": ("queries", lambda s, x: s.frozen().value(x)),
    "frozen score": ("steps", lambda s, x: s.frozen().score(x)),
    "frozen explain": ("steps", lambda s, x: s.frozen().explain(x)),
}


@pytest.mark.parametrize("call", ROW_CALLS)
@pytest.mark.parametrize("bad", BAD_ROWS)
def test_rows(store: sw.ValueStore, call: str, bad: str) -> None:
    name, ask = ROW_CALLS[call]
    rows, error, message = BAD_ROWS[bad]
    with pytest.raises(error, match=f"{name}.*{message}"):
        ask(store, rows)


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_rows_of_calibrate(bad: str) -> None:
    empty = sw.ValueStore(sw.Config(dim=DIM))
    before = empty.digest()
    rows, error, message = BAD_ROWS[bad]
    with pytest.raises(error, match=f"steps.*{message}"):
        empty.calibrate(rows)
    assert empty.digest() == before


BAD_VECTORS: dict[str, tuple[Any, type[Exception], str]] = {
    "nan": ([NAN] + [1.0] * (DIM - 1), ValueError, "NaN"),
    "inf": ([INF] + [1.0] * (DIM - 1), ValueError, "infinity"),
    "zero": (np.zeros(DIM), ValueError, "zero"),
    "wrong dimension": (np.ones(DIM - 1), ValueError, "shape"),
    "two rows": (np.ones((2, DIM)), ValueError, "shape"),
    "empty": ([], ValueError, "shape"),
    "number": (1.0, ValueError, "shape"),
    "none": (None, TypeError, "array of numbers"),
    "strings": (["a"] * DIM, TypeError, "dtype"),
    "bools": ([True] * DIM, TypeError, "dtype"),
}


@pytest.mark.parametrize("bad", BAD_VECTORS)
def test_vectors(store: sw.ValueStore, bad: str) -> None:
    vector, error, message = BAD_VECTORS[bad]
    with pytest.raises(error, match=f"key.*{message}"):
        store.add_terminal("new", vector)
    with pytest.raises(error, match=f"query.*{message}"):
        store.recall(vector)
    with pytest.raises(error, match=f"query.*{message}"):
        store.frozen().recall(vector)


# Offsets, context, ids

BAD_OFFSETS: dict[str, tuple[Any, type[Exception], str]] = {
    "empty": ([], ValueError, "shape"),
    "not from 0": ([1, 4], ValueError, "begin with 0"),
    "negative": ([-1, 4], ValueError, "begin with 0"),
    "short of the end": ([0, 3], ValueError, "end with the number of steps 4"),
    "beyond the end": ([0, 5], ValueError, "end with the number of steps 4"),
    "falling": ([0, 3, 2, 4], ValueError, "must not fall: entry 2"),
    "middle beyond the end": ([0, 9, 4], ValueError, "must not fall: entry 2"),
    "2-d": ([[0, 4]], ValueError, "shape"),
    "0-d": (4, ValueError, "shape"),
    "floats": ([0.0, 4.0], TypeError, "integers"),
    "bools": ([False, True], TypeError, "dtype"),
    "strings": (["0", "4"], TypeError, "dtype"),
    "string": ("04", TypeError, "array of numbers"),
    "huge": (np.array([0, 2**63], np.uint64), ValueError, "int64"),
}

EPISODE_CALLS: dict[str, Callable[..., Any]] = {
    "observe": lambda s, x, offsets: s.observe(x, offsets),
    "score": lambda s, x, offsets: s.score(x, offsets),
    "explain": lambda s, x, offsets: s.explain(x, offsets),
    "calibrate": lambda s, x, offsets: sw.ValueStore(s.config).calibrate(x, offsets),
}


@pytest.mark.parametrize("call", EPISODE_CALLS)
@pytest.mark.parametrize("bad", BAD_OFFSETS)
def test_offsets(store: sw.ValueStore, call: str, bad: str) -> None:
    offsets, error, message = BAD_OFFSETS[bad]
    with pytest.raises(error, match=f"offsets.*{message}"):
        EPISODE_CALLS[call](store, unit_rows(4), offsets)


@pytest.mark.parametrize(
    ("context", "error"),
    [
        (-1, ValueError),
        ([0, -2], ValueError),
        ([1], ValueError),
        ([1, 1, 1], ValueError),
        ([[1, 1]], ValueError),
        (1.0, TypeError),
        ([0.5, 1.0], TypeError),
        ([True, False], TypeError),
        ("1", TypeError),
        (None, TypeError),
    ],
)
def test_context(store: sw.ValueStore, context: Any, error: type[Exception]) -> None:
    for ask in (store.score, store.explain, store.frozen().score, store.frozen().explain):
        with pytest.raises(error, match="context"):
            ask(unit_rows(4), [0, 2, 4], context=context)


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        ([7], ValueError),
        ([7, 8, 9], ValueError),
        ([[7, 8]], ValueError),
        ([7, 7], ValueError),
        ([0, 9], ValueError),  # observed before
        ([7, -1], ValueError),
        ([7.0, 8.0], TypeError),
        (["a", "b"], TypeError),
        ("ab", TypeError),
    ],
)
def test_episode_ids(store: sw.ValueStore, ids: Any, error: type[Exception]) -> None:
    for propose in (False, True):
        with pytest.raises(error, match="episode_ids"):
            store.observe(unit_rows(4), [0, 2, 4], episode_ids=ids, propose=propose)


# Drives, weights, texts

BAD_DRIVES: dict[str, tuple[Any, type[Exception]]] = {
    "inf": ([[0.0], [0.0], [INF], [0.0]], ValueError),
    "negative while stopping": ([[0.0], [0.0], [-0.5], [0.0]], ValueError),
    "too few rows": ([[0.0], [0.0], [0.0]], ValueError),
    "too many rows": ([[0.0]] * 5, ValueError),
    "too many channels": ([[0.0, 0.0]] * 4, ValueError),
    "3-d": (np.zeros((4, 1, 1)), ValueError),
    "0-d": (0.5, ValueError),
    "inf in episode": ([[INF], [0.0]], ValueError),
    "strings": ([["a"]] * 4, TypeError),
    "string": ("abcd", TypeError),
    "bools": ([[True]] * 4, TypeError),
    "unknown channel": ({"nobody": [0.0] * 4}, KeyError),
    "terminal": ({"goal": [0.0] * 4}, KeyError),
    "bad column": ({"verifier": [0.0] * 3}, ValueError),
    "nested": ({"verifier": {"verifier": [0.0] * 4}}, TypeError),
}


@pytest.mark.parametrize("bad", BAD_DRIVES)
def test_drives(store: sw.ValueStore, bad: str) -> None:
    drives, error = BAD_DRIVES[bad]
    with pytest.raises(error, match="drives"):
        store.observe(unit_rows(4), [0, 2, 4], drives=drives)
    with pytest.raises(error, match="drives"):
        store.observe(unit_rows(4), [0, 2, 4], drives=drives, propose=True)
    with pytest.raises(error, match="drives"):
        store.insert(unit_rows(4), drives=np.zeros((3, 1)) if bad == "inf in episode" else drives)


def test_a_drive_for_an_episode_without_steps(store: sw.ValueStore) -> None:
    with pytest.raises(ValueError, match=r"drives.*episode 1"):
        store.observe(unit_rows(4), [0, 2, 2, 4], drives=[[0.1], [0.2], [0.3]])


def test_drives_without_a_scalar_channel() -> None:
    store = sw.ValueStore(sw.Config(dim=DIM))
    with pytest.raises(ValueError, match="drives"):
        store.observe(unit_rows(4), drives=[[0.0]] * 4)


BAD_WEIGHTS: dict[str, tuple[Any, type[Exception]]] = {
    "nan": ([NAN, 1.0], ValueError),
    "inf": ([1.0, INF], ValueError),
    "too few": ([1.0], ValueError),
    "too many": ([1.0, 1.0, 1.0], ValueError),
    "2-d": ([[1.0, 1.0]], ValueError),
    "0-d": (1.0, ValueError),
    "strings": (["a", "b"], TypeError),
    "string": ("ab", TypeError),
    "bools": ([True, False], TypeError),
    "unknown channel": ({"nobody": 1.0}, KeyError),
    "nan by name": ({"goal": NAN}, ValueError),
    "string by name": ({"goal": "much"}, TypeError),
}


@pytest.mark.parametrize("bad", BAD_WEIGHTS)
def test_weights(store: sw.ValueStore, bad: str) -> None:
    weights, error = BAD_WEIGHTS[bad]
    view = store.frozen()
    for ask in (store.score, store.explain, view.score, view.explain):
        with pytest.raises(error, match="weights"):
            ask(unit_rows(4), weights=weights)
    for recall in (store.recall, view.recall):
        with pytest.raises(error, match="weights"):
            recall(unit_rows(1)[0], weights=weights)


@pytest.mark.parametrize(
    ("texts", "error"),
    [
        (["a"] * 3, ValueError),
        (["a"] * 5, ValueError),
        ("abcd", TypeError),
        (b"abcd", TypeError),
        (4, TypeError),
        (["a", "b", 3, "d"], TypeError),
        ([b"a"] * 4, TypeError),
    ],
)
def test_texts(store: sw.ValueStore, texts: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="texts"):
        store.observe(unit_rows(4), texts=texts)
    with pytest.raises(error, match="texts"):
        store.insert(unit_rows(4), texts=texts)


# Scalars and names

BAD_SCALARS: dict[str, tuple[Callable[[sw.ValueStore], Any], type[Exception], str]] = {
    "search k 0": (lambda s: s.search(unit_rows(1), k=0), ValueError, "k"),
    "search k negative": (lambda s: s.search(unit_rows(1), k=-1), ValueError, "k"),
    "search k fraction": (lambda s: s.search(unit_rows(1), k=1.5), ValueError, "k"),
    "search k string": (lambda s: s.search(unit_rows(1), k="3"), TypeError, "k"),
    "search k bool": (lambda s: s.search(unit_rows(1), k=True), TypeError, "k"),
    "search k huge": (lambda s: s.search(unit_rows(1), k=10**30), ValueError, "k"),
    "search threads": (lambda s: s.search(unit_rows(1), num_threads=0), ValueError, "num_threads"),
    "value threads": (lambda s: s.value(unit_rows(1), num_threads=0), ValueError, "num_threads"),
    "score threads": (lambda s: s.score(unit_rows(1), num_threads=-1), ValueError, "num_threads"),
    "score threads string": (lambda s: s.score(unit_rows(1), num_threads="2"), TypeError, "num_threads"),
    "score functional": (lambda s: s.score(unit_rows(1), functional="best"), ValueError, "functional"),
    "score functional type": (lambda s: s.score(unit_rows(1), functional=1), TypeError, "functional"),
    "explain functional": (lambda s: s.explain(unit_rows(1), functional="best"), ValueError, "functional"),
    "score discount": (lambda s: s.score(unit_rows(1), discount=1.5), ValueError, "discount"),
    "score discount nan": (lambda s: s.score(unit_rows(1), discount=NAN), ValueError, "discount"),
    "score discount type": (lambda s: s.score(unit_rows(1), discount="1"), TypeError, "discount"),
    "explain discount": (lambda s: s.explain(unit_rows(1), discount=-0.5), ValueError, "discount"),
    "score details": (lambda s: s.score(unit_rows(1), details="yes"), TypeError, "details"),
    "score habituation": (lambda s: s.score(unit_rows(1), habituation={0: 1.0}), TypeError, "habituation"),
    "explain habituation": (lambda s: s.explain(unit_rows(1), habituation=3), TypeError, "habituation"),
    "recall depth": (lambda s: s.recall(unit_rows(1)[0], depth=0), ValueError, "depth"),
    "recall depth type": (lambda s: s.recall(unit_rows(1)[0], depth=None), TypeError, "depth"),
    "recall beams": (lambda s: s.recall(unit_rows(1)[0], beams=0), ValueError, "beams"),
    "recall beams negative": (lambda s: s.recall(unit_rows(1)[0], beams=-4), ValueError, "beams"),
    "replay budget": (lambda s: s.replay(budget=-1), ValueError, "budget"),
    "replay budget fraction": (lambda s: s.replay(budget=0.5), ValueError, "budget"),
    "replay budget type": (lambda s: s.replay(budget="all"), TypeError, "budget"),
    "replay tol": (lambda s: s.replay(tol=-1e-3), ValueError, "tol"),
    "replay tol nan": (lambda s: s.replay(tol=NAN), ValueError, "tol"),
    "replay tol inf": (lambda s: s.replay(tol=INF), ValueError, "tol"),
    "replay tol type": (lambda s: s.replay(tol=None), TypeError, "tol"),
    "replay order": (lambda s: s.replay(order="random"), ValueError, "order"),
    "replay order type": (lambda s: s.replay(order=None), TypeError, "order"),
    "replay need": (lambda s: s.replay(need="much"), ValueError, "need"),
    "replay need none": (lambda s: s.replay(need=None), TypeError, "need"),
    "replay need floats": (lambda s: s.replay(need=[0.5]), TypeError, "need"),
    "replay need empty": (lambda s: s.replay(need=[]), ValueError, "need"),
    "replay need unknown": (lambda s: s.replay(need=[10**6]), KeyError, "memory"),
    "replay consolidate": (lambda s: s.replay(consolidate=1), TypeError, "consolidate"),
    "replay max_drift": (lambda s: s.replay(max_drift=-1.0), ValueError, "max_drift"),
    "replay max_drift nan": (lambda s: s.replay(max_drift=NAN), ValueError, "max_drift"),
    "replay max_drift type": (lambda s: s.replay(max_drift="1"), TypeError, "max_drift"),
    "replay floor": (lambda s: s.replay(1, floor=-1.0), ValueError, "floor"),
    "replay floor nan": (lambda s: s.replay(1, floor=NAN), ValueError, "floor"),
    "replay floor type": (lambda s: s.replay(1, floor="low"), TypeError, "floor"),
    "replay floor without end": (
        lambda s: s.replay(floor=1e-10),
        ValueError,
        "floor: replay with one goes on for ever",
    ),
    "replay floor order": (lambda s: s.replay(1, order="full", floor=1e-10), ValueError, "floor"),
    "replay extend": (lambda s: s.replay(extend=1), TypeError, "extend"),
    "replay extend order": (lambda s: s.replay(order="reverse", extend=True), ValueError, "extend"),
    "replay threads": (lambda s: s.replay(num_threads=0), ValueError, "num_threads"),
    "observe source": (lambda s: s.observe(unit_rows(2), source=3), TypeError, "source"),
    "observe propose": (lambda s: s.observe(unit_rows(2), propose="yes"), TypeError, "propose"),
    "terminal name taken": (lambda s: s.add_terminal("goal", unit_rows(1)[0]), ValueError, "name"),
    "terminal name empty": (lambda s: s.add_terminal("", unit_rows(1)[0]), ValueError, "name"),
    "terminal name type": (lambda s: s.add_terminal(3, unit_rows(1)[0]), TypeError, "name"),
    "terminal range": (lambda s: s.add_terminal("a", unit_rows(1)[0], 0.5, 0.5), ValueError, "high"),
    "terminal low nan": (lambda s: s.add_terminal("a", unit_rows(1)[0], NAN, 1.0), ValueError, "low"),
    "terminal high inf": (lambda s: s.add_terminal("a", unit_rows(1)[0], 0.0, INF), ValueError, "high"),
    "terminal low type": (lambda s: s.add_terminal("a", unit_rows(1)[0], "0"), TypeError, "low"),
    "channel name taken": (lambda s: s.add_channel("verifier"), ValueError, "name"),
    "channel name type": (lambda s: s.add_channel(None), TypeError, "name"),
    "channel range": (lambda s: s.add_channel("a", 1.0, 0.0), ValueError, "high"),
    "channel low nan": (lambda s: s.add_channel("a", NAN), ValueError, "low"),
    "channel high type": (lambda s: s.add_channel("a", 0.0, [1.0]), TypeError, "high"),
    "remove unknown": (lambda s: s.remove_channel("nobody"), KeyError, "nobody"),
    "remove type": (lambda s: s.remove_channel(0), TypeError, "name"),
    "veto nothing": (lambda s: s.veto(), TypeError, "one of memory=, episode= or episodes="),
    "veto both": (lambda s: s.veto(memory=0, episode=0), TypeError, "one of memory=, episode= or episodes="),
    "veto unknown memory": (lambda s: s.veto(memory=10**6), KeyError, "memory"),
    "veto negative memory": (lambda s: s.veto(memory=-1), KeyError, "memory"),
    "veto huge memory": (lambda s: s.veto(memory=10**30), ValueError, "memory"),
    "veto memory type": (lambda s: s.veto(memory="1"), TypeError, "memory"),
    "veto terminal": (lambda s: s.veto(memory=0), ValueError, "terminal"),
    "veto unknown episode": (lambda s: s.veto(episode=99), KeyError, "episode"),
    "veto unknown episodes": (lambda s: s.veto(episodes=[0, 99, 98]), KeyError, "98"),
    "veto episodes type": (lambda s: s.veto(episodes=[0.5]), TypeError, "episodes"),
    "preview of nothing": (lambda s: s.without(), TypeError, "one of memory="),
    "preview of unknown episodes": (lambda s: s.without(episodes=[99]), KeyError, "episode"),
    "checkpoints beyond": (lambda s: s.checkpoint(65), ValueError, "keep"),
    "provenance of nothing": (lambda s: s.provenance(10**6), KeyError, "memory"),
    "veto episode type": (lambda s: s.veto(episode=0.5), ValueError, "episode"),
    "calibrate a full store": (lambda s: s.calibrate(unit_rows(4)), ValueError, "empty"),
    "embedder type": (lambda s: s.bind_embedder(3), TypeError, "fingerprint"),
    "ablated values": (lambda s: s.frozen().ablated(values=[[1.0]]), ValueError, "values"),
    "ablated values type": (lambda s: s.frozen().ablated(values="v"), TypeError, "values"),
    "ablated baseline": (lambda s: s.frozen().ablated(baseline=[0.0]), ValueError, "baseline"),
    "ablated fade": (lambda s: s.frozen().ablated(fade=1.5), ValueError, "fade"),
    "ablated transitions": (lambda s: s.frozen().ablated(constant_transitions=1), TypeError, "constant"),
}


@pytest.mark.parametrize("bad", BAD_SCALARS)
def test_scalars(store: sw.ValueStore, bad: str) -> None:
    ask, error, name = BAD_SCALARS[bad]
    with pytest.raises(error, match=name):
        ask(store)


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", None, 10**6])
def test_set_num_threads(n: Any) -> None:
    before = sw.get_num_threads()
    with pytest.raises((ValueError, TypeError, OverflowError)):
        sw.set_num_threads(n)
    assert sw.get_num_threads() == before


# Config

BAD_NUMBERS: list[tuple[str, Any, type[Exception]]] = [
    ("dim", 0, ValueError),
    ("dim", -3, ValueError),
    ("dim", 2.5, ValueError),
    ("dim", "8", TypeError),
    ("dim", None, TypeError),
    ("dim", True, TypeError),
    ("k", 0, ValueError),
    ("k", 10**12, ValueError),
    ("tau", 1.0, ValueError),
    ("tau", -1.5, ValueError),
    ("tau", NAN, ValueError),
    ("tau", "near", TypeError),
    ("power", 0, ValueError),
    ("power", 1.5, ValueError),
    ("epsilon", 0.0, ValueError),
    ("epsilon", 9e-4, ValueError),
    ("gamma", 1.0, ValueError),
    ("gamma", -0.1, ValueError),
    ("gamma", None, TypeError),
    ("trace", 1.5, ValueError),
    ("trace", -0.1, ValueError),
    ("trace_size", 0, ValueError),
    ("max_out", 0, ValueError),
    ("min_novelty", -0.1, ValueError),
    ("min_novelty", 1.5, ValueError),
    ("min_worth", INF, ValueError),
    ("w_novelty", NAN, ValueError),
    ("w_surprise", NAN, ValueError),
    ("w_drive", -INF, ValueError),
    ("rho", -0.1, ValueError),
    ("rho", 1.1, ValueError),
    ("sigma_0", 0.0, ValueError),
    ("equation", "both", ValueError),
    ("equation", 1, TypeError),
    ("capacity", 0, ValueError),
    ("capacity", -1, ValueError),
    ("capacity", "all", TypeError),
    ("half_life", 0, ValueError),
    ("e_lo", 0.7, ValueError),
    ("e_hi", 0.0, ValueError),
    ("d_lo", 0.9, ValueError),
    ("d_hi", 0.1, ValueError),
    ("d_hi", NAN, ValueError),
    ("keep_episodes", 1, TypeError),
    ("keep_episodes", None, TypeError),
]


@pytest.mark.parametrize(("name", "value", "error"), BAD_NUMBERS)
def test_config(name: str, value: Any, error: type[Exception]) -> None:
    # Of a pair like (e_lo, e_hi), the error may name either.
    pair = {"e_hi": "e_(lo|hi)", "d_hi": "d_(lo|hi)"}.get(name, name)
    with pytest.raises(error, match=pair):
        sw.Config(**{"dim": DIM, name: value})


def test_config_from_dict() -> None:
    with pytest.raises(ValueError, match="unknown config name: gama"):
        sw.Config.from_dict({"dim": DIM, "gama": 0.5})
    with pytest.raises(TypeError, match="dim"):
        sw.Config.from_dict({})


@pytest.mark.parametrize("config", [None, {"dim": DIM}, DIM])
def test_store_wants_a_config(config: Any) -> None:
    with pytest.raises(TypeError, match="config"):
        sw.ValueStore(config)


# Habituation


@pytest.mark.parametrize(
    ("numbers", "error"),
    [
        ({"episodes": 0}, ValueError),
        ({"episodes": 1.5}, ValueError),
        ({"episodes": "64"}, TypeError),
        ({"eta": -1.0}, ValueError),
        ({"eta": NAN}, ValueError),
        ({"eta": INF}, ValueError),
        ({"eta": "1"}, TypeError),
    ],
)
def test_habituation(numbers: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(numbers))):
        sw.Habituation(**numbers)


def test_habituation_records_details_only(store: sw.ValueStore) -> None:
    with pytest.raises(ValueError, match="details=True"):
        sw.Habituation().record(store.score(unit_rows(3)))


# Embedder


def test_another_embedder_is_refused() -> None:
    store = new_store()
    store.bind_embedder("MiniLM")
    before = store.digest()
    store.bind_embedder("MiniLM")
    with pytest.raises(sw.EmbedderError, match=r"MiniLM.*other"):
        store.bind_embedder("other")
    assert store.digest() == before
    assert store.embedder == "MiniLM"


# Veto without episodes


def test_veto_needs_the_episodes() -> None:
    store = new_store(keep_episodes=False)
    report = store.observe(unit_rows(4))
    before = store.digest()
    with pytest.raises(ValueError, match="keep_episodes"):
        store.veto(episode=0)
    with pytest.raises(ValueError, match="keep_episodes"):
        store.veto(memory=int(report.memory_ids[0]))
    assert store.digest() == before


# Closed and empty stores

READS: dict[str, Callable[[Any], Any]] = {
    "len": len,
    "config": lambda s: s.config,
    "channels": lambda s: s.channels,
    "channel_ranges": lambda s: s.channel_ranges,
    "scalar_channels": lambda s: s.scalar_channels,
    "embedder": lambda s: s.embedder,
    "ids": lambda s: s.ids,
    "keys": lambda s: s.keys,
    "values": lambda s: s.values,
    "drives": lambda s: s.drives,
    "baseline": lambda s: s.baseline,
    "counts": lambda s: s.counts,
    "mass": lambda s: s.mass,
    "is_terminal": lambda s: s.is_terminal,
    "texts": lambda s: s.texts,
    "edges": lambda s: s.edges(),
    "digest": lambda s: s.digest(),
    "to_bytes": lambda s: s.to_bytes(),
    "frozen": lambda s: s.frozen(),
    "search": lambda s: s.search(unit_rows(2)),
    "value": lambda s: s.value(unit_rows(2)),
    "score": lambda s: s.score(unit_rows(2)),
    "explain": lambda s: s.explain(unit_rows(2)),
    "recall": lambda s: s.recall(unit_rows(1)[0]),
    "pickle": lambda s: pickle.dumps(s),
    "copy": lambda s: copy.copy(s),
    "deepcopy": lambda s: copy.deepcopy(s),
}

WRITES: dict[str, Callable[[Any], Any]] = {
    "calibrate": lambda s: s.calibrate(unit_rows(4)),
    "add_terminal": lambda s: s.add_terminal("other", unit_rows(1)[0]),
    "add_channel": lambda s: s.add_channel("other"),
    "remove_channel": lambda s: s.remove_channel("goal"),
    "observe": lambda s: s.observe(unit_rows(2)),
    "insert": lambda s: s.insert(unit_rows(2)),
    "replay": lambda s: s.replay(),
    "veto": lambda s: s.veto(episode=0),
    "bind_embedder": lambda s: s.bind_embedder("MiniLM"),
    "flush": lambda s: s.flush(),
}


@pytest.mark.parametrize("call", [*READS, *WRITES])
def test_closed(store: sw.ValueStore, call: str) -> None:
    store.close()
    store.close()
    assert store.closed
    with pytest.raises(ValueError, match="store is closed"):
        ({**READS, **WRITES})[call](store)
    assert repr(store) == "ValueStore(closed)"


def test_closed_store_saves_nothing(store: sw.ValueStore, tmp_path: Any) -> None:
    store.close()
    with pytest.raises(ValueError, match="store is closed"):
        store.save(tmp_path / "snapshot.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", READS)
@pytest.mark.parametrize("channels", [False, True])
def test_empty_store_can_be_read(call: str, channels: bool) -> None:
    store = sw.ValueStore(sw.Config(dim=DIM))
    if channels:
        store.add_channel("verifier")
    READS[call](store)
    READS[call](store.frozen())


def test_empty_store_knows_nothing() -> None:
    store = sw.ValueStore(sw.Config(dim=DIM))
    ids, cosines = store.search(unit_rows(2), k=3)
    assert (ids == -1).all()
    assert (cosines == -INF).all()
    assert ids.shape == (2, 3)
    values, support = store.value(unit_rows(2))
    assert values.shape == (2, 0)
    assert (support == 0).all()
    scores = store.score(unit_rows(3), details=True)
    assert (scores.total == 0).all()
    assert (scores.step == 0).all()
    assert (scores.support == 0).all()
    assert scores.ids is not None
    assert (scores.ids == -1).all()
    assert store.recall(unit_rows(1)[0]) == []
    report = store.replay()
    assert report.converged
    assert report.backups == 0
    assert report.residual == 0
    with pytest.raises(KeyError, match="episode"):
        store.veto(episode=0)
    with pytest.raises(KeyError, match="memory"):
        store.veto(memory=0)


# Empty batches


@pytest.mark.parametrize("nothing", [[], np.empty((0, DIM)), np.empty((0, DIM), np.float32), ()])
def test_empty_batches(store: sw.ValueStore, nothing: Any) -> None:
    ids, cosines = store.search(nothing, k=3)
    assert ids.shape == cosines.shape == (0, 3)
    values, support = store.value(nothing)
    assert values.shape == (0, 2)
    assert support.shape == (0,)
    scores = store.score(nothing, [0])
    assert scores.total.shape == (0,)
    assert scores.step.shape == (0,)
    assert store.score(nothing).total.tolist() == [0.0]  # one episode without steps
    assert store.score(nothing, [0, 0, 0], context=[0, 3]).total.tolist() == [0.0, 0.0]
    details = store.score(nothing, [0], details=True)
    assert details.ids is not None
    assert details.ids.shape == (0, store.config.k)
    assert store.explain(nothing) == []
    assert store.insert(nothing).shape == (0,)
    report = store.observe(nothing, [0])
    assert report.memory_ids.shape == report.outcome.shape == report.episode_ids.shape == (0,)


# Files


def test_files(tmp_path: Any, store: sw.ValueStore) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        sw.ValueStore.load(tmp_path / "nothing.safetensors")
    assert missing.value.errno == 2
    assert str(missing.value.filename).endswith("nothing.safetensors")
    with pytest.raises(FileNotFoundError):
        store.save(tmp_path / "no such directory" / "snapshot.safetensors")
    with pytest.raises(IsADirectoryError):
        sw.ValueStore.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="pass a config"):
        sw.ValueStore.open(tmp_path / "store")
    (tmp_path / "file").write_text("no directory")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        sw.ValueStore.open(tmp_path / "file", sw.Config(dim=DIM))
    with pytest.raises(TypeError):
        sw.ValueStore.load(None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        sw.ValueStore.open(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="config"):
        sw.ValueStore.open(tmp_path / "store", {"dim": DIM})  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="bytes"):
        sw.ValueStore.from_bytes("text")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b"not a store at all",
        lambda b: b[:4],
        lambda b: b[: len(b) // 2],
        lambda b: b[:-1],
        lambda b: b + b"more",
        lambda b: b"\xff" * 8 + b[8:],
        lambda b: b[:-5] + bytes([b[-5] ^ 1]) + b[-4:],
        lambda b: b[:200] + bytes([b[200] ^ 4]) + b[201:],
        lambda b: pickle.dumps({"a": 1}),
    ],
)
def test_damaged_snapshot(store: sw.ValueStore, tmp_path: Any, damage: Callable[[bytes], bytes]) -> None:
    damaged = damage(store.to_bytes())
    with pytest.raises(sw.FormatError):
        sw.ValueStore.from_bytes(damaged)
    (tmp_path / "snapshot.safetensors").write_bytes(damaged)
    with pytest.raises(sw.FormatError):
        sw.ValueStore.load(tmp_path / "snapshot.safetensors")
    with pytest.raises(sw.FormatError):
        sw.ValueStore.open(tmp_path)


def test_every_flipped_bit_is_found(store: sw.ValueStore) -> None:
    snapshot = store.to_bytes()
    for at in np.random.default_rng(0).integers(0, len(snapshot), 200):
        damaged = bytearray(snapshot)
        damaged[at] ^= 1 << int(at % 8)
        with pytest.raises(sw.FormatError):
            sw.ValueStore.from_bytes(bytes(damaged))
