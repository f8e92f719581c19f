"""What no text gets from a protected reward: pay without bound, for repetition, or by its batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
import tiny
import tiny_protected as made
from hypothesis import given, settings
from hypothesis import strategies as st
from sharpwave.reward.measure import Scorable
from sharpwave.text.chunkers import chunk_batch
from sharpwave.text.typicality import QUANTILES, Typicality

pytestmark = pytest.mark.filterwarnings("ignore:.*no signal")
SENTENCES = [f"{part.strip()}." for story in tiny.STORIES for part in story.split(".") if part.strip()]
texts = st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=8).map(" ".join)
TEXTS = st.lists(texts, min_size=1, max_size=6)


@pytest.fixture(scope="module")
def reward() -> sw.InstrumentalReward:
    return made.protected()


@pytest.fixture(scope="module")
def bare() -> sw.InstrumentalReward:
    """Terminal by cosine, no T and no crowd: what is paid is u."""
    return made.protected(terminal="wedding", typicality=None, crowd=None)


@settings(max_examples=40)
@given(told=TEXTS, repeated=st.integers(0, 7))
def test_a_repeated_step_at_the_end_never_raises_u(bare: Any, told: list[str], repeated: int) -> None:
    """Of the functional "coverage" with the cosine to a terminal; T ≤ 1 and crowd ≥ 1, so that no completion with T = 1
    and crowd = 1 is paid more for a repeated step."""
    steps = [text.split(". ") for text in told]
    longer = [f"{text} {some[repeated % len(some)].rstrip('.')}." for text, some in zip(told, steps, strict=True)]
    before, after = made.scored(bare, told), made.scored(bare, longer)
    assert (np.diff(after.offsets) == np.diff(before.offsets) + 1).all()
    for name in ("u_terminal", "u_instrumental"):
        assert (after.factors[name] <= before.factors[name] + 1e-6).all()
    assert (after.reward <= before.reward + 1e-6).all()


@settings(max_examples=40)
@given(told=TEXTS)
def test_pay_lies_within_u_and_u_within_1(reward: Any, told: list[str]) -> None:
    out = made.scored(reward, told)
    f = out.factors
    for name in ("u_terminal", "u_instrumental", "typicality"):
        assert ((f[name] >= 0) & (f[name] <= 1)).all()
    assert (f["crowd"] >= 1).all()
    assert (out.reward <= np.sqrt(f["u_terminal"] * f["u_instrumental"]) + 1e-6).all()
    assert (out.reward >= -0.5 - 1e-6).all()  # .05 for each of at most ten deviations


@settings(max_examples=20)
@given(told=TEXTS, more=TEXTS)
def test_a_texts_gate_and_factors_do_not_depend_on_its_batch(reward: Any, told: list[str], more: list[str]) -> None:
    alone, together = made.scored(reward, told), made.scored(reward, [*more, *told])
    for name in ("typicality", "typicality_z", "typicality_excess", "u_terminal", "u_instrumental"):
        np.testing.assert_allclose(alone.factors[name], together.factors[name][len(more) :], rtol=1e-6)


@pytest.mark.parametrize("combine", ["conjunction", "sum"])
def test_nobody_is_paid_more_than_demonstrations_reach(combine: str) -> None:
    """Everything that the store knows, in one text, earns what reaching hi in each term earns."""
    reward = made.protected(combine=combine, saturate=True, typicality=None, crowd=None)
    out = made.scored(reward, [" ".join(tiny.STORIES).replace("boat", "raft"), *made.NEW])
    high = {term: span[1] for term, span in reward.protections.ranges.items()}
    assert out.instrumental[0] > high["instrumental"]
    assert out.terminal[0] >= high["terminal"]
    most = 1.0 if combine == "conjunction" else sum(float(reward.scale(t, np.array(v))) for t, v in high.items())
    assert out.reward[0] == pytest.approx(most, rel=1e-5)
    assert out.reward.max() <= most + 1e-5


def test_outcome_or_process_alone_pays_a_fraction() -> None:
    """A floor of .05 leaves at most √.05 of full pay to either factor alone."""
    reward = made.protected(terminal="wedding", typicality=None, crowd=None)
    out = made.scored(reward, ["They married at the altar.", made.NEW[1], "zebra quilt. zinc yoke."])
    assert out.factors["u_terminal"][0] == 1
    assert (out.reward[np.minimum(out.factors["u_terminal"], out.factors["u_instrumental"]) < 0.06] < 0.25).all()
    assert out.reward[2] == pytest.approx(0.05)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), size=st.integers(2, 40), same=st.booleans())
def test_a_batch_like_the_base_is_no_crowd(seed: int, size: int, same: bool) -> None:
    """Whether its completions answer one prompt or many: pairs within a prompt are more alike, in both."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(0).normal(size=(6, 64))

    def drawn(count: int, topic: np.ndarray) -> tuple[list[str], np.ndarray]:
        rows = 1.5 + topics[topic] + 1.5 * rng.normal(size=(count, 64))
        return [f"prompt {n}" for n in topic], rows.astype(np.float32)

    protections = sw.reward.Protections("sum", crowd=True)
    protections.fit_crowd(drawn(240, np.arange(240) % 6))
    crowd, _ = protections.crowding(*drawn(size, np.zeros(size, int) if same else np.arange(size) % 6))
    assert crowd.mean() < 1.25
    copies = np.repeat(drawn(1, np.zeros(1, int))[1], 8, axis=0)
    assert (protections.crowding(["prompt 0"] * 8, copies)[0] > 1.4).all()


def test_one_completion_alone_and_unscorable_ones_are_no_crowd(reward: Any) -> None:
    assert made.scored(reward, made.NEW[:1]).factors["crowd"].tolist() == [1.0]
    both = made.scored(reward, [*made.NEW, ""])
    assert np.isnan(both.reward[-1])
    np.testing.assert_allclose(both.factors["crowd"][:-1], made.scored(reward).factors["crowd"], rtol=1e-6)


SCRIPT = """
import json, sys
import tiny_protected as made
print(json.dumps(made.protected().to_config()["combine"]))
"""


def test_a_scale_fitted_in_another_process_is_the_same(reward: Any) -> None:
    """Hash seed and threads differ, and no bit of the constants does."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(made.__file__).parent),
        "PYTHONHASHSEED": "7",
        "OMP_NUM_THREADS": "1",
    }
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(found) == json.loads(json.dumps(reward.to_config()["combine"]))


def test_the_crowd_of_a_batch_does_not_depend_on_its_order(reward: Any) -> None:
    order = [2, 0, 3, 1]
    there, back = made.scored(reward), made.scored(reward, [made.NEW[n] for n in order])
    np.testing.assert_allclose(back.factors["crowd"], there.factors["crowd"][order], rtol=1e-6)


def test_vectors_of_a_batch_are_those_of_divergence(reward: Any) -> None:
    batch = chunk_batch(reward.chunker, made.PROMPTS, made.NEW)
    vectors = Scorable.of(batch, reward.embedder, tiny.DIM).vectors()
    _, alike = reward.protections.crowding(made.PROMPTS, vectors)
    cosines = vectors @ vectors.T
    np.testing.assert_allclose(alike, (cosines.sum(axis=1) - 1) / 3, rtol=1e-5)


def test_hugging_the_edge_shows_in_the_distance_of_z() -> None:
    """Every z within the base's range, and T = 1, but none where the base has most of its own."""
    rng = np.random.default_rng(0)

    def rows(shift: float, count: int) -> dict[str, Any]:
        # −log p − H of each token: mean 0 and variance 1 under the base
        noise = rng.normal(size=(count, 50))
        noise += shift / np.sqrt(50) - (noise.mean(axis=1, keepdims=True) if shift else 0.0)
        ones = np.ones((count, 50))
        return {"logps": -1.0 - noise, "mask": ones, "entropies": ones, "varentropies": ones}

    typ = Typicality(None).fit_logprobs(**rows(0.0, 256))
    base, edge = typ.report_of_logprobs(**rows(0.0, 64)), typ.report_of_logprobs(**rows(1.1, 64))
    assert edge.gate.min() > 0.9
    assert (edge.ks > 0.7, edge.ks_p < 1e-6) == (True, True)
    assert (base.ks < 0.2, base.ks_p > 0.01) == (True, True)
    assert len(typ.fitted.z_quantiles["varentropy"]) == QUANTILES
