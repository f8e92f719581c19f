"""Best of n against every subset there is, its intervals, where it turns, and the command."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharpwave.remedies import BestOf, best_of
from sharpwave.remedies.best_of_n import picked


@given(samples=st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 5)), min_size=1, max_size=7))
def test_it_is_the_mean_over_all_subsets(samples: list[tuple[int, int]]) -> None:
    """Small whole numbers, so that rewards tie: the best of a subset is then any of its best."""
    reward, gold = (np.array(column, float) for column in zip(*samples, strict=True))
    count = len(samples)
    found = best_of(["p"] * count, reward=reward, gold=gold, n=range(1, count + 1))
    for row in range(count):
        subsets = [list(s) for s in combinations(range(count), row + 1)]
        expected = np.mean([gold[[i for i in s if reward[i] == reward[s].max()]].mean() for s in subsets])
        # A subset's tie is broken evenly; so is that of all samples, which comes to the same mean.
        assert found.gold["gold"].mean[row] == pytest.approx(expected)
        assert found.reward.mean[row] == pytest.approx(np.mean([reward[s].max() for s in subsets]))


def test_chances_add_up_for_many_samples() -> None:
    sizes = np.array([1, 2, 64, 1000, 2048])
    weights = picked(np.random.default_rng(0).normal(size=2048), sizes)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    np.testing.assert_allclose(weights[0], 1 / 2048)
    assert weights[-1].max() == 1.0


def test_every_prompt_weighs_the_same_and_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    prompts = ["a"] * 4 + ["b"] * 9 + ["c"] * 5
    reward, gold = rng.normal(size=18), rng.normal(size=18)
    found = best_of(prompts, reward=reward, gold=gold)
    assert found.n.tolist() == [1, 2, 4]
    assert found.gold["gold"].mean[0] == pytest.approx(np.mean([gold[:4].mean(), gold[4:13].mean(), gold[13:].mean()]))
    order = rng.permutation(18)
    again = best_of([prompts[n] for n in order], reward=reward[order], gold=gold[order])
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(getattr(again.gold["gold"], name), getattr(found.gold["gold"], name))


def exploited(seed: int, prompts: int = 24, samples: int = 128) -> tuple[list[str], np.ndarray, np.ndarray]:
    """A reward that follows gold, but for one sample in twenty that it overrates and that is bad."""
    rng = np.random.default_rng(seed)
    gold = rng.normal(size=prompts * samples)
    reward = gold + 0.5 * rng.normal(size=gold.shape)
    hacked = rng.random(gold.shape) < 0.05
    return (
        [f"p{n % prompts}" for n in range(len(gold))],
        np.where(hacked, reward + 4, reward),
        np.where(hacked, -2, gold),
    )


def test_a_reward_that_is_exploited_turns_and_one_that_is_not_does_not() -> None:
    prompts, reward, gold = exploited(0)
    found = best_of(prompts, reward=reward, gold={"gold": gold, "pay": reward})
    curve = found.gold["gold"]
    assert 1 < curve.best < 32
    assert curve.turns
    assert curve.fall[0] > 1
    assert curve.low[0] < curve.mean[0] < curve.high[0]
    assert not found.gold["pay"].turns
    assert (np.diff(found.reward.mean) > 0).all()
    said = str(found)
    assert f"gold: turns at n = {curve.best}" in said
    assert "pay: highest at the largest n" in said
    assert found.kl[0] == 0


def test_a_measure_may_rise_and_turn_and_keep_or_lose_what_it_gained() -> None:
    prompts, reward, gold = exploited(0)
    found = best_of(prompts, reward=reward, gold={"gold": gold, "pay": reward, "worse": -reward})
    curve, pay, worse = found.gold["gold"], found.gold["pay"], found.gold["worse"]
    np.testing.assert_array_equal(curve.gain, curve.mean - curve.mean[0])
    assert curve.rises
    assert curve.turns
    assert curve.gain_low[0] == 0
    assert (curve.gain_low[1:] < curve.gain[1:]).all()
    assert curve.kept[0] == curve.gain[-1]
    assert curve.kept[2] < 0  # below where it began
    assert pay.kept[1] > 0
    assert pay.rises
    assert not worse.rises
    assert worse.best == 1
    one = best_of(["p"] * 8, reward=np.arange(8), gold=np.arange(8)).gold["gold"]
    assert not one.rises
    assert np.isnan(one.kept[1])


def test_a_rise_at_a_middle_n_counts_where_the_largest_is_noise() -> None:
    """Gold 1 is what pays 24 … 30 of 32; at n = 32 the best is one text a prompt, gold in half of the prompts."""
    reward = np.tile(np.arange(32.0), 8)
    gold = ((reward >= 24) & (reward < 31)).astype(float)
    gold[31::64] = 1.0
    curve = best_of([f"{n // 32}" for n in range(256)], reward=reward, gold=gold).gold["gold"]
    assert curve.gain_low[-1] <= 0
    assert curve.rises


def test_a_measure_that_nothing_selects_rarely_turns_or_rises() -> None:
    turned = rose = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        prompts = [f"{n % 24}" for n in range(24 * 32)]
        found = best_of(prompts, reward=rng.normal(size=768), gold=rng.normal(size=768), resamples=400)
        turned += found.gold["gold"].turns
        rose += found.gold["gold"].rises
    assert turned <= 5
    assert rose <= 8


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """90 % intervals of the best of 4 by a reward that is gold: the mean of the largest of four normals, 1.029.

    Of 30 prompts a bootstrap is a little too narrow: .88 in 1500 repetitions.
    """
    held = 0
    for seed in range(400):
        gold = np.random.default_rng(seed).normal(size=30 * 8)
        found = best_of([f"{n % 30}" for n in range(240)], reward=gold, gold=gold, n=[4], confidence=0.9, resamples=400)
        held += found.gold["gold"].low[0] <= 1.02938 <= found.gold["gold"].high[0]
    assert 0.82 <= held / 400 <= 0.93


def test_functions_are_called_as_a_trainer_does() -> None:
    def length(prompts: list[str], completions: list[str]) -> list[float]:
        assert len(prompts) == len(completions)
        return [float(len(c)) for c in completions]

    prompts, texts = ["p"] * 3, ["a", "bbb", "cc"]
    found = best_of(prompts, texts, reward=length, gold=lambda prompts, completions: [1.0, 5.0, 3.0])
    assert found.gold["gold"].mean.tolist() == pytest.approx([3.0, 13 / 3, 5.0])
    assert np.isnan(found.gold["gold"].low).all()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["gold"]["gold"]["low"] == [None] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": [1.0, np.nan, 2.0]}, "reward row 1"),
        ({"gold": [1.0, 2.0]}, r"gold 'gold' must have shape \(3,\)"),
        (
            {"gold": {"mood": lambda prompts, completions: [1.0, None, 2.0]}, "completions": ["a"] * 3},
            "gold 'mood' row 1",
        ),
        ({"reward": lambda prompts, completions: [1.0]}, "give completions"),
        ({"n": [4]}, r"n must lie in 1 … 3"),
        ({"gold": {}}, "needs a measure"),
        ({"gold": {"reward": [1, 2, 3]}}, "name of what selects"),
        ({"confidence": 1.0}, "confidence"),
        ({"prompts": []}, "needs samples"),
    ],
)
def test_errors_name_what_is_wrong(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"prompts": ["p"] * 3, "reward": [1, 2, 3], "gold": [1, 2, 3]} | change
    with pytest.raises(ValueError, match=message):
        best_of(arguments.pop("prompts"), arguments.pop("completions", None), **arguments)


def test_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    prompts, reward, gold = exploited(0, 6, 16)
    found: BestOf = best_of(prompts, reward=reward, gold=gold)
    assert found.plot(tmp_path / "bon.svg").read_text().startswith("<?xml")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("typer")
    from sharpwave import cli

    prompts, reward, gold = exploited(3, 8, 32)
    path = tmp_path / "samples.jsonl"
    rows = [{"prompt": p, "judge": r, "words": g} for p, r, g in zip(prompts, reward, gold, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    command = ["bon", str(path), "--reward", "judge", "--gold", "words"]
    cli.app([*command, "--n", "1,4,32", "--plot", str(tmp_path / "bon.png")])
    said = capsys.readouterr().out
    assert "words: turns at n = " in said
    assert (tmp_path / "bon.png").stat().st_size > 1000
    cli.app([*command, "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["n"] == [1, 2, 4, 8, 16, 32]
    assert facts["gold"]["words"]["mean"] == best_of(prompts, reward=reward, gold=gold).gold["gold"].mean.tolist()
    for bad, message in (
        (["--gold", "mood"], "row 1: has no number 'mood'"),
        (["--gold", "judge"], "--gold must name other fields"),
        (["--prompt", "opening"], "has no field 'opening'"),
        (["--n", "1,x"], "--n must be whole numbers"),
        (["--n", "64"], "n must lie in 1 … 32"),
    ):
        with pytest.raises(SystemExit) as caught:
            cli.app([*command, *bad])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
