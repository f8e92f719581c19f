"""What must always hold (docs/model.md §8, 12 and 13): determinism and veto."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
from agree import same
from hypothesis import given
from hypothesis import strategies as st
from paths import HELPERS
from worlds import lived, seeds, wander

VARIANTS: list[dict[str, Any]] = [
    {},
    {"trace": 0.5, "capacity": 9, "half_life": 2},
    {"equation": "return", "w_surprise": 0.5, "max_out": 2},
]
variants = st.sampled_from(VARIANTS)


def build(numbers: dict[str, Any]) -> sw.ValueStore:
    store = sw.ValueStore(sw.Config(**({"dim": 8, "k": 5, "min_novelty": 0.6} | numbers)))
    store.add_terminal("a", np.ones(8))
    store.add_channel("s")
    return store


def drives(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 1)).astype(np.float32)


def same_but_for_ids(one: sw.ValueStore, two: sw.ValueStore) -> None:
    """All that a store shows, ids by rank; bit for bit."""
    same(one.keys, two.keys, "keys")
    same(one.values, two.values, "values")
    same(one.drives, two.drives, "drives")
    same(one.counts, two.counts, "counts")
    same(one.mass, two.mass, "mass")
    same(one.baseline, two.baseline, "baseline")
    assert one.texts == two.texts
    for end in (0, 1):
        same(np.searchsorted(one.ids, one.edges()[end]), np.searchsorted(two.ids, two.edges()[end]), "edges")
    same(one.edges()[2], two.edges()[2], "P")
    assert one.digest() == two.digest()


# ---------------------------------------------------------------------- 12: determinism


@given(seed=seeds, numbers=variants)
def test_threads_change_no_bit(seed: int, numbers: dict[str, Any]) -> None:
    before = sw.get_num_threads()
    stores = []
    try:
        for threads in (1, 2, 5):
            sw.set_num_threads(threads)
            stores.append(lived(seed, **numbers))
    finally:
        sw.set_num_threads(before)
    steps, offsets = wander(seed + 1, [5, 6])
    for store in stores[1:]:
        assert store.digest() == stores[0].digest()
        for threads in (1, 2, 5):
            score = store.score(steps, offsets, num_threads=threads)
            assert score.step.tobytes() == stores[0].score(steps, offsets).step.tobytes()


@given(seed=seeds, numbers=variants)
def test_batching_changes_no_bit(seed: int, numbers: dict[str, Any]) -> None:
    steps, offsets = wander(seed, [4, 1, 6, 3])
    r = drives(seed, len(steps))
    together, apart = build(numbers), build(numbers)
    report = together.observe(steps, offsets, drives=r)
    ids = []
    for start, end in pairwise(offsets):
        ids.append(apart.observe(steps[start:end], drives=r[start:end]).memory_ids)
    same(report.memory_ids, np.concatenate(ids), "memory ids")
    same_but_for_ids(together, apart)


@given(seed=seeds, numbers=variants)
def test_a_store_goes_on_after_save_and_load_as_if_nothing_had_been(seed: int, numbers: dict[str, Any]) -> None:
    store = build(numbers)
    steps, offsets = wander(seed, [5, 5])
    store.observe(steps, offsets, drives=drives(seed, 10), propose=seed % 2 == 0)
    again = sw.ValueStore.from_bytes(store.to_bytes())
    for one in (store, again):
        more, ends = wander(seed + 1, [4, 6])
        one.observe(more, ends, drives=drives(seed + 1, 10))
        one.replay(budget=3, consolidate=True)
        one.veto(episode=1)
    same(store.ids, again.ids, "ids")
    same_but_for_ids(store, again)


@pytest.mark.parametrize("simd", [None, "portable"])
def test_another_process_and_instruction_set_gets_the_same_bits(simd: str | None) -> None:
    program = "from worlds import lived; print(lived(7, trace=0.5, capacity=12).digest())"
    environment = {k: v for k, v in os.environ.items() if k != "SHARPWAVE_SIMD"}
    environment |= {"SHARPWAVE_SIMD": simd} if simd else {}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=HELPERS,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == lived(7, trace=0.5, capacity=12).digest()


@given(seed=seeds)
def test_the_digest_sees_a_change_and_no_reading(seed: int) -> None:
    store = lived(seed)
    before = store.digest()
    steps, offsets = wander(seed + 1, [4, 4])
    store.search(steps)
    store.value(steps)
    store.score(steps, offsets)
    store.explain(steps)
    store.recall(steps[0])
    store.frozen()
    assert store.digest() == before
    store.observe(steps, offsets)
    assert store.digest() != before


def test_the_digest_sees_what_only_the_future_will_show() -> None:
    """Dirty marks and proposals are state, though no value shows them yet."""

    def two_chains() -> sw.ValueStore:
        store = sw.ValueStore(sw.Config(dim=6, k=1))
        store.observe(np.eye(6), [0, 3, 6])
        store.add_terminal("end of the second", np.eye(6)[5], low=0.5, high=1.0)
        return store

    marked, clean = two_chains(), two_chains()
    assert marked.digest() == clean.digest()
    marked.replay(tol=1e-9, order="prioritized")  # passes over marks that would change nothing
    clean.replay(tol=1e-9, order="full")
    same(marked.values, clean.values, "values")
    assert marked.digest() != clean.digest()
    proposed = two_chains()
    proposed.observe(np.eye(6), propose=True)
    assert proposed.digest() != two_chains().digest()


@given(seed=seeds)
def test_a_frozen_view_stays_as_it_was(seed: int) -> None:
    store = lived(seed)
    steps, offsets = wander(seed + 1, [4, 4])
    view = store.frozen()
    before, digest = view.score(steps, offsets).step, view.digest()
    store.observe(*wander(seed + 2, [6, 6]))
    store.replay()
    store.remove_channel("a")
    assert view.score(steps, offsets).step.tobytes() == before.tobytes()
    assert view.digest() == digest


# ---------------------------------------------------------------------- 13: veto


@given(seed=seeds, numbers=variants, vetoed=st.integers(0, 3), asleep=st.booleans())
def test_veto_of_an_episode_is_as_if_never_seen(seed: int, numbers: dict[str, Any], vetoed: int, asleep: bool) -> None:
    sinner, saint = build(numbers), build(numbers)
    for number in range(4):
        steps, _ = wander(seed + number, [5])
        texts = [f"{number}.{t}" for t in range(5)]
        for store in (sinner, saint):
            if store is sinner or number != vetoed:
                store.observe(steps, drives=drives(seed + number, 5), texts=texts, episode_ids=[number])
            if asleep and number == 2:
                store.replay(budget=4)
    before = sinner.ids
    sinner.veto(episode=vetoed)
    same_but_for_ids(sinner, saint)
    if "capacity" not in numbers:  # or a memory may be back that the vetoed episode had driven out
        fresh = sinner.ids[~np.isin(sinner.ids, before)]
        assert (fresh > before.max()).all()
    steps, offsets = wander(seed + 9, [5, 5])
    assert sinner.score(steps, offsets).step.tobytes() == saint.score(steps, offsets).step.tobytes()


@pytest.mark.parametrize("capacity", [None, 90])
def test_veto_in_a_long_life_is_as_if_never_seen(capacity: int | None) -> None:
    """Several windows of steps that are searched for together, empty episodes, and other operations between them."""
    numbers: dict[str, Any] = {"min_novelty": 0.1, "half_life": 4, "capacity": capacity}
    sinner, saint = build(numbers), build(numbers)
    vetoed = (0, 13, 40, 77)
    for number in range(80):
        steps, _ = wander(number, [number % 13])
        for store in (sinner, saint):
            if store is sinner or number not in vetoed:
                store.observe(steps, drives=drives(number, len(steps)), episode_ids=[number], propose=number % 9 == 4)
            if number % 20 == 5 and capacity is None:  # no more is inserted than there is room for
                store.insert(wander(1000 + number, [3])[0])
            if number % 25 == 7:
                store.replay(budget=10, consolidate=number > 50)
    assert sum(number % 13 for number in range(80)) > 256
    assert len(sinner) > 60
    for number in vetoed:
        sinner.veto(episode=number)
    same_but_for_ids(sinner, saint)


@given(seed=seeds, numbers=variants, vetoed=st.permutations(range(4)), several=st.integers(0, 4))
def test_a_veto_of_several_is_their_vetoes_one_by_one(
    seed: int, numbers: dict[str, Any], vetoed: list[int], several: int
) -> None:
    """In any order, at once, and never seen at all: one store."""
    vetoed = vetoed[:several]
    at_once, one_by_one, saint = build(numbers), build(numbers), build(numbers)
    for number in range(4):
        steps, _ = wander(seed + number, [5])
        for store in (at_once, one_by_one, saint):
            if store is not saint or number not in vetoed:
                store.observe(steps, drives=drives(seed + number, 5), episode_ids=[number], propose=number == 2)
    at_once.veto(episodes=vetoed)
    for number in vetoed:
        one_by_one.veto(episode=number)
    for store in (at_once, one_by_one, saint):
        store.replay(consolidate=True)
    same_but_for_ids(at_once, saint)
    same_but_for_ids(one_by_one, saint)
    assert [one.id for one in at_once.episodes()] == [one.id for one in saint.episodes()]


@given(
    seed=seeds,
    numbers=variants,
    moments=st.sets(st.integers(0, 7)),
    keep=st.integers(0, 3),
    vetoed=st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=2), max_size=3, unique_by=tuple),
)
def test_checkpoints_change_no_bit(
    seed: int, numbers: dict[str, Any], moments: set[int], keep: int, vetoed: list[list[int]]
) -> None:
    """Ids included, after one veto and after several, of episodes and of memories."""
    stores = [build(numbers), build(numbers)]
    for number in range(8):
        steps, _ = wander(seed + number, [5])
        for store in stores:
            if store is stores[0] and number in moments:
                store.checkpoint(keep)
            store.observe(steps, drives=drives(seed + number, 5), episode_ids=[number], propose=number == 5)
            if number == 3 and "capacity" not in numbers:
                store.insert(wander(seed + 50, [2])[0])
            if number == 6:
                store.replay(budget=9, consolidate=True)
    with_checkpoints, without = stores
    for episodes in vetoed:
        known = [record.id for record in without.episodes() if record.id in episodes]
        for store in stores:
            store.veto(episodes=known)
        same(with_checkpoints.ids, without.ids, "ids")
        assert with_checkpoints.digest() == without.digest()
        ordinary = without.ids[~without.is_terminal]
        for store in stores:
            store.veto(memory=int(ordinary[-1]))
        same(with_checkpoints.ids, without.ids, "ids")
        assert with_checkpoints.digest() == without.digest()


@given(seed=seeds, numbers=variants, vetoed=st.lists(st.integers(0, 3), max_size=3))
def test_a_preview_is_what_the_veto_does(seed: int, numbers: dict[str, Any], vetoed: list[int]) -> None:
    store = build(numbers)
    store.insert(wander(seed + 50, [2])[0])
    for number in range(4):
        store.observe(wander(seed + number, [5])[0], drives=drives(seed + number, 5), episode_ids=[number])
    before, ids, values = store.digest(), store.ids, store.values
    preview = store.without(episodes=vetoed)
    assert store.digest() == before, "it changes nothing"
    assert sorted([*preview.gone.tolist(), *preview.kept.tolist()]) == ids.tolist()
    same(preview.before, values[np.isin(ids, preview.kept)], "values before")

    theirs = {
        memory
        for memory in ids[~store.is_terminal].tolist()
        if all(origin.episode in vetoed for origin in store.provenance(memory))
    }
    store.veto(episodes=vetoed)
    assert preview.digest == store.digest()
    assert preview.memories == (len(ids), len(store))
    assert preview.associations[1] == len(store.edges()[0])
    places = np.searchsorted(store.ids, preview.renamed)
    assert store.ids[places].tolist() == preview.renamed.tolist()
    same(preview.after, store.values[places], "values after")
    if not vetoed:
        assert not len(preview.gone)
        assert preview.renamed.tolist() == ids.tolist()
    assert theirs <= set(preview.gone.tolist())
    assert str(len(preview.gone)) in str(preview)


@given(seed=seeds, numbers=variants, keep=st.booleans())
def test_what_went_into_a_memory_is_what_was_observed(seed: int, numbers: dict[str, Any], keep: bool) -> None:
    store = build({**numbers, "keep_episodes": keep})
    rows = store.insert(wander(seed + 50, [3])[0])
    reports = {
        7 * number: store.observe(
            wander(seed + number, [5])[0], drives=drives(seed, 5), episode_ids=[7 * number], source=f"from {number}"
        )
        for number in range(3)
    }
    store.observe(wander(seed + 9, [4])[0], episode_ids=[100], propose=True)
    records = store.episodes()
    assert [record.id for record in records] == [0, 7, 14, 100]
    assert [record.order for record in records] == [0, 1, 2, None]
    assert [record.steps for record in records] == [*([5] * 3 if keep else [None] * 3), 4]
    assert records[1].source == ("from 1" if keep else None)
    assert records[3].memories == []
    alive = set(store.ids.tolist())
    for record in records[:3]:
        went = reports[record.id].memory_ids
        assert set(record.memories) == alive & set(went[went >= 0].tolist())
        for memory in record.memories:
            mine = [origin.step for origin in store.provenance(memory) if origin.episode == record.id]
            assert mine == np.flatnonzero(went == memory).tolist()
    for row, memory in enumerate(rows.tolist()):
        if memory in alive:
            assert store.provenance(memory)[0] == (None, 0, row)


@given(seed=seeds)
def test_veto_of_a_memory_is_as_if_its_steps_had_been_cut_out(seed: int) -> None:
    """The gate sees what is left step by step, as if each were an episode; transitions do not cross the holes."""
    steps, _ = wander(seed, [9])
    r = drives(seed, 9)
    sinner, saint = build({}), build({})
    report = sinner.observe(steps, drives=r)
    ordinary = np.setdiff1d(report.memory_ids, sinner.ids[sinner.is_terminal])
    memory = int(ordinary[seed % len(ordinary)])
    kept = report.memory_ids != memory
    sinner.veto(memory=memory)
    for t in np.flatnonzero(kept):
        saint.observe(steps[t : t + 1], drives=r[t : t + 1])
    same(sinner.keys, saint.keys, "keys")
    same(sinner.counts, saint.counts, "counts")
    same(sinner.drives, saint.drives, "drives")
    leaving = np.flatnonzero(kept[:-1] & kept[1:])
    phi = sinner.score(steps[leaving], np.arange(len(leaving) + 1), details=True).phi if len(leaving) else np.zeros(0)
    assert phi is not None
    assert sinner.mass.sum() == pytest.approx(float(phi.sum(dtype=np.float64)), rel=1e-5)


@given(seed=seeds, whole=st.booleans())
def test_an_id_is_never_given_twice(seed: int, whole: bool) -> None:
    store = build({})
    given_ids: set[int] = set(store.ids.tolist())
    for number in range(3):
        report = store.observe(wander(seed + number, [5])[0])
        new = report.memory_ids[report.outcome == "new"].tolist()
        assert not given_ids & set(new)
        given_ids |= set(new)
        if whole:
            store.veto(episode=report.episode_ids[0])
        elif new:
            store.veto(memory=new[0])
        given_ids |= set(store.ids.tolist())


def test_veto_of_what_is_unknown_is_a_key_error() -> None:
    store = lived(0)
    before = store.digest()
    with pytest.raises(KeyError):
        store.veto(episode=999)
    with pytest.raises(KeyError):
        store.veto(memory=999)
    assert store.digest() == before
