"""The contrast of good and bad texts beside their meaning: a supervised metric."""

from __future__ import annotations

import json
import pickle
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
from hypothesis import given, settings
from hypothesis import strategies as st
from sharpwave._ridge import PENALTIES, Ridge
from sharpwave.embed import Contrast, agree, fingerprint, from_config
from sharpwave.evaluate import auc

DIM = 24
TOPICS = 40


class World:
    """Texts ``topic outcome noise`` whose embedding is nearly all topic: a reply's outcome is a third of it."""

    fingerprint = "world"
    checked_embedder = True

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.topics = rng.normal(size=(TOPICS, DIM))
        self.outcome = rng.normal(size=DIM)
        self.noise = rng.normal(size=(50, DIM)) * 0.15
        self.config = {"kind": "world", "seed": seed}

    def __call__(self, texts: list[str], /) -> np.ndarray:
        fields = np.array([[int(field) for field in text.split()] for text in texts]).reshape(len(texts), 3)
        topic, side, noise = fields.T
        rows = self.topics[topic] + 0.3 * (2 * side - 1)[:, None] * self.outcome + self.noise[noise]
        return np.ascontiguousarray(rows, np.float32)


def texts_of(topics: range, seed: int) -> tuple[list[str], np.ndarray]:
    """A good and a bad text of each topic, and which are good."""
    rng = np.random.default_rng(seed)
    texts = [f"{topic} {side} {rng.integers(50)}" for topic in topics for side in (1, 0)]
    return texts, np.array([text.split()[1] == "1" for text in texts])


def fitted(weight: float = 1.0) -> Contrast:
    return Contrast(World(), weight).fit(*texts_of(range(30), 0))


def test_unfitted_it_is_the_embedder() -> None:
    world, plain = World(), Contrast(World())
    texts, _ = texts_of(range(5), 1)
    np.testing.assert_array_equal(plain(texts), world(texts))
    assert fingerprint(plain) == fingerprint(world)
    assert plain.outcome(texts).tolist() == [0.0] * 10


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 100), st.lists(st.sampled_from(texts_of(range(TOPICS), 3)[0]), min_size=2, max_size=8))
def test_its_cosine_is_the_weighted_mean_of_meaning_and_arc(weight: float, texts: list[str]) -> None:
    contrast = fitted(weight)
    rows = contrast(texts).astype(np.float64)
    meaning = World()(texts).astype(np.float64)
    meaning /= np.linalg.norm(meaning, axis=1, keepdims=True)
    theta = np.pi / 2 * np.clip(contrast.outcome(texts), -1, 1)
    expected = (meaning @ meaning.T + weight * np.cos(theta[:, None] - theta)) / (1 + weight)
    np.testing.assert_allclose(rows @ rows.T, expected, atol=1e-6)
    for n, text in enumerate(texts):  # to the bit: a row does not depend on its batch
        np.testing.assert_array_equal(contrast([text])[0], contrast(texts)[n])


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(40)))
def test_the_order_of_the_texts_does_not_matter(order: list[int]) -> None:
    texts, good = texts_of(range(20), 0)
    one = Contrast(World()).fit(texts, good)
    other = Contrast(World()).fit([texts[n] for n in order], good[order])
    assert fingerprint(one) == fingerprint(other)
    np.testing.assert_array_equal(one(texts), other(texts))


def test_it_comes_back_from_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    from sharpwave.text import embedders

    contrast = fitted(0.5)
    texts, _ = texts_of(range(30, 40), 5)
    inner = embedders.from_config
    monkeypatch.setattr(embedders, "from_config", lambda c: World(c["seed"]) if c.get("kind") == "world" else inner(c))
    for again in (inner(json.loads(json.dumps(contrast.config))), pickle.loads(pickle.dumps(contrast))):
        np.testing.assert_array_equal(again(texts), contrast(texts))
        assert agree(fingerprint(again), fingerprint(contrast))
    again = inner(Contrast(World()).config)
    assert isinstance(again, Contrast)
    assert again.slope is None
    others = [fitted(0.6), Contrast(World()).fit(*texts_of(range(29), 0)), World()]
    assert not any(agree(fingerprint(contrast), fingerprint(other)) for other in others)


def test_classes_count_the_same_however_many_texts_they_have() -> None:
    texts, good = texts_of(range(30), 0)
    kept = np.flatnonzero(good | (np.arange(60) % 6 == 1))  # 30 good ones, 10 bad ones
    contrast = Contrast(World()).fit([texts[n] for n in kept], good[kept])
    score = contrast.outcome([texts[n] for n in kept])
    truth = good[kept]
    assert score[truth].mean() == pytest.approx(-score[~truth].mean(), abs=1e-9)
    assert (score[truth] ** 2).mean() + (score[~truth] ** 2).mean() == pytest.approx(2.0)
    fresh, side = texts_of(range(30, 40), 7)
    assert ((contrast.outcome(fresh) > 0) == side).mean() > 0.85


def test_labels_that_say_nothing_leave_the_embedder_as_it_is() -> None:
    texts, _ = texts_of(range(30), 0)
    unfitted = 0
    for seed in range(10):
        labels = np.random.default_rng(seed).permutation(60) % 2 == 0
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            contrast = Contrast(World()).fit(texts, labels)
        assert (contrast.slope is None) == bool(said)
        unfitted += contrast.slope is None
    assert unfitted >= 7


def test_a_store_tells_good_from_bad_by_it_on_topics_that_it_has_not_seen() -> None:
    """The cosine of the embedding alone is nearly all topic, so a good and a bad memory of a topic answer alike."""

    def told(contrast: Any) -> float:
        texts, good = texts_of(range(30), 0)
        steps = contrast(texts)
        store = sw.ValueStore(sw.Config(dim=steps.shape[1]))
        store.calibrate(steps, np.arange(61), check=False)
        store.add_channel("good")
        store.add_channel("bad")
        store.observe(steps, np.arange(61), drives=np.stack([good, ~good], axis=1).astype(float))
        store.replay()
        fresh, side = texts_of(range(30, 40), 2)
        paid = store.score(contrast(fresh), np.arange(21), weights={"good": 1, "bad": -1}, context=False).total
        return auc(paid.astype(float), side)

    assert told(fitted()) > 0.9
    assert told(Contrast(World())) < 0.75


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Contrast(World(), 0.0), "weight and scale must be positive"),
        (lambda: Contrast(World(), scale=float("nan")), "weight and scale must be positive"),
        (lambda: Contrast(World(), slope=[float("inf")]), "slope must be a vector of finite numbers"),
        (lambda: Contrast(World()).fit(["0 1 0"], [True, False]), "good has 2 labels for 1 texts"),
        (lambda: Contrast(World()).fit(["0 1 0", "0 0 0", "1 1 1"], [True, False, True]), "got 2 and 1"),
        (lambda: Contrast(World(), slope=[1.0, 2.0])(["0 1 0"]), "vectors of length 2, the embedder has 24"),
        (lambda: from_config({"kind": "no"}), "'joined', 'contrast'"),
    ],
)
def test_what_does_not_fit_is_refused(act: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()


def test_the_ridge_is_the_one_of_least_leave_one_out_error() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20, 30))
    target = rows[:, 0] + 0.5 * rng.normal(size=20)
    found = Ridge(rows, target)

    def solved(x: np.ndarray, y: np.ndarray, penalty: float) -> SimpleNamespace:
        centred = x - x.mean(axis=0)
        slope = np.linalg.solve(centred.T @ centred + penalty * np.eye(30), centred.T @ (y - y.mean()))
        return SimpleNamespace(slope=slope, at=lambda z: (z - x.mean(axis=0)) @ slope + y.mean())

    scale = (np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2).mean()
    errors: list[float] = []
    for penalty in PENALTIES * scale:
        left = [
            float(target[n] - solved(np.delete(rows, n, 0), np.delete(target, n), penalty).at(rows[n]))
            for n in range(20)
        ]
        errors.append(float(np.mean(np.square(left))))
    best = int(np.argmin(errors))
    assert found.skill == pytest.approx(1 - errors[best] / target.var(), abs=1e-6)
    np.testing.assert_allclose(found.slope, solved(rows, target, PENALTIES[best] * scale).slope, atol=1e-8)
