"""Base samples that are drawn: when a prompt is first met, once, kept in a file; or for each batch anew."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
import tiny
from sharpwave.remedies import draw_base

NEW = "What happened at sea?"
WEIGHTS = {"divergence": 1.0}
DRAWN: list[list[str]] = []


def draw(prompts: list[Any]) -> tuple[list[Any], list[str]]:
    """Four base samples of each prompt."""
    DRAWN.append(list(prompts))
    return [p for p in prompts for _ in range(4)], tiny.STORIES[2:6] * len(prompts)


def build(**options: Any) -> sw.InstrumentalReward:
    return sw.InstrumentalReward(tiny.store(), tiny.embed, base=tiny.base(), weights=WEIGHTS, **options)


@pytest.fixture(autouse=True)
def nothing_drawn() -> None:
    DRAWN.clear()


def test_they_are_drawn_once_and_compared_with(tmp_path: Path) -> None:
    reward, plain = build(), build()
    cache = tmp_path / "runs" / "base.jsonl"
    draw_base(reward, draw, cache)
    prompts, texts = [NEW, NEW, tiny.PROMPT], tiny.STORIES[:3]
    found = [reward.score_texts(prompts, texts).divergence for _ in range(2)]
    assert DRAWN == [[NEW]]
    assert np.array_equal(found[0], found[1])
    before = plain.score_texts(prompts, texts).divergence
    assert not np.allclose(found[0][:2], before[:2])
    assert found[0][2] == before[2]
    given = sw.InstrumentalReward(
        tiny.store(),
        tiny.embed,
        base=([*tiny.base()[0], *[NEW] * 4], [*tiny.base()[1], *tiny.STORIES[2:6]]),
        weights=WEIGHTS,
    )
    assert np.allclose(given.score_texts(prompts, texts).divergence, found[0])

    assert [json.loads(line)["prompt"] for line in cache.read_text().splitlines()] == [NEW] * 4
    with cache.open("a") as file:
        file.write('{"prompt": "torn')
    again = build()
    draw_base(again, draw, cache)
    assert np.array_equal(again.score_texts(prompts, texts).divergence, found[0])
    assert DRAWN == [[NEW]]
    again.score_texts(["Another."], texts[:1])
    third = build()
    draw_base(third, draw, cache)
    third.score_texts(["Another."], texts[:1])
    assert DRAWN == [[NEW], ["Another."]]
    twin = pickle.loads(pickle.dumps(third))
    twin.score_texts(["A third."], texts[:1])
    assert DRAWN[2:] == [["A third."]]


def test_a_relative_cache_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    reward = build()
    draw_base(reward, draw, "base.jsonl")
    monkeypatch.chdir(tmp_path / "elsewhere")
    reward.score_texts([NEW], tiny.STORIES[:1])
    assert len((tmp_path / "base.jsonl").read_text().splitlines()) == 4
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_prompt_that_gets_too_few_is_compared_with_all_of_them() -> None:
    reward, plain = build(), build()
    draw_base(reward, lambda prompts: (prompts, ["silence"] * len(prompts)))
    found = [reward.score_texts([NEW] * 2, tiny.STORIES[:2]).divergence for _ in range(2)]
    assert np.array_equal(found[0], plain.score_texts([NEW] * 2, tiny.STORIES[:2]).divergence)
    asked: list[Any] = []
    other = build()
    draw_base(other, lambda prompts: (asked.extend(prompts), ([], []))[1])
    for _ in range(2):
        other.score_texts([NEW], tiny.STORIES[:1])
    assert asked == [NEW]


def test_each_step_draws_anew_and_keeps_nothing() -> None:
    drawn: list[list[str]] = [tiny.STORIES[2:6], tiny.STORIES[:4]]
    reward, plain = build(), build()
    draw_base(
        reward, lambda prompts: ([p for p in prompts for _ in range(4)], drawn.pop(0) * len(prompts)), each_step=True
    )
    prompts, texts = [NEW, tiny.PROMPT], tiny.STORIES[:2]
    kept = dict(reward.base.by_prompt)
    found = [reward.score_texts(prompts, texts).divergence for _ in range(2)]
    assert drawn == []
    assert not np.allclose(found[0], found[1])
    assert reward.base.by_prompt == kept
    # What was given for a prompt is not looked at; the same samples, given, would be.
    assert not np.allclose(found[0][1], plain.score_texts(prompts, texts).divergence[1])
    given = ([p for p in prompts for _ in range(4)], tiny.STORIES[2:6] * 2)
    same = sw.InstrumentalReward(tiny.store(), tiny.embed, base=given, weights=WEIGHTS)
    assert np.allclose(same.score_texts(prompts, texts).divergence, found[0])


def test_bad_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the reward has no base samples"):
        draw_base(sw.InstrumentalReward(tiny.store(), tiny.embed), draw)
    cache = tmp_path / "base.jsonl"
    cache.write_text('{"prompt": null, "completion": "a"}\n{"other": 1}\n')
    with pytest.raises(ValueError, match="line 2 is no base sample"):
        draw_base(build(), draw, cache)
    with pytest.raises(ValueError, match="nothing for a cache to keep"):
        draw_base(build(), draw, tmp_path / "other.jsonl", each_step=True)
