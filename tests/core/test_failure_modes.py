"""The known ways to fail (docs/model.md §9), as far as a store can show them: a test of each."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import sharpwave as sw
from sharpwave import habituation
from worlds import one_hot

DIM = 24
GOAL = 0  # the axis of the terminal
WAYS = [[1, 2, 3, 4], [5, 6, 7, 4], [8, 2, 9, 4]]  # stories that reach the goal, step by step
IDLE = [[10, 11, 12, 13], [14, 15, 12, 16], [17, 11, 18, 13]]  # stories that lead elsewhere


def near(axis: int, towards: int, share: float) -> np.ndarray:
    """A step on one axis, turned a little towards another."""
    x = np.zeros(DIM, np.float32)
    x[axis], x[towards] = np.sqrt(1 - share**2), share
    return x


def tale(path: list[int]) -> np.ndarray:
    """Prompt 20, then the path; a valuable end (4) is a paraphrase of the terminal."""
    return np.stack([one_hot([20], DIM)[0], *[near(4, GOAL, 0.8) if a == 4 else one_hot([a], DIM)[0] for a in path]])


@pytest.fixture
def store() -> sw.ValueStore:
    store = sw.ValueStore(sw.Config(dim=DIM, k=8, tau=0.3, min_novelty=0.3))
    store.add_terminal("goal", one_hot([GOAL], DIM)[0], low=0.2, high=0.9)
    for path in WAYS + IDLE:
        store.observe(tale(path))
    store.replay()
    return store


def total(store: sw.ValueStore | sw.FrozenView, steps: np.ndarray, functional: str = "coverage") -> float:
    return float(store.score(steps, functional=functional).total[0])


def honest(store: sw.ValueStore | sw.FrozenView) -> float:
    return min(total(store, tale(path)) for path in WAYS)


def test_a_way_to_the_goal_beats_a_way_elsewhere(store: sw.ValueStore) -> None:
    assert honest(store) > 2 * max(total(store, tale(path)) for path in IDLE)


def test_spam_from_outside_the_world_pays_nothing(store: sw.ValueStore) -> None:
    """An evaluator's "yes yes yes": the store has no memory of it."""
    yes = np.repeat(one_hot([23], DIM), 12, axis=0)
    score = store.score(np.concatenate([tale([])[:1], yes]))
    assert score.total[0] == 0
    assert (score.support[1:] == 0).all()


def test_parroting_the_terminal_pays_nothing(store: sw.ValueStore) -> None:
    """An embedding reward's failure. The cosine to the terminal is at its highest; terminals absorb and pay nothing."""
    parrot = np.concatenate([tale([])[:1], np.repeat(one_hot([GOAL], DIM), 6, axis=0)])
    means = {m.id for e in store.explain(parrot) for m in e.memories if m.pay}
    assert not means & set(store.ids[store.is_terminal].tolist())
    assert total(store, parrot) < honest(store) / 4


def test_listing_paraphrases_of_the_terminal_pays_less_than_a_way_there(store: sw.ValueStore) -> None:
    listing = np.stack([tale([])[0], *[near(GOAL, axis, 0.3) for axis in (19, 21, 22, 23)]])
    assert total(store, listing) < honest(store) / 4


def test_salad_of_the_topic_is_barely_supported_and_leads_from_nowhere(store: sw.ValueStore) -> None:
    rng = np.random.default_rng(0)
    mixtures = (one_hot([1, 2, 3, 4, 5, 6, 7], DIM)[None] * rng.random((5, 7, 1))).sum(1) + one_hot([20] * 5, DIM)
    salad = np.concatenate([tale([])[:1], mixtures.astype(np.float32)])
    assert total(store, salad) < honest(store)


def test_shuffling_a_story_costs_its_edges(store: sw.ValueStore) -> None:
    told, shuffled = store.score(tale([1, 2, 3, 4])), store.score(tale([3, 1, 4, 2]))
    assert shuffled.edge.sum() < told.edge.sum()
    assert shuffled.total[0] < told.total[0]


def test_a_splice_loses_edge_support_at_its_seams(store: sw.ValueStore) -> None:
    """Splicing is only dampened, not solved: the pay at a seam is ρ of what a known way there would have earned."""
    splice = store.score(tale([3, 7, 9, 4]))
    told = store.score(tale([1, 2, 3, 4]))
    assert (splice.edge[2:4] == 0).all()
    assert splice.step[2] <= store.config.rho * told.step[3] * 1.5
    assert splice.edge.sum() < told.edge.sum()


def test_one_story_told_for_ever_pays_less_and_less(store: sw.ValueStore) -> None:
    """Across episodes: habituation. Another story still pays in full where it uses other memories."""
    table = sw.Habituation(episodes=8)
    pays = []
    for _ in range(5):
        score = store.score(tale(WAYS[0]), habituation=table, details=True)
        table.record(score)
        pays.append(float(score.total[0]))
    assert all(later < earlier for earlier, later in pairwise(pays))
    assert pays[-1] < pays[0] / 3
    other, habituated = (store.score(tale(WAYS[1]), habituation=h) for h in (None, table))
    assert habituated.step[1:4].tobytes() == other.step[1:4].tobytes()
    assert habituated.step[4] < other.step[4]


def test_copies_within_a_batch_share_their_pay(store: sw.ValueStore) -> None:
    """Fitness sharing: two of three samples tell one story and earn less each, the third keeps what only it uses."""
    told = [tale(WAYS[0]), tale(WAYS[0]), tale(WAYS[1])]
    offsets = np.cumsum([0, *map(len, told)])
    table = sw.Habituation(episodes=8)
    plain = store.score(np.concatenate(told), offsets, details=True)
    shared = [store.score(t, habituation=h) for t, h in zip(told, table.beside(plain), strict=True)]
    assert shared[0].total[0] == shared[1].total[0] < plain.total[0] / 1.5
    assert shared[2].step[1:4].tobytes() == plain.step[offsets[2] + 1 : offsets[2] + 4].tobytes()
    assert len(table) == 0
    together = habituation.shared(store, np.concatenate(told), plain, table)
    assert [float(t) for t in together.total] == [float(s.total[0]) for s in shared]
    assert together.support.tobytes() == plain.support.tobytes()
    (alone,) = table.beside(store.score(told[0], details=True))
    assert store.score(told[0], habituation=alone).total[0] == plain.total[0]


def test_a_good_chunk_repeated_within_an_episode_pays_once(store: sw.ValueStore) -> None:
    assert total(store, tale([1, 2, 3, 3, 3, 3])) == total(store, tale([1, 2, 3]))


def test_a_memorised_path_pays_no_more_than_its_memories(store: sw.ValueStore) -> None:
    """Reciting a stored story is paid in full once; the bound is the advantage of the memories on the way."""
    recited = np.concatenate([tale(WAYS[0]), tale(WAYS[0])[1:], tale(WAYS[0])[1:]])
    assert total(store, recited) == pytest.approx(total(store, tale(WAYS[0])), rel=1e-6)
    advantage = np.maximum(store.values - store.baseline, 0).mean(1)[~store.is_terminal]
    assert total(store, recited) <= advantage.sum()


def test_creeping_up_the_watermark_by_paraphrase_is_bounded(store: sw.ValueStore) -> None:
    """Fifty paraphrases, each a little nearer to the goal: `progress` pays no more than the best value there is."""
    creep = np.stack([tale([])[0], *[near(4, GOAL, 0.5 + 0.4 * n / 50) for n in range(50)]])
    assert total(store, creep, "progress") <= float(store.values.max())


def test_a_premature_ending_burns_the_watermark(store: sw.ValueStore) -> None:
    """Under `progress` what follows a premature ending earns nothing; under `coverage` the means still pay."""
    spoiled = tale([4, 1, 2, 3])
    assert (store.score(spoiled, functional="progress").step[2:] == 0).all()
    assert (store.score(spoiled).step[2:] > 0).any()


def test_harm_is_not_habituated(store: sw.ValueStore) -> None:
    table = sw.Habituation()
    charges = []
    for _ in range(3):
        score = store.score(tale(WAYS[0]), weights=[-1.0], habituation=table, details=True)
        table.record(score)
        charges.append(float(score.total[0]))
    assert charges[0] < 0
    assert charges[1:] == charges[:-1]


# ---------------------------------------------------------------------- drift of the store


HACKED = np.stack([*one_hot([20, 23, 22, 21], DIM), near(4, GOAL, 0.9)])  # spam, then a goal-like end


def test_a_hacked_episode_that_is_written_makes_its_own_spam_valuable(store: sw.ValueStore) -> None:
    view = store.frozen()
    assert total(store, HACKED[:4]) == 0
    store.observe(HACKED)
    store.replay()
    assert total(store, HACKED[:4]) > 0, "the drift that the remedies are against"
    assert total(view, HACKED[:4]) == 0, "a frozen view does not drift"


def test_proposals_are_scored_by_the_old_store(store: sw.ValueStore) -> None:
    store.observe(HACKED, propose=True)
    store.replay()
    assert total(store, HACKED[:4]) == 0
    store.replay(consolidate=True)
    assert total(store, HACKED[:4]) > 0


def test_max_drift_refuses_a_consolidation_that_moves_the_store() -> None:
    store = sw.ValueStore(sw.Config(dim=DIM, k=8, min_novelty=0.3))
    store.calibrate(np.concatenate([tale(path) for path in WAYS + IDLE]))
    store.add_terminal("goal", one_hot([GOAL], DIM)[0], low=0.2, high=0.9)
    for path in WAYS:
        store.observe(tale(path))
    store.replay()
    before = store.digest()
    for path in IDLE:  # the idle stories now end at the goal
        store.observe(np.concatenate([tale(path), tale([4])[1:]]), propose=True)
    proposed = store.digest()
    report = store.replay(consolidate=True, max_drift=1e-3)
    assert report.refused
    assert report.drift > 1e-3
    assert store.digest() == proposed != before
    accepted = store.replay(consolidate=True, max_drift=1.0)
    assert not accepted.refused
    assert accepted.observed == len(IDLE)


@pytest.mark.parametrize("bound", [1e-4, 1e-3, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("reward", [1.0, 100.0])
def test_spam_with_a_high_reward_moves_no_value_beyond_the_bound(bound: float, reward: float) -> None:
    """Spam woven into the known ways and paid by a fooled verifier: what is known moves no further than the bound.

    The bound is on mean |Φ| over the calibration sample, so it binds what the sample knows. Spam of a kind that the
    sample has not is bound by the support gate and by the view that scores (the tests above), not by the drift.
    """
    store = sw.ValueStore(sw.Config(dim=DIM, k=8, min_novelty=0.3))
    sample = np.concatenate([tale(path) for path in WAYS + IDLE])
    store.calibrate(sample)
    store.add_channel("verifier", high=reward)
    for path in WAYS:
        store.observe(tale(path), drives=np.array([[np.nan]] * 4 + [[1.0]]))
    store.replay()
    before, digest = store.value(sample)[0], store.digest()
    for path in WAYS:
        spam = np.concatenate([tale(path)[:2], one_hot([22, 23], DIM)])
        store.observe(spam, drives=np.array([[np.nan]] * 3 + [[reward]]), propose=True)
    proposed = store.digest()
    report = store.replay(consolidate=True, max_drift=bound)
    moved = np.abs(store.value(sample)[0].astype(np.float64) - before).mean()
    assert moved <= bound
    assert report.refused == (report.drift > bound)
    assert report.stopped == ("drift" if report.refused else "converged")
    if report.refused:
        assert store.digest() == proposed != digest
        assert moved == 0
    else:
        assert moved == pytest.approx(report.drift, rel=1e-4)
    if bound == 1e-4:
        assert report.refused
    if bound == reward == 1.0:
        assert not report.refused


def test_veto_undoes_a_hack(store: sw.ValueStore) -> None:
    before = store.digest()
    (episode,) = store.observe(HACKED).episode_ids.tolist()
    assert store.digest() != before
    store.veto(episode=episode)
    assert store.digest() == before
    assert total(store, HACKED[:4]) == 0
