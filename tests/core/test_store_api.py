"""The Python face of the store: what it takes, what it gives back, where it lives."""

import copy
import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw

DIM = 8


def unit_rows(n: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def filled(store: sw.ValueStore) -> sw.ValueStore:
    store.add_terminal("goal", unit_rows(1, seed=1)[0])
    store.add_channel("verifier")
    store.observe(unit_rows(12), [0, 5, 12], drives=[[0.5], [1.0]], texts=[f"step {t}" for t in range(12)])
    store.replay()
    return store


@pytest.fixture
def store() -> sw.ValueStore:
    return filled(sw.ValueStore(sw.Config(dim=DIM)))


# Importing


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("code", "needs"), [("sharpwave", {"sharpwave"}), ("sharpwave; sharpwave.ValueStore", {"sharpwave", "numpy"})]
)
def test_importing_imports_what_is_used_and_nothing_else(code: str, needs: set[str]) -> None:
    imported = python(f"import sys, {code}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))").split()
    assert set(imported) - set(sys.stdlib_module_names) - {"__main__"} - site_modules() == needs - site_modules()


def site_modules() -> set[str]:
    """What this environment imports by itself when Python starts."""
    return set(python("import sys; print(*{m.split('.')[0] for m in sys.modules})").split())


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_importing_starts_no_thread() -> None:
    count = "import os, numpy, {}; print(len(os.listdir('/proc/self/task')))"
    assert python(count.format("sharpwave")) == python(count.format("numpy"))


def test_every_public_name_is_there() -> None:
    for name in sw.__all__:
        assert getattr(sw, name) is not None
    assert set(sw.__all__) <= set(dir(sw))
    assert sw.divergence.__name__ == "sharpwave.divergence"  # as other modules, without an import of its own
    with pytest.raises(AttributeError, match="nothing_like_it"):
        sw.nothing_like_it  # pyright: ignore[reportAttributeAccessIssue]


def test_public_names_are_documented() -> None:
    for name in (
        "ValueStore",
        "FrozenView",
        "Config",
        "Habituation",
        "Scores",
        "ObserveReport",
        "ReplayReport",
        "Path",
    ):
        kind = getattr(sw, name)
        assert kind.__doc__
        for member, value in vars(kind).items():
            if not member.startswith("_") and callable(value):
                assert value.__doc__, f"{name}.{member}"


def test_a_config_is_printed_by_the_names_it_is_made_with() -> None:
    config = sw.Config(dim=5, min_novelty=0.25, min_worth=0.5, capacity=7)
    assert eval(repr(config), {"Config": sw.Config}) == config


def test_functionals_are_those_of_the_core() -> None:
    from typing import get_args

    from sharpwave import _core
    from sharpwave.view import Functional

    assert list(get_args(Functional)) == _core.functionals()


# Config


def test_config_takes_numbers_of_any_kind() -> None:
    cfg = sw.Config(dim=np.int64(8), power=2.0, gamma=np.float32(0.5), k=4.0, capacity=np.uint8(9))  # type: ignore[arg-type]
    assert (cfg.dim, cfg.power, cfg.gamma, cfg.k, cfg.capacity) == (8, 2, 0.5, 4, 9)
    assert all(type(n) is int for n in (cfg.dim, cfg.power, cfg.k, cfg.capacity))
    assert cfg == sw.Config(8, k=4, gamma=0.5, capacity=9)
    assert hash(cfg) == hash(sw.Config(8, k=4, gamma=0.5, capacity=9))


def test_config_is_the_one_of_the_store() -> None:
    cfg = sw.Config(dim=DIM, tau=0.1234567890123, trace=0.3, equation="return", keep_episodes=False)
    assert sw.ValueStore(cfg).config == cfg
    assert sw.Config.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg
    assert sw.Config.from_json(cfg.to_json()) == cfg
    assert pickle.loads(pickle.dumps(cfg)) == cfg
    with pytest.raises(AttributeError):
        cfg.dim = 3  # type: ignore[misc]


def test_old_names_of_config_fields_warn() -> None:
    cfg = sw.Config(dim=DIM, min_novelty=0.25, min_worth=0.5)
    old: dict[str, Any] = {"novelty": 0.25}
    with pytest.warns(DeprecationWarning, match="Config.novelty is now Config.min_novelty"):
        assert sw.Config(dim=DIM, min_worth=0.5, **old) == cfg
    with pytest.warns(DeprecationWarning, match="Config.worth is now Config.min_worth"):
        assert dataclasses.replace(sw.Config(dim=DIM, min_novelty=0.25), worth=0.5) == cfg
    with pytest.warns(DeprecationWarning, match="Config.novelty"):
        assert cfg.novelty == 0.25
    with pytest.warns(DeprecationWarning, match="Config.worth"):
        assert cfg.worth == 0.5


def test_files_call_config_fields_as_ever() -> None:
    cfg = sw.Config(dim=DIM, min_novelty=0.25, min_worth=0.5)
    numbers = cfg.to_dict()
    assert (numbers["novelty"], numbers["worth"]) == (0.25, 0.5)
    assert not {"min_novelty", "min_worth"} & set(numbers)
    assert sw.Config.from_dict({"dim": DIM, "novelty": 0.25, "min_worth": 0.5}) == cfg
    with pytest.raises(ValueError, match="min_novelty and novelty are the same number"):
        sw.Config.from_dict({"dim": DIM, "novelty": 0.25, "min_novelty": 0.25})
    assert b'\\"novelty\\":0.25' in sw.ValueStore(cfg).to_bytes()


def test_config_of_the_interface() -> None:
    sw.Config(
        dim=384, k=16, tau=0.20, power=2.0, epsilon=0.02, gamma=0.70, trace=0.0, max_out=32, min_novelty=0.9,
        min_worth=0.0, rho=0.2, sigma_0=0.02, equation="stopping", capacity=None, keep_episodes=True,
    )  # fmt: skip


# Coercion: whatever holds the same numbers gives the same bits


def forms(rows: np.ndarray) -> dict[str, Any]:
    import torch

    wide = np.zeros((2 * len(rows), 2 * DIM), np.float32)
    wide[::2, ::2] = rows
    tensor = torch.from_numpy(rows.copy())
    read_only = rows.copy()
    read_only.flags.writeable = False
    return {
        "list": rows.tolist(),
        "tuple of arrays": tuple(rows),
        "list of tensors": list(tensor),
        "float64": rows.astype(np.float64),
        "longdouble": rows.astype(np.longdouble),
        "big-endian": rows.astype(">f4"),
        "fortran": np.asfortranarray(rows),
        "strided": wide[::2, ::2],
        "reversed": rows[::-1].copy()[::-1],
        "read-only": read_only,
        "matrix": np.matrix(rows) if hasattr(np, "matrix") else rows,
        "torch": tensor,
        "torch float64": tensor.double(),
        "torch transposed": torch.from_numpy(np.ascontiguousarray(rows.T)).T,
        "torch requiring grad": tensor.clone().requires_grad_(),
        "torch negated twice": torch.view_as_complex(torch.stack([tensor, -tensor], -1)).conj().imag,
    }


FORMS = [
    "list", "tuple of arrays", "list of tensors", "float64", "longdouble", "big-endian", "fortran", "strided",
    "reversed", "read-only", "matrix", "torch", "torch float64", "torch transposed", "torch requiring grad",
    "torch negated twice",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_forms(store: sw.ValueStore, form: str) -> None:
    rows = unit_rows(6, seed=2)
    other = forms(rows)[form]
    assert_equal(store.score(rows, [0, 2, 6]), store.score(other, [0, 2, 6]))
    np.testing.assert_array_equal(store.search(rows)[1], store.search(other)[1])
    np.testing.assert_array_equal(store.value(rows)[0], store.value(other)[0])
    twin = copy.deepcopy(store)
    store.observe(rows)
    twin.observe(other)
    assert store.digest() == twin.digest()
    store.insert(rows)
    twin.insert(other)
    assert store.digest() == twin.digest()


def assert_equal(a: sw.Scores, b: sw.Scores) -> None:
    for name in ("total", "step", "support", "edge", "redundancy"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_half_precision_and_integers(store: sw.ValueStore) -> None:
    import torch

    rows = unit_rows(4, seed=2)
    for narrow in (torch.bfloat16, torch.float16):
        tensor = torch.from_numpy(rows).to(narrow)
        assert_equal(store.score(tensor), store.score(tensor.float().numpy()))
    one_hot = np.eye(DIM, dtype=np.int64)
    assert_equal(store.score(one_hot), store.score(one_hot.astype(np.float32)))
    assert_equal(store.score(torch.from_numpy(one_hot)), store.score(one_hot))


def test_tensors_that_hold_no_rows(store: sw.ValueStore) -> None:
    import torch

    with pytest.raises(TypeError, match="steps"):
        store.score(torch.eye(DIM).to_sparse())
    with pytest.raises(TypeError, match="steps"):
        store.score(torch.empty(2, DIM, device="meta"))
    with pytest.raises(TypeError, match="steps"):
        store.score(torch.ones(2, DIM, dtype=torch.complex64))
    with pytest.raises(TypeError, match="steps"):
        store.score(torch.ones(2, DIM, dtype=torch.bool))


@pytest.mark.cuda
def test_cuda_tensors(store: sw.ValueStore) -> None:
    import torch

    rows = torch.from_numpy(unit_rows(6, seed=2))
    assert_equal(store.score(rows), store.score(rows.cuda()))
    assert_equal(store.score(rows), store.score(rows.cuda().double()))


def test_no_copy_of_what_fits() -> None:
    import torch
    from sharpwave import _coerce

    rows = unit_rows(4)
    assert np.shares_memory(_coerce.rows("steps", rows, DIM), rows)
    assert np.shares_memory(_coerce.rows("steps", torch.from_numpy(rows), DIM), rows)
    assert not np.shares_memory(_coerce.rows("steps", rows.astype(np.float64), DIM), rows)


def test_inputs_are_not_changed(store: sw.ValueStore) -> None:
    rows = 3 * unit_rows(4, seed=3)
    before = rows.copy()
    store.score(rows)
    store.observe(rows)
    store.insert(rows)
    np.testing.assert_array_equal(rows, before)


def test_inputs_are_normalised(store: sw.ValueStore) -> None:
    rows = unit_rows(4, seed=3)
    np.testing.assert_allclose(store.score(rows).step, store.score(rows * 1e-6).step, atol=1e-6)


def test_one_episode_needs_no_offsets(store: sw.ValueStore) -> None:
    rows = unit_rows(6, seed=2)
    assert_equal(store.score(rows), store.score(rows, [0, 6]))
    assert store.score(rows).total.shape == (1,)


def test_one_query_is_a_batch_of_one(store: sw.ValueStore) -> None:
    rows = unit_rows(2, seed=2)
    np.testing.assert_array_equal(store.search(rows[0])[0], store.search(rows)[0][:1])
    np.testing.assert_array_equal(store.value(rows[0])[0], store.value(rows)[0][:1])


def test_context(store: sw.ValueStore) -> None:
    rows, ends = unit_rows(6, seed=2), [0, 2, 6]
    assert_equal(store.score(rows, ends), store.score(rows, ends, context=True))
    assert_equal(store.score(rows, ends), store.score(rows, ends, context=1))
    assert_equal(store.score(rows, ends), store.score(rows, ends, context=np.array([1, 1])))
    assert_equal(store.score(rows, ends, context=False), store.score(rows, ends, context=0))
    assert_equal(store.score(rows, ends, context=np.True_), store.score(rows, ends))
    assert store.score(rows, ends, context=2).total[0] == 0  # all prompt
    assert store.score(rows, ends, context=99).total.tolist() == [0, 0]
    np.testing.assert_array_equal(store.score(rows, ends, context=[0, 3]).context, [0, 3])


def test_weights(store: sw.ValueStore) -> None:
    rows = unit_rows(6, seed=2)
    assert_equal(store.score(rows), store.score(rows, weights=[0.5, 0.5]))
    assert_equal(store.score(rows, weights=[0, 2.0]), store.score(rows, weights={"verifier": 2}))
    assert_equal(store.score(rows, weights=[1.0, 0.0]), store.score(rows, weights={"goal": np.float32(1)}))
    assert (store.score(rows, weights={}).total == 0).all()


def test_drives() -> None:
    rows, ends = unit_rows(5, seed=2), [0, 2, 5]
    nan = np.nan
    digests = set()
    for drives in (
        [[nan], [0.5], [nan], [nan], [1.0]],  # a row a step
        [[0.5], [1.0]],  # a row an episode
        [0.5, 1.0],  # one channel needs no columns
        [nan, 0.5, nan, nan, 1.0],
        {"verifier": [0.5, 1.0]},
        {"verifier": np.array([nan, 0.5, nan, nan, 1.0])},
        {"verifier": [[0.5], [1.0]]},
    ):
        store = sw.ValueStore(sw.Config(dim=DIM))
        store.add_channel("verifier")
        store.observe(rows, ends, drives=drives)
        digests.add(store.digest())
    assert len(digests) == 1


def test_drives_of_several_channels() -> None:
    store = sw.ValueStore(sw.Config(dim=DIM))
    store.add_channel("a")
    store.add_terminal("goal", unit_rows(1, seed=1)[0])
    store.add_channel("b")
    assert store.channels == ["a", "goal", "b"]
    assert store.scalar_channels == ["a", "b"]
    ids = store.insert(unit_rows(2, seed=5), drives={"b": [0.25, np.nan]})
    rows = store.drives[np.searchsorted(store.ids, ids)]
    np.testing.assert_array_equal(rows[:, [0, 2]], [[0, 0.25], [0, 0]])


# What comes back


def test_observe_report(store: sw.ValueStore) -> None:
    known = store.keys[-1]
    report = store.observe(np.stack([unit_rows(1, seed=77)[0], known]), episode_ids=[41])
    assert report.memory_ids.dtype == np.int64
    assert report.outcome.tolist()[1] == "merged"
    assert report.memory_ids[1] == store.ids[-1] or report.outcome[0] == "new"
    assert report.episode_ids.tolist() == [41]
    assert sum(report.counts.values()) == 2
    assert set(report.counts) == {"new", "merged", "dropped", "proposed"}


def test_dropped_steps() -> None:
    store = sw.ValueStore(sw.Config(dim=DIM, min_worth=2.0))
    report = store.observe(unit_rows(3))
    assert report.memory_ids.tolist() == [-1, -1, -1]
    assert report.outcome.tolist() == ["dropped"] * 3
    assert len(store) == 0


def test_columns(store: sw.ValueStore) -> None:
    n = len(store)
    assert store.dim == DIM
    assert store.channels == ["goal", "verifier"]
    assert store.channel_ranges == {"goal": (0, 1), "verifier": (0, 1)}
    shapes = {
        "ids": ((n,), np.int64),
        "keys": ((n, DIM), np.float32),
        "values": ((n, 2), np.float32),
        "drives": ((n, 2), np.float32),
        "counts": ((n,), np.int64),
        "mass": ((n,), np.float64),
        "is_terminal": ((n,), np.bool_),
        "baseline": ((2,), np.float32),
    }
    for name, (shape, dtype) in shapes.items():
        column = getattr(store, name)
        assert column.shape == shape, name
        assert column.dtype == dtype, name
        assert column.flags.c_contiguous, name
        with pytest.raises(ValueError, match="read-only"):
            column[...] = 0
    assert store.is_terminal.tolist() == [True] + [False] * (n - 1)
    assert store.counts.sum() == 12
    assert len(store.texts) == n
    assert store.texts[:2] == ["goal", "step 0"]
    np.testing.assert_allclose(np.linalg.norm(store.keys, axis=1), 1, atol=1e-6)
    source, target, weight = store.edges()
    assert source.shape == target.shape == weight.shape
    assert (weight > 0).all()
    assert set(source) <= set(store.ids)
    assert (np.diff(source) >= 0).all()


def test_texts_may_be_missing() -> None:
    store = sw.ValueStore(sw.Config(dim=DIM, tau=0.99))
    store.insert(unit_rows(2), texts=["first", None])
    store.insert(unit_rows(1, seed=4))
    assert store.texts == ["first", None, None]


def test_score_details(store: sw.ValueStore) -> None:
    rows = unit_rows(5, seed=2)
    plain, scores = store.score(rows), store.score(rows, details=True)
    assert_equal(plain, scores)
    assert plain.ids is None
    assert plain.phi is None
    k = store.config.k
    assert scores.ids is not None
    assert scores.phi is not None
    assert scores.similarity is not None
    assert scores.ids.shape == scores.phi.shape == scores.similarity.shape == (5, k)
    padded = scores.ids < 0
    assert (scores.phi[padded] == 0).all()
    assert np.isneginf(scores.similarity[padded]).all()
    np.testing.assert_allclose(scores.total[0], scores.step.sum(), rtol=1e-6)


def test_explain_adds_up(store: sw.ValueStore) -> None:
    rows, ends = unit_rows(9, seed=0), [0, 5, 9]
    for functional in ("coverage", "mean", "progress", "potential"):
        scores = store.score(rows, ends, functional=functional)
        explanations = store.explain(rows, ends, functional=functional)
        assert [e.step for e in explanations] == list(range(9))
        for why in explanations:
            assert why.pay == pytest.approx(scores.step[why.step], abs=1e-6)
            assert sum(why.channels.values()) == pytest.approx(why.pay, abs=1e-6)
            assert list(why.channels) == store.channels
            assert why.support == pytest.approx(scores.support[why.step])
            if functional == "coverage":
                assert sum(m.pay for m in why.memories) == pytest.approx(why.pay, abs=1e-6)
            for payment in why.memories:
                assert payment.text == store.texts[int(np.searchsorted(store.ids, payment.id))]
            for association in why.associations:
                assert {association.source, association.target} <= set(store.ids.tolist())
    assert "step 1: pay" in str(explanations[1])


def test_recall(store: sw.ValueStore) -> None:
    paths = store.recall(unit_rows(1)[0], depth=3, beams=2)
    assert 1 <= len(paths) <= 2
    assert paths[0].score >= paths[-1].score
    for path in paths:
        assert len(path) == len(path.ids) == len(path.values) == len(path.texts) <= 3
        assert len(set(path.ids.tolist())) == len(path)


def test_recall_of_many_is_recall_of_each(store: sw.ValueStore) -> None:
    queries = unit_rows(5)
    for view in (store, store.frozen()):
        for how in ({}, {"cleanup": 2}, {"distinct": True, "beams": 8}):
            many = view.recall_many(queries, **how, num_threads=2)
            each = [view.recall(query, **how) for query in queries]
            assert [[(p.ids.tolist(), p.score) for p in paths] for paths in many] == [
                [(p.ids.tolist(), p.score) for p in paths] for paths in each
            ]
            if "distinct" in how:
                assert all(len({p.ids[-1] for p in paths}) == len(paths) for paths in many)


def test_a_noisy_cue_is_cleaned_up() -> None:
    """A key with so much noise that what it is a cue for barely answers; drawn to the store it answers fully."""
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(20, 64))
    store = sw.ValueStore(sw.Config(dim=64, k=20, tau=-0.3, power=4, min_novelty=0.1))
    store.add_channel("s")
    store.observe(keys, np.arange(0, 21, 2), drives=np.tile([[np.nan], [1.0]], (10, 1)))
    noisy = keys[6] + 1.8 * rng.normal(size=64)
    (before, *_), (after, *_) = store.recall(noisy), store.recall(noisy, cleanup=3)
    assert after.ids.tolist() == [6, 7]
    assert after.score > 1.5 * before.score


def test_associate_spreads_along_associations_and_stays_within_one(store: sw.ValueStore) -> None:
    queries = unit_rows(4)
    for view in (store, store.frozen()):
        ids, a = view.associate(queries, steps=6, damping=0.9, k=len(store))
        assert ids.shape == a.shape == (4, len(store))
        assert (a.sum(1) <= 1 + 1e-12).all()
        assert (np.diff(a, axis=1) <= 0).all()
        again = view.associate(queries, steps=6, damping=0.9, k=len(store), num_threads=2)
        assert again[0].tobytes() == ids.tobytes()
        assert again[1].tobytes() == a.tobytes()
    found, near = store.search(queries, k=1), store.associate(queries, steps=0, k=1)
    assert found[0].tolist() == near[0].tolist()


def test_associate_is_personalised_pagerank() -> None:
    """Against the dense solution of a = (1 − d)·φ + d·aP, on a ring with shortcuts."""
    n, d = 12, 0.8
    store = sw.ValueStore(sw.Config(dim=n, k=1))
    for start in range(n):
        for stride in (1, 1, 5):
            store.observe(np.eye(n)[[start, (start + stride) % n]])
    place = {i: row for row, i in enumerate(store.ids.tolist())}
    P = np.zeros((n, n))
    for i, j, p in zip(*store.edges(), strict=True):
        P[place[int(i)], place[int(j)]] = p
    phi = store.score(store.keys[3:4], details=True).phi[0, 0] * np.eye(n)[3]
    exact = np.linalg.solve((np.eye(n) - d * P).T, (1 - d) * phi)
    ids, a = store.associate(store.keys[3:4], steps=200, damping=d, k=n)
    np.testing.assert_allclose(a[0], exact[[place[i] for i in ids[0].tolist()]], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"damping": 1.5}, "damping"), ({"damping": np.nan}, "damping"), ({"k": 0}, "k"), ({"steps": -1}, "steps")],
)
def test_bad_association(store: sw.ValueStore, arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        store.associate(unit_rows(1), **arguments)


def test_replay_report(store: sw.ValueStore) -> None:
    store.observe(unit_rows(6, seed=9))
    report = store.replay(budget=1, tol=0.0)
    assert report.backups <= 1
    report = store.replay(tol=1e-6)
    assert report.converged
    assert 0 <= report.residual <= 1e-6
    assert report.seconds >= 0
    assert not report.refused
    assert report.drift is None
    for order in ("prioritized", "reverse", "full"):
        assert store.replay(order=order).converged
    for need in ("uniform", "frequency", [int(store.ids[1])], store.ids[1:3]):
        assert store.replay(need=need).converged


def test_proposals(store: sw.ValueStore) -> None:
    before = store.values
    report = store.observe(unit_rows(6, seed=9), propose=True)
    assert report.outcome.tolist() == ["proposed"] * 6
    assert (report.memory_ids == -1).all()
    assert store.episodes_proposed == 1
    np.testing.assert_array_equal(store.values, before)
    refused = store.replay(consolidate=True, max_drift=0.0)
    assert refused.refused
    assert refused.drift is not None
    assert refused.drift > 0
    assert store.episodes_proposed == 1
    done = store.replay(consolidate=True, max_drift=1e9)
    assert not done.refused
    assert done.observed == 1
    assert (store.episodes_proposed, store.episodes_observed) == (0, 3)


def test_calibrate() -> None:
    store = sw.ValueStore(sw.Config(dim=DIM))
    before = store.config
    loose = store.calibrate(unit_rows(50))
    assert store.config.tau == pytest.approx(loose["tau"])
    assert (store.config.d_lo, store.config.d_hi) == (before.d_lo, before.d_hi)
    ragged = store.calibrate(unit_rows(50), [0, 25, 50])
    assert (store.config.d_lo, store.config.d_hi) == (ragged["d_lo"], ragged["d_hi"])
    assert store.config.d_lo != before.d_lo
    store.add_terminal("goal", unit_rows(1, seed=1)[0])
    low, high = store.channel_ranges["goal"]
    assert (low, high) != (0, 1)
    store.add_terminal("fixed", unit_rows(1, seed=1)[0], low=0.1, high=0.9)
    assert store.channel_ranges["fixed"] == pytest.approx((0.1, 0.9))


def test_veto() -> None:
    rows = unit_rows(10)
    with_it, without = (filled(sw.ValueStore(sw.Config(dim=DIM))) for _ in range(2))
    report = with_it.observe(unit_rows(4, seed=8))
    with_it.observe(rows)
    without.observe(rows)
    assert with_it.digest() != without.digest()
    with_it.veto(episode=int(report.episode_ids[0]))
    assert with_it.digest() == without.digest()


def test_remove_channel(store: sw.ValueStore) -> None:
    n = len(store)
    store.remove_channel("goal")
    assert store.channels == ["verifier"]
    assert len(store) == n - 1
    assert not store.is_terminal.any()


def test_search_pads(store: sw.ValueStore) -> None:
    ids, cosines = store.search(unit_rows(2), k=len(store) + 3)
    assert (ids[:, -3:] == -1).all()
    assert np.isneginf(cosines[:, -3:]).all()
    assert sorted(ids[0, :-3]) == store.ids.tolist()
    np.testing.assert_allclose(cosines[0, :-3], sorted(store.keys @ unit_rows(2)[0], reverse=True), atol=1e-6)


def test_threads_never_change_a_result(store: sw.ValueStore) -> None:
    rows, ends = unit_rows(64, seed=2), np.arange(0, 65, 8)
    before = sw.get_num_threads()
    try:
        sw.set_num_threads(3)
        assert sw.get_num_threads() == 3
        many = store.score(rows, ends)
        for threads in (1, 2, 7):
            assert_equal(many, store.score(rows, ends, num_threads=threads))
            np.testing.assert_array_equal(store.search(rows)[1], store.search(rows, num_threads=threads)[1])
    finally:
        sw.set_num_threads(before)


def test_cpu_features() -> None:
    features = sw.cpu_features()
    assert features["used"] in features["available"]


# Views


def test_frozen_view_stays(store: sw.ValueStore) -> None:
    rows = unit_rows(6, seed=2)
    view = store.frozen()
    scores, digest, n = view.score(rows), view.digest(), len(view)
    assert digest == store.digest()
    assert_equal(scores, store.score(rows))
    store.observe(unit_rows(20, seed=4), drives=[[1.0]])
    store.replay()
    store.remove_channel("verifier")
    assert len(store) > n
    assert_equal(scores, view.score(rows))
    assert (view.digest(), len(view), view.channels) == (digest, n, ["goal", "verifier"])
    store.close()
    assert_equal(scores, view.score(rows))
    assert view.frozen() is view


@pytest.mark.parametrize(
    "verb", ["observe", "insert", "replay", "calibrate", "add_terminal", "add_channel", "veto", "close"]
)
def test_frozen_view_has_no_verbs_that_write(store: sw.ValueStore, verb: str) -> None:
    assert hasattr(store, verb)
    assert not hasattr(store.frozen(), verb)


def test_frozen_view_travels(store: sw.ValueStore) -> None:
    rows = unit_rows(6, seed=2)
    view = store.frozen()
    assert_equal(view.score(rows), pickle.loads(pickle.dumps(view)).score(rows))
    assert copy.copy(view) is view
    assert copy.deepcopy(view) is view


def test_ablations(store: sw.ValueStore) -> None:
    rows = unit_rows(6, seed=0)
    view = store.frozen()
    assert_equal(view.score(rows), view.ablated().score(rows))
    flat = view.ablated(values=np.ones((len(view), 2)), baseline=[0, 0])
    assert (flat.values == 1).all()
    assert (flat.baseline == 0).all()
    phi, support = flat.value(rows)
    assert (phi[support > 0] > 0).all()
    constant = view.ablated(constant_transitions=True)
    np.testing.assert_array_equal(constant.values, view.values)
    np.testing.assert_array_equal(view.values, store.values)  # itself untouched


# Bytes and files


def test_copies(store: sw.ValueStore) -> None:
    for twin in (
        pickle.loads(pickle.dumps(store)),
        copy.copy(store),
        copy.deepcopy(store),
        sw.ValueStore.from_bytes(store.to_bytes()),
        sw.ValueStore.from_bytes(bytearray(store.to_bytes())),  # type: ignore[arg-type]
    ):
        assert type(twin) is sw.ValueStore
        assert twin.digest() == store.digest()
        assert twin.config == store.config
        assert twin.texts == store.texts
        twin.observe(unit_rows(3, seed=6))
        assert twin.digest() != store.digest()


def test_subclasses_stay_what_they_are(store: sw.ValueStore, tmp_path: Path) -> None:
    class Mine(sw.ValueStore):
        pass

    mine = Mine.from_bytes(store.to_bytes())
    assert type(mine) is Mine
    assert type(copy.deepcopy(mine)) is Mine
    mine.save(tmp_path / "mine")
    assert type(Mine.load(tmp_path / "mine")) is Mine
    assert type(Mine.open(tmp_path / "store", sw.Config(DIM))) is Mine


def test_save_and_load(store: sw.ValueStore, tmp_path: Path) -> None:
    path = tmp_path / "snapshot.safetensors"
    store.save(path)
    store.save(str(path))
    assert list(tmp_path.iterdir()) == [path]  # nothing left beside it
    assert sw.ValueStore.load(path).digest() == store.digest()
    assert sw.ValueStore.load(str(path)).digest() == store.digest()
    assert sw.ValueStore.from_bytes(path.read_bytes()).digest() == store.digest()


def test_snapshot_is_readable_by_anyone(store: sw.ValueStore, tmp_path: Path) -> None:
    numpy_reader = pytest.importorskip("safetensors.numpy")
    store.save(tmp_path / "snapshot.safetensors")
    tensors = numpy_reader.load_file(tmp_path / "snapshot.safetensors")
    assert any(t.shape == store.keys.shape and (t == store.keys).all() for t in tensors.values())


def test_open(tmp_path: Path) -> None:
    where = tmp_path / "runs" / "a" / "store"
    with sw.ValueStore.open(where, sw.Config(dim=DIM)) as store:
        assert (where / "snapshot.safetensors").exists()
        assert store.path == where
        filled(store)
        digest = store.digest()
        assert repr(store).startswith("ValueStore(")
        assert "path=" in repr(store)
    assert store.closed
    with sw.ValueStore.open(str(where)) as store:
        assert store.digest() == digest
    with sw.ValueStore.open(where, sw.Config(dim=DIM)) as store:
        assert store.digest() == digest
    with pytest.raises(ValueError, match=r"gamma is 0\.7 there, 0\.9 here"):
        sw.ValueStore.open(where, sw.Config(dim=DIM, gamma=0.9))


def test_open_after_calibration(tmp_path: Path) -> None:
    cfg = sw.Config(dim=DIM)
    with sw.ValueStore.open(tmp_path, cfg) as store:
        store.calibrate(unit_rows(40), [0, 20, 40])
        fitted = store.config
    assert fitted != cfg
    with sw.ValueStore.open(tmp_path, cfg) as store:  # the config it was made with
        assert store.config == fitted


def test_a_store_that_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    with sw.ValueStore.open(tmp_path, sw.Config(dim=DIM)) as store:
        filled(store)
    written = (tmp_path / "snapshot.safetensors").stat().st_mtime_ns
    with sw.ValueStore.open(tmp_path) as store:
        store.score(unit_rows(3))
    assert (tmp_path / "snapshot.safetensors").stat().st_mtime_ns == written


def test_what_the_digest_does_not_tell_is_saved_too(tmp_path: Path) -> None:
    with sw.ValueStore.open(tmp_path, sw.Config(dim=DIM)) as store:
        store.bind_embedder("MiniLM")
    with sw.ValueStore.open(tmp_path) as store:
        assert store.embedder == "MiniLM"
        report = store.observe(unit_rows(3))
        store.veto(episode=int(report.episode_ids[0]))
    with sw.ValueStore.open(tmp_path) as store:  # ids are never used again
        again = store.observe(unit_rows(3))
        assert set(again.memory_ids).isdisjoint(report.memory_ids)
        assert set(again.episode_ids).isdisjoint(report.episode_ids)


def test_closing_after_an_error_saves_what_was_done(tmp_path: Path) -> None:
    def work() -> None:
        with sw.ValueStore.open(tmp_path, sw.Config(dim=DIM)) as store:
            store.observe(unit_rows(3))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        work()
    assert len(sw.ValueStore.open(tmp_path)) > 0


def test_the_embedder_is_remembered(store: sw.ValueStore) -> None:
    assert store.embedder is None
    store.bind_embedder("MiniLM 384")
    twin = pickle.loads(pickle.dumps(store))
    assert twin.embedder == store.frozen().embedder == "MiniLM 384"
    with pytest.raises(sw.EmbedderError):
        twin.bind_embedder("another")
    error = pickle.loads(pickle.dumps(sw.EmbedderError("a message")))
    assert isinstance(error, sw.EmbedderError)


def test_repr(store: sw.ValueStore) -> None:
    n = len(store)
    assert repr(store) == f"ValueStore({n} memories, dim=8, channels=[goal, verifier])"
    assert repr(store.frozen()) == f"FrozenView({n} memories, dim=8, channels=[goal, verifier])"
    store.close()
    assert repr(store) == "ValueStore(closed)"


# Habituation


def test_habituation(store: sw.ValueStore) -> None:
    rows, ends = unit_rows(12), [0, 5, 12]
    table = sw.Habituation(episodes=3, eta=2.0)
    fresh = store.score(rows, ends, habituation=table, details=True)
    assert_equal(fresh, store.score(rows, ends))
    table.record(fresh)
    assert len(table) == 2
    used = store.score(rows, ends, habituation=table, details=True)
    assert (used.total < fresh.total).all()
    np.testing.assert_array_equal(used.ids, fresh.ids)
    ids, uses = table.uses()
    assert fresh.ids is not None
    assert fresh.phi is not None
    for episode, (first, end) in enumerate([(1, 5), (6, 12)]):  # the prompt is not recorded
        assert set(fresh.ids[first:end][fresh.phi[first:end] > 0]) <= set(ids), episode
    scored = [slice(1, 5), slice(6, 12)]
    for memory, amount in zip(ids, uses, strict=True):
        most = [np.max(fresh.phi[s] * (fresh.ids[s] == memory)) for s in scored]
        assert amount == pytest.approx(sum(most))
    table.record(used)
    assert len(table) == 3  # the oldest is forgotten
    table.clear()
    assert_equal(fresh, store.score(rows, ends, habituation=table))


def test_habituation_travels(store: sw.ValueStore) -> None:
    table = sw.Habituation(episodes=5, eta=0.5)
    table.record(store.score(unit_rows(12), [0, 5, 12], details=True))
    for twin in (
        pickle.loads(pickle.dumps(table)),
        copy.deepcopy(table),
        sw.Habituation.from_dict(json.loads(json.dumps(table.to_dict()))),
    ):
        assert repr(twin) == repr(table) == "Habituation(episodes=5, eta=0.5, recorded=2)"
        for a, b in zip(twin.uses(), table.uses(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_habituation_outlives_its_memories(store: sw.ValueStore) -> None:
    table = sw.Habituation()
    table.record(store.score(unit_rows(12), [0, 5, 12], details=True))
    store.veto(episode=0)
    store.veto(episode=1)
    assert store.score(unit_rows(3), habituation=table).total.shape == (1,)
