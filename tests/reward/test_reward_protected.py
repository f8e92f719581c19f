"""A reward that holds: conjunction, saturation, typicality, crowding, demonstrations."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
import tiny
from sharpwave.reward import TERMS, Crowd, Demonstrations, Protections, Saturate
from sharpwave.reward.breakdown import GATES
from tiny_protected import BASE, NEW, PROMPTS, SHOWN, handed, protected, scored


def test_pay_is_the_gated_geometric_mean_of_both_factors() -> None:
    reward = protected(weights={"terminal": 1.0, "instrumental": 2.0, "divergence": 0.1})
    out = scored(reward)
    f = out.factors
    mean = (f["u_terminal"] * f["u_instrumental"] ** 2) ** (1 / 3)
    expected = f["typicality"] * mean / f["crowd"] - 0.05 * f["typicality_excess"]
    np.testing.assert_allclose(out.reward, expected - 0.1 * out.standardised["divergence"], rtol=1e-5)
    np.testing.assert_allclose(sum(out.parts.values()), out.reward, rtol=1e-5, atol=1e-6)
    for name, (low, high) in reward.protections.ranges.items():
        raw = out.terminal if name == "terminal" else out.instrumental
        np.testing.assert_allclose(f[f"u_{name}"], np.clip((raw - low) / (high - low), 0.05, 1), rtol=1e-5)
    assert (f["crowd"] >= 1).all()
    assert out.terminal.tolist() == [1, 0, 1, 1]
    assert f["u_terminal"].tolist() == pytest.approx([1, 0.05, 1, 1])


def test_a_breakdown_says_which_factor_took_how_much() -> None:
    out = scored(protected())
    for row, text in enumerate(NEW):
        f = {name: float(values[row]) for name, values in out.factors.items()}
        found = out.breakdown(row)
        assert (found.text, found.reward) == (text, float(out.reward[row]))
        assert f["typicality"] == pytest.approx(np.prod([f[f"typicality_gate_{part}"] for part in GATES]))
        pay = float(np.sqrt(f["u_terminal"] * f["u_instrumental"]))
        without = {
            "typicality": pay / f["crowd"],
            "crowd": pay * f["typicality"] - 0.05 * f["typicality_excess"],
            "terminal": np.sqrt(f["u_instrumental"]) * f["typicality"] / f["crowd"] - 0.05 * f["typicality_excess"],
            "instrumental": np.sqrt(f["u_terminal"]) * f["typicality"] / f["crowd"] - 0.05 * f["typicality_excess"],
        }
        assert {name: found.without[name] for name in without} == pytest.approx(without, abs=1e-6)
        for part in GATES:
            others = np.prod([f[f"typicality_gate_{one}"] for one in GATES if one != part])
            assert found.costs[f"typicality_{part}"] == pytest.approx(
                pay * (others - f["typicality"]) / f["crowd"], abs=1e-6
            )
    first = out.breakdown(0)
    assert 0 < first.factors["typicality"] < 1
    head, made, lost = str(first).splitlines()
    assert head == f"{first.reward:.2f}  “{NEW[0]}”".removeprefix("0")
    shape = r"  made of  terminal 1 · instrumental \.\d\d → \.\d\d  × T \.\d\d \(z .*\)  ÷ crowd 1\.\d\d .*"
    assert re.fullmatch(shape, made)
    cost, without = f"{first.costs['typicality']:.2f}"[1:], f"{first.without['typicality']:.2f}"[1:]
    assert f"typicality {cost} ({without} without it; by its z)" in lost
    assert lost.index("instrumental") < lost.index("crowd") < lost.index("typicality")  # what took most comes first
    assert len(first.full().splitlines()) == 3 + sum(map(len, (first.factors, first.parts, first.costs)))


def test_what_is_explained_has_the_factors_of_what_is_paid() -> None:
    reward = protected(habituation={"eta": 2.0, "sharing": True}, learn="online")
    columns = {"reference_logprobs": handed(NEW, 1.1)}
    rest = (PROMPTS[1:], NEW[1:])
    alone = reward.explain_texts(tiny.PROMPT, NEW[0])
    explained = reward.explain_texts(tiny.PROMPT, NEW[0], beside=rest, columns=columns)
    ungated = reward.explain_texts(tiny.PROMPT, NEW[0], beside=rest)
    out = reward.score_texts(PROMPTS, NEW, learn=True, columns=columns)
    assert explained.pay == out.breakdown(0)
    assert sum(step.pay for step in explained) == pytest.approx(float(out.instrumental[0]), abs=1e-6)
    assert str(explained).startswith(str(explained.pay))
    assert alone.pay is not None
    assert alone.pay.factors["crowd"] == 1
    assert ungated.pay is not None
    assert ungated.pay.factors["typicality"] == 1
    assert "T 1 (no reference pass)" in str(ungated.pay)
    copy = pickle.loads(pickle.dumps(explained))
    assert copy.pay == explained.pay
    assert copy == explained
    unread = reward.explain_texts(tiny.PROMPT, "")
    assert unread == []
    assert str(unread) == "not scored  “”"


def test_the_breakdown_of_a_sum_has_its_terms() -> None:
    reward = protected(combine="sum", typicality=None, crowd=None, weights={"divergence": 0.5})
    out = reward.score_texts(PROMPTS, NEW, learn=False)
    found = out.breakdown(0)
    assert found.reward == pytest.approx(sum(found.parts.values()), abs=1e-6)
    assert set(found.costs) == {"divergence"}
    _, made, lost = str(found).splitlines()
    assert f"terminal {found.parts['terminal']:+.2f} instrumental {found.parts['instrumental']:+.2f}" in made
    assert lost.startswith("  lost     divergence ") or found.costs["divergence"] < 0.005


@pytest.mark.parametrize(("weights", "factor"), [((1, 0), "u_terminal"), ((0, 1), "u_instrumental")])
def test_a_weight_of_zero_leaves_the_other_factor_alone(weights: tuple[int, int], factor: str) -> None:
    out = scored(protected(weights=sw.Weights(*weights), typicality=None, crowd=None))
    np.testing.assert_allclose(out.reward, out.factors[factor])
    assert set(out.costs) == {factor.removeprefix("u_")}


def test_without_a_terminal_the_instrumental_is_alone() -> None:
    out = scored(protected(terminal=None, typicality=None, crowd=None))
    np.testing.assert_allclose(out.reward, out.factors["u_instrumental"])


def test_a_sum_without_protections_is_what_it_was() -> None:
    reward = sw.InstrumentalReward(tiny.store(), tiny.embed, terminal=tiny.likes_altars, base=tiny.base())
    out = reward.score_texts(PROMPTS, NEW)
    np.testing.assert_allclose(out.reward, out.standardised["terminal"] + out.standardised["instrumental"], rtol=1e-6)
    assert reward.protections.ranges == {}
    assert set(out.parts) == set(TERMS)


def test_a_sum_is_gated_above_its_low_end() -> None:
    plain = protected(combine="sum", typicality=None, crowd=None)
    gated = protected(combine="sum", crowd=None)
    low = sum(float(gated.scale(t, np.array(gated.protections.ranges[t][0]))) for t in ("terminal", "instrumental"))
    whole, shut = scored(plain).reward, scored(gated, surprise=9.0)
    assert (shut.factors["typicality"] == 0).all()
    np.testing.assert_allclose(
        shut.reward, np.minimum(whole, low) - 0.05 * shut.factors["typicality_excess"], rtol=1e-5
    )
    np.testing.assert_allclose(sum(shut.parts.values()), shut.reward, rtol=1e-4, atol=1e-5)


def test_a_saturated_sum_stops_at_what_demonstrations_reach() -> None:
    plain, bounded = (protected(combine="sum", typicality=None, crowd=None, saturate=s) for s in (False, True))
    texts = [" ".join(tiny.STORIES), *NEW]
    out = scored(bounded, texts)
    most = float(bounded.scale("instrumental", np.array(bounded.protections.ranges["instrumental"][1])))
    assert scored(plain, texts).parts["instrumental"][0] > most
    assert out.parts["instrumental"].max() == pytest.approx(most, rel=1e-5)


def test_costs_are_what_the_best_of_each_factor_would_add() -> None:
    out = scored(protected())
    for name in ("terminal", "instrumental"):
        f = {**out.factors, f"u_{name}": np.ones(4)}
        best = f["typicality"] * np.sqrt(f["u_terminal"] * f["u_instrumental"]) / f["crowd"]
        np.testing.assert_allclose(out.costs[name], best - out.factors["gated"], atol=1e-6)
    np.testing.assert_allclose(out.costs["crowd"], out.factors["gated"] * (out.factors["crowd"] - 1), atol=1e-6)


def test_every_part_is_logged_by_name() -> None:
    reward = protected()
    logged: dict[str, float] = {}
    columns: dict[str, Any] = {}
    reward(
        prompts=PROMPTS,
        completions=NEW,
        log_metric=logged.__setitem__,
        log_extra=columns.__setitem__,
        reference_logprobs=handed(NEW),
    )
    for name in ("terminal", "instrumental", "u_terminal", "u_instrumental", "typicality", "typicality_z"):
        assert f"sharpwave/{name}" in logged
        assert len(columns[f"sharpwave_{name}"]) == 4
    for name in ("typicality_entropy", "typicality_distinct", "typicality_excess", "crowd", "alike", "gated"):
        assert f"sharpwave/{name}" in logged
    assert {"sharpwave/cost/terminal", "sharpwave/cost/typicality", "sharpwave/cost/crowd"} <= set(logged)


@pytest.mark.filterwarnings("ignore:.*is the same for all base samples")
def test_a_config_a_pickle_and_a_checkpoint_pay_the_same(tmp_path: Path) -> None:
    reward = protected(saturate={"floor": 0.1}, crowd=Crowd(power=1.0))
    expected = scored(reward).reward
    config = json.loads(json.dumps(reward.to_config(), allow_nan=False))
    again = sw.InstrumentalReward.from_config(config, store=tiny.store())
    assert json.loads(json.dumps(again.to_config())) | {"store": None} == config | {"store": None}
    assert again.protections.saturate == Saturate(floor=0.1)
    other = protected(saturate={"floor": 0.1}, crowd=Crowd(power=1.0), demonstrations=None, base=_other_base())
    assert scored(other).reward.tolist() != expected.tolist()
    reward.save(tmp_path)
    other.restore(tmp_path)
    for copy in (again, pickle.loads(pickle.dumps(reward)), other):
        np.testing.assert_array_equal(scored(copy).reward, expected)


def _other_base() -> tuple[list[str], list[str]]:
    return [tiny.PROMPT] * 4, BASE[2:]


def test_demonstrations_can_have_a_channel_of_the_store() -> None:
    shown = Demonstrations([tiny.PROMPT] * 3, SHOWN, channel="demonstration")
    reward = protected(demonstrations=shown, typicality=None)
    assert "demonstration" in reward.store.scalar_channels
    steps = tiny.embed(["They married in spring.", "A storm broke the mast."])
    value = reward.store.value(steps)[0][:, reward.store.channels.index("demonstration")]
    assert value[0] > 2 * value[1]
    digest = reward.store.digest()
    config = reward.to_config()
    again = sw.InstrumentalReward.from_config(config, store=reward.store)
    assert again.store.digest() == digest  # they are in it, and are not written twice


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"combine": "product"}, ValueError, "combine must be one of"),
        ({"base": None}, ValueError, "base samples say the range"),
        ({"weights": {"terminal": -1.0}}, ValueError, "weights of 0 or more"),
        ({"weights": sw.Weights(1.0, 0.0), "terminal": None}, ValueError, "one above 0 of what there is"),
        ({"crowd": {"powers": 2}}, KeyError, "crowd: no option 'powers'"),
        ({"saturate": 3}, TypeError, "saturate must be a bool, Saturate or a mapping"),
        ({"saturate": {"floor": 0.0}}, ValueError, "floor"),
        ({"typicality": 3}, TypeError, "typicality must be"),
        ({"combine": Protections("sum"), "crowd": True}, ValueError, "options of its own"),
    ],
)
def test_what_is_wrong_is_said(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        protected(**options)


def test_a_gate_without_a_model_asks_for_the_reference() -> None:
    with pytest.raises(ValueError, match="no model"):
        protected().score_texts(PROMPTS, NEW)
    with pytest.raises(ValueError, match="no sum"):
        protected().parts()
