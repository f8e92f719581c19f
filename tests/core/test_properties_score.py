"""What must always hold (docs/model.md §8, 7 to 11): scores."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from worlds import lived, one_hot, rotation, seeds, wander

paying = st.sampled_from(["coverage", "progress"])
OPEN = {"rho": 1.0, "sigma_0": 1e-9, "d_lo": 1.5, "d_hi": 2.0, "fade": 0.0}  # gates that let everything through


# ---------------------------------------------------------------------- 7: nothing for repeating


@given(seed=seeds, functional=paying, at=st.integers(0, 5), weights=st.sampled_from([None, [1, 0, 0], [0.2, 2, 0.1]]))
def test_repeating_a_step_at_once_pays_exactly_nothing(seed: int, functional: Any, at: int, weights: Any) -> None:
    store = lived(seed, **OPEN)
    steps, _ = wander(seed + 1, [6])
    twice = np.insert(steps, at, steps[at], axis=0)
    score = store.score(twice, functional=functional, weights=weights)
    assert score.step[at + 1] == 0


@given(seed=seeds, functional=paying, copies=st.integers(2, 6))
def test_one_step_repeated_scores_what_one_copy_scores(seed: int, functional: Any, copies: int) -> None:
    store = lived(seed, d_lo=0.3, d_hi=2.0)
    step = wander(seed + 1, [1])[0]
    many = store.score(np.repeat(step, copies, axis=0), functional=functional, context=False)
    once = store.score(step, functional=functional, context=False)
    assert many.total.tobytes() == once.total.tobytes()


@given(seed=seeds, functional=paying)
def test_the_unknown_pays_exactly_nothing(seed: int, functional: Any) -> None:
    store = lived(seed, dim=9, tau=0.5)
    steps = np.concatenate([wander(seed + 1, [4], 9)[0], one_hot([8], 9)])
    known = store.keys @ steps[-1]
    score = store.score(steps, functional=functional)
    if known.max() <= 0.5:
        assert score.support[-1] == 0
    for t in range(5):
        if score.support[t] == 0:
            assert score.step[t] == 0


@given(seed=seeds, functional=paying, rho=st.sampled_from([0.0, 0.2, 0.7]))
def test_without_edge_support_a_step_pays_at_most_rho_of_its_gain(seed: int, functional: Any, rho: float) -> None:
    closed, opened = lived(seed, rho=rho), lived(seed, rho=1.0)
    steps, offsets = wander(seed + 1, [6, 6])
    score, full = (store.score(steps, offsets, functional=functional) for store in (closed, opened))
    lost = score.edge == 0
    assert (score.step[lost] <= rho * full.step[lost] * (1 + 1e-6) + 1e-9).all()


@given(seed=seeds, signed=st.booleans())
def test_progress_is_bounded_by_the_best_value(seed: int, signed: bool) -> None:
    """Every gate is at most 1 and the watermarks only rise, to Φ_q ≤ max_i v_iq."""
    store = lived(seed)
    weights = np.random.default_rng(seed).random(3)
    steps, offsets = wander(seed + 1, [12, 3, 20])
    total = store.score(steps, offsets, functional="progress", weights=weights).total
    assert (total <= weights @ store.values.max(0) + 1e-6).all()


@given(seed=seeds, functional=st.sampled_from(["coverage", "progress", "potential", "mean"]))
def test_a_row_does_not_depend_on_its_batch(seed: int, functional: Any) -> None:
    store = lived(seed)
    sizes = [3, 1, 6, 2]
    steps, offsets = wander(seed + 1, sizes)
    together = store.score(steps, offsets, functional=functional)
    for e in range(len(sizes)):
        alone = store.score(steps[offsets[e] : offsets[e + 1]], functional=functional)
        rows = slice(int(offsets[e]), int(offsets[e + 1]))
        assert alone.total[0] == together.total[e]
        for name in ("step", "support", "edge", "redundancy"):
            assert getattr(alone, name).tobytes() == getattr(together, name)[rows].tobytes()
    values, support = store.value(steps)
    single = [store.value(row) for row in steps]
    assert values.tobytes() == b"".join(v.tobytes() for v, _ in single)
    assert support.tobytes() == b"".join(s.tobytes() for _, s in single)


# ---------------------------------------------------------------------- 8: coverage


@given(seed=seeds)
def test_no_memory_pays_more_than_its_advantage(seed: int) -> None:
    store = lived(seed)
    values = dict(zip(store.ids.tolist(), store.values.astype(np.float64).mean(1), strict=True))
    paid: dict[int, float] = {}
    for explanation in store.explain(wander(seed + 1, [12])[0]):
        for m in explanation.memories:
            paid[m.id] = paid.get(m.id, 0.0) + m.pay
            assert paid[m.id] <= m.advantage + 1e-7
            assert m.advantage <= values[m.id] + 1e-7
            assert not (m.terminal and m.pay)


@given(seed=seeds)
def test_coverage_with_open_gates_is_a_set_function(seed: int) -> None:
    store = lived(seed, **OPEN)
    steps, _ = wander(seed + 1, [5])
    prompt, rest = steps[:1], list(steps[1:])

    def R(chosen: Any) -> float:
        return float(store.score(np.concatenate([prompt, *[[x] for x in chosen]])).total[0])

    totals = [R(order) for order in permutations(rest)]
    assert max(totals) - min(totals) <= 1e-6
    *some, extra = rest
    for n in range(len(some)):
        assert R(some[: n + 1]) >= R(some[:n]) - 1e-6
        assert R([*some[:n], extra]) - R(some[:n]) >= R([*some[: n + 1], extra]) - R(some[: n + 1]) - 1e-6


@given(seed=seeds, functional=st.sampled_from(["coverage", "progress", "potential", "mean"]))
def test_explanations_add_up(seed: int, functional: Any) -> None:
    store = lived(seed)
    steps, offsets = wander(seed + 1, [5, 4])
    weights = np.random.default_rng(seed).uniform(-1, 1, size=3)
    score = store.score(steps, offsets, weights=weights, functional=functional)
    for explanation in store.explain(steps, offsets, weights=weights, functional=functional):
        pay = pytest.approx(float(score.step[explanation.step]), abs=1e-6)
        assert explanation.pay == pay
        assert sum(explanation.channels.values()) == pay
        if functional in ("coverage", "mean"):  # the others pay for Φ as a whole
            assert sum(m.pay for m in explanation.memories) == pay


# ---------------------------------------------------------------------- 9: potential


@given(seed=seeds, context=st.integers(0, 3), discount=st.floats(0.1, 1.0))
def test_potential_telescopes_to_the_start(seed: int, context: int, discount: float) -> None:
    store = lived(seed)
    steps, _ = wander(seed + 1, [7])
    weights = np.random.default_rng(seed).uniform(-1, 1, size=3)
    score = store.score(steps, functional="potential", context=context, discount=discount, weights=weights)
    Phi = store.value(steps)[0].astype(np.float64) @ weights
    total = sum(discount**t * float(r) for t, r in enumerate(score.step[context:]))
    assert total == pytest.approx(-Phi[max(context - 1, 0)], abs=1e-5)


@given(seed=seeds)
def test_potential_changes_no_optimal_policy(seed: int) -> None:
    """A random finite MDP whose states have embeddings: γ'Φ(s') − Φ(s) added to the reward moves every Q by −Φ(s)."""
    rng = np.random.default_rng(seed)
    store = lived(seed)
    states, actions, discount = 6, 3, 0.9
    x = wander(seed + 1, [states])[0]
    T = rng.dirichlet(np.ones(states), size=(states, actions))
    reward = rng.normal(size=(states, actions, states))
    shaped = reward.copy()
    for s in range(states):
        for following in range(states):
            step = store.score(x[[s, following, s]], functional="potential", context=False, discount=discount).step
            shaped[s, :, following] += float(step[0])

    def q_values(r: np.ndarray) -> np.ndarray:
        Q = np.zeros((states, actions))
        for _ in range(400):
            Q = (T * (r + discount * Q.max(1))).sum(2)
        return Q

    plain, potential = q_values(reward), q_values(shaped)
    Phi = store.value(x)[0].astype(np.float64).mean(1)
    np.testing.assert_allclose(potential, plain - Phi[:, None], atol=1e-4)


# ---------------------------------------------------------------------- 10 and 11: robustness


@given(seed=seeds, functional=st.sampled_from(["coverage", "progress", "potential", "mean"]))
def test_a_rotation_changes_no_score(seed: int, functional: Any) -> None:
    turn = rotation(seed, 8)
    rng = np.random.default_rng(seed)
    key = rng.normal(size=8)
    steps, offsets = wander(seed, [5, 6, 4])
    later, ends = wander(seed + 1, [6, 6])

    def scores(R: np.ndarray) -> np.ndarray:
        store = sw.ValueStore(sw.Config(dim=8, k=64, min_novelty=0.6))  # k: no tie for the last place
        store.add_terminal("a", key @ R)
        store.observe(steps @ R, offsets)
        store.replay(tol=1e-7)
        return store.score(later @ R, ends, functional=functional).step

    np.testing.assert_allclose(scores(turn), scores(np.eye(8)), atol=1e-4)


@pytest.mark.parametrize("functional", ["coverage", "mean"])
def test_deleting_memories_degrades_gradually(functional: Any) -> None:
    """Spearman correlation with the scores of the full store falls, but slowly."""
    store = sw.ValueStore(sw.Config(dim=16, min_novelty=0.5))
    store.add_terminal("a", np.eye(16)[0])
    store.observe(*wander(0, [8] * 40, 16, noise=0.6))
    store.replay()
    steps, offsets = wander(1, [8] * 60, 16, noise=0.6)
    full = store.score(steps, offsets, functional=functional).total
    rng = np.random.default_rng(2)
    doomed = rng.permutation(store.ids[~store.is_terminal])
    found, gone = {}, 0
    for share in (0.1, 0.3, 0.5):
        while gone < share * len(doomed):
            store.veto(memory=int(doomed[gone])) if doomed[gone] in store.ids else None
            gone += 1
        found[share] = spearmanr(full, store.score(steps, offsets, functional=functional).total).statistic
    assert found[0.1] > 0.8
    assert found[0.3] > 0.6
    assert found[0.5] > 0.4
