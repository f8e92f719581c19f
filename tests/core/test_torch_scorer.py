"""The scorer on a device gives the store's numbers, follows its writes, and has the gradients it claims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sharpwave as sw
import torch
from sharpwave.torch import Refreshed, Scorer
from worlds import lived, wander

TOLERANCE: dict[str, float] = {"rtol": 2e-5, "atol": 2e-6}


def world(seed: int = 0, **numbers: Any) -> sw.ValueStore:
    """Enough episodes for associations, for edge ranges of their own, and for merged memories."""
    return lived(seed, episodes=30, **({"dim": 12, "min_novelty": 0.5} | numbers))


def episodes(seed: int, dim: int = 12) -> tuple[np.ndarray, np.ndarray]:
    return wander(seed, [6, 1, 9, 0, 3, 6, 2], dim, noise=0.25)


def close(scorer: Scorer, store: Any, seed: int = 1, **arguments: Any) -> None:
    """Every number of a score, of the values and of a search."""
    steps, offsets = episodes(seed, store.dim)
    expected = store.score(steps, offsets, **arguments)
    actual = scorer.score(steps, offsets, **arguments)
    for name in ("support", "edge", "redundancy", "step", "total"):
        np.testing.assert_allclose(getattr(actual, name).cpu(), getattr(expected, name), **TOLERANCE, err_msg=name)
    for one, other in zip(scorer.value(steps), store.value(steps), strict=True):
        np.testing.assert_allclose(one.cpu(), other, **TOLERANCE)
    ids, cosines = scorer.search(steps, 7)
    ids_s, cosines_s = store.search(steps, 7)
    np.testing.assert_allclose(cosines.cpu(), cosines_s, atol=2e-6)
    assert (ids.cpu().numpy() == ids_s).mean() > 0.98  # near-ties


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_the_store(seed: int) -> None:
    store = world(seed)
    scores = store.score(*episodes(1))
    assert (scores.step > 0).sum() > 3
    assert ((scores.edge > 0) & (scores.edge < 1)).any()
    assert ((scores.redundancy > 0) & (scores.redundancy < 1)).any()
    close(Scorer(store), store)


@pytest.mark.parametrize(
    "arguments",
    [
        {"weights": {"a": 1.0}},
        {"weights": [0.5, -2.0, 0.5]},  # to avoid: charges, and does not fade
        {"context": False},
        {"context": [0, 1, 2, 0, 3, 5, 1]},
        {"context": 100},
    ],
)
def test_arguments_mean_the_same(arguments: dict[str, Any]) -> None:
    store = world(2)
    close(Scorer(store), store, **arguments)


def test_charges_are_met() -> None:
    store = world(2)
    assert (store.score(*episodes(1), weights=[0.5, -2.0, 0.5]).step < 0).any()


@pytest.mark.parametrize("numbers", [{"fade": 0.0}, {"rho": 1.0}, {"tau": 0.5}, {"power": 3}, {"k": 1}, {"trace": 0.8}])
def test_every_number_of_the_config_counts(numbers: dict[str, Any]) -> None:
    store = world(3, **numbers)
    close(Scorer(store), store)


def test_habituation_counts() -> None:
    store, table = world(4), sw.Habituation(eta=2.0)
    table.record(store.score(*episodes(1), details=True))
    fresh, habituated = store.score(*episodes(1)), store.score(*episodes(1), habituation=table)
    assert np.abs(fresh.total - habituated.total).max() > 0.01
    close(Scorer(store), store, habituation=table)


def test_views_and_ablations_can_be_scored() -> None:
    store = world(5)
    for view in (
        store.frozen(),
        store.frozen().ablated(constant_transitions=True),
        store.frozen().ablated(values=np.ones((len(store), 3)), fade=0.0),
    ):
        close(Scorer(view), view)


def test_small_stores_and_no_steps() -> None:
    store = sw.ValueStore(sw.Config(dim=12))
    scorer = Scorer(store)
    close(scorer, store)
    store.add_terminal("end", np.ones(12))
    scorer.refresh()
    close(scorer, store)
    nothing = scorer.score(np.empty((0, 12), np.float32), [0])
    assert nothing.step.shape == nothing.total.shape == (0,)


def test_a_score_on_many_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from sharpwave.torch import activation, coverage, mirror

    store = world(6)
    monkeypatch.setattr(activation, "SCORES", 300)
    monkeypatch.setattr(coverage, "SCORES", 40)
    monkeypatch.setattr(mirror, "BATCH", 7)
    close(Scorer(store), store)


# Following the writes


def test_only_what_changed_is_copied() -> None:
    store = world(0)
    scorer = Scorer(store)
    n = len(store)
    assert scorer.refresh() == Refreshed(0, 0, 0)
    store.score(*episodes(1))
    assert scorer.refresh() == Refreshed(0, 0, 0)

    store.insert(np.random.default_rng(1).normal(size=(5, 12)))
    assert scorer.refresh() == Refreshed(5, 5, 5)
    close(scorer, store)

    keys, values, edges = store.keys, store.values, rows_of_edges(store)
    steps, offsets = wander(77, [5, 4], 12)
    report = store.observe(steps, offsets, drives=np.full((9, 1), np.nan))
    assert {"new", "merged"} <= set(report.outcome.tolist())
    store.replay(tol=1e-6)
    old = n + 5
    new = len(store) - old
    copied = scorer.refresh()
    assert copied.keys == new + (store.keys[:old] != keys).any(axis=1).sum()
    assert copied.values == new + (store.values[:old] != values).any(axis=1).sum()
    now = rows_of_edges(store)
    assert copied.associations == new + sum(now.get(i) != edges.get(i) for i in store.ids[:old].tolist())
    assert copied.keys < len(store) / 3
    close(scorer, store)


def rows_of_edges(store: sw.ValueStore) -> dict[int, list[tuple[int, float]]]:
    found: dict[int, list[tuple[int, float]]] = {}
    for i, j, p in zip(*(column.tolist() for column in store.edges()), strict=True):
        found.setdefault(i, []).append((j, p))
    return found


def test_what_did_not_change_is_not_touched() -> None:
    """A row spoilt on the device stays spoilt until its memory changes."""
    store = world(1)
    scorer = Scorer(store)
    spoilt = int(np.flatnonzero(~store.is_terminal)[0])
    scorer._mirror.keys[spoilt] = 0.0
    store.insert(np.random.default_rng(1).normal(size=(500, 12)))  # makes the arrays grow
    scorer.refresh()
    assert not scorer._mirror.keys[spoilt].any()
    key = store.keys[spoilt]
    report = store.observe(np.stack([key, key]) + np.float32(0.01), drives=np.full((2, 1), np.nan))
    assert int(store.ids[spoilt]) in report.memory_ids
    assert scorer.refresh().keys < 5
    np.testing.assert_array_equal(scorer._mirror.keys.cpu(), store.keys)


def test_it_follows_every_kind_of_write() -> None:
    """Evictions, vetoes, channels that come and go, sleeps: after each the scores are the store's."""
    store = world(7, capacity=60, min_novelty=0.3)
    scorer = Scorer(store)
    for n in range(6):
        steps, offsets = wander(100 + n, [6, 5], 12)
        report = store.observe(steps, offsets, drives=np.random.default_rng(n).random((11, 1)))
        copied = scorer.refresh()
        assert copied.keys < len(store)
        close(scorer, store)
        store.replay(tol=1e-6)
        assert scorer.refresh().keys == 0
        close(scorer, store)
    assert not np.array_equal(store.ids, np.arange(len(store)))
    store.veto(episode=int(report.episode_ids[0]))
    scorer.refresh()
    close(scorer, store)
    store.add_terminal("late", np.random.default_rng(3).normal(size=12))
    store.replay(tol=1e-6)
    scorer.refresh()
    close(scorer, store)
    store.remove_channel("a")
    scorer.refresh()
    close(scorer, store, weights={"late": 1.0, "b": 0.5})


def test_until_refreshed_it_scores_the_store_as_it_was() -> None:
    store = world(8)
    scorer, before = Scorer(store), store.frozen()
    store.observe(*wander(5, [6, 6], 12), drives=np.full((12, 1), np.nan))
    store.replay()
    close(scorer, before)
    assert scorer.refresh().keys > 0
    close(scorer, store)


# Gradients


def test_gradients_are_those_of_finite_differences() -> None:
    """In float64, at points where no clip, maximum or neighbour changes sides within the step of the difference."""
    store = world(9)
    scorer = Scorer(store, dtype=torch.float64)
    given, offsets = wander(3, [9, 8, 3], 12, noise=0.25)
    steps = torch.from_numpy(given).to(torch.float64).requires_grad_()
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(len(given),)))

    def total(x: torch.Tensor) -> torch.Tensor:
        scores = scorer.score(x, offsets)
        return (weights * (scores.step + 0.1 * scores.edge + 0.1 * scores.redundancy + scores.support)).sum()

    assert torch.autograd.gradcheck(total, (steps,), eps=1e-7, atol=1e-6, rtol=1e-4)
    assert torch.autograd.gradcheck(lambda x: scorer.value(x)[0], (steps,), eps=1e-7, atol=1e-6, rtol=1e-4)
    assert torch.autograd.gradcheck(lambda x: scorer.search(x, 3)[1], (steps,), eps=1e-7, atol=1e-6, rtol=1e-4)


def test_each_part_has_a_gradient() -> None:
    """The check above would pass on zeros."""
    store = world(9)
    given, offsets = wander(3, [9, 8, 3], 12, noise=0.25)
    for name in ("total", "support", "edge", "redundancy"):
        steps = torch.from_numpy(given).requires_grad_()
        getattr(Scorer(store).score(steps, offsets), name).sum().backward()
        assert steps.grad is not None
        assert steps.grad.abs().max() > 1e-3, name


def test_climbing_the_gradient_earns_more() -> None:
    store = world(10)
    scorer = Scorer(store)
    given, offsets = wander(3, [9, 8, 3], 12, noise=0.25)
    steps = torch.from_numpy(given).requires_grad_()
    optimiser = torch.optim.Adam([steps], lr=0.02)
    before = store.score(given, offsets).total.sum()
    for _ in range(30):
        optimiser.zero_grad()
        (-scorer.score(steps, offsets).total.sum()).backward()
        optimiser.step()
    assert store.score(steps, offsets).total.sum() > before + 0.05


# What is refused


def test_bad_input_is_named() -> None:
    store = world(0)
    scorer = Scorer(store)
    with pytest.raises(TypeError, match="store must be a ValueStore or a FrozenView, got int"):
        Scorer(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dtype must be"):
        Scorer(store, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"steps must have shape \(n, 12\), got \(2, 3\)"):
        scorer.score(np.ones((2, 3)))
    with pytest.raises(ValueError, match="steps row 1 is zero or not finite"):
        scorer.score(np.stack([np.ones(12), np.zeros(12)]))
    with pytest.raises(ValueError, match="queries row 0 is zero or not finite"):
        scorer.value(np.full((1, 12), np.nan))
    with pytest.raises(ValueError, match="offsets must rise from 0 to the number of steps 2"):
        scorer.score(np.ones((2, 12)), [0, 1])
    with pytest.raises(ValueError, match="entry 1 is not finite"):
        scorer.score(np.ones((2, 12)), weights=[1, np.inf, 0])
    with pytest.raises(KeyError, match="no channel 'x'"):
        scorer.score(np.ones((2, 12)), weights={"x": 1})
    with pytest.raises(ValueError, match="k must be at least 1"):
        scorer.search(np.ones((2, 12)), 0)


@pytest.mark.cuda
def test_on_a_cuda_device_the_numbers_are_the_same() -> None:
    store = world(0)
    scorer = Scorer(store, device="cuda")
    close(scorer, store)
    store.observe(*wander(5, [6, 6], 12), drives=np.full((12, 1), np.nan))
    store.replay()
    assert 0 < scorer.refresh().keys < len(store)
    close(scorer, store)
    steps = torch.from_numpy(episodes(1)[0]).cuda().requires_grad_()
    scorer.score(steps, episodes(1)[1]).total.sum().backward()
    assert steps.grad is not None
    assert steps.grad.is_cuda
    assert torch.isfinite(steps.grad).all()
