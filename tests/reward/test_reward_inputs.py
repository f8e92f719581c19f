"""What a reward takes: columns of pandas and Arrow by position, messages of every role, and what cannot be read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
import tiny
from sharpwave.remedies import Drift
from sharpwave.trainers.pointwise import BatchedReward

PROMPTS = [tiny.PROMPT, "And now?", tiny.PROMPT, "And now?"]
NEW = [
    "Anna met Tom at the harbour. They married in spring.",
    "Ben built a boat with Carl. They rowed home at night.",
    "A stranger brought the ring back. They met at the altar.",
    "Lightning split the tree. A dog had taken his shoe.",
]


def reward(**options: Any) -> sw.InstrumentalReward:
    made: dict[str, Any] = {"terminal": tiny.likes_altars, "base": tiny.base(), "learn": "online"}
    return sw.InstrumentalReward(tiny.store(), tiny.embed, **(made | options))


@pytest.fixture(scope="module")
def expected() -> tuple[list[float | None], str]:
    made = reward()
    return made.train()(PROMPTS, NEW), made.store.digest()


def columns() -> dict[str, Any]:
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    rows = list(zip(PROMPTS, NEW, strict=True))
    filtered = pandas.DataFrame([("x", "x"), *rows], columns=["p", "c"])[1:]
    shuffled = pandas.DataFrame(rows, columns=["p", "c"], index=[3, 0, 2, 1])
    return {
        "a filtered frame": (filtered.p, filtered.c),
        "a shuffled frame": (shuffled.p, shuffled.c),
        "an index": (pandas.Index(PROMPTS), pandas.Index(NEW)),
        "categories": (pandas.Categorical(PROMPTS), pandas.Series(NEW, index=[3, 0, 2, 1], dtype="category")),
        "nullable": (pandas.array(PROMPTS, dtype="string"), shuffled.c.astype("string")),
        "object": (shuffled.p.astype(object), shuffled.c.to_numpy(object)),
        "arrow in pandas": (shuffled.p, shuffled.c.astype("string[pyarrow]")),
        "arrow": (arrow.array(PROMPTS), arrow.array(NEW)),
        "chunks": (arrow.chunked_array([PROMPTS[:1], PROMPTS[1:]]), arrow.chunked_array([NEW[:3], NEW[3:]])),
        "numpy": (np.array(PROMPTS), np.array(NEW, object)),
        "iterators": (iter(PROMPTS), iter(NEW)),
    }


KINDS = (
    "a filtered frame|a shuffled frame|an index|categories|nullable|object|arrow in pandas|arrow|chunks|numpy|iterators"
)


@pytest.mark.parametrize("kind", KINDS.split("|"))
def test_order_is_position(kind: str, expected: tuple[list[float | None], str]) -> None:
    made = reward()
    assert made.train()(*columns()[kind]) == expected[0]
    assert made.store.digest() == expected[1]
    if kind != "iterators":
        assert made.submit(*columns()[kind], learn=False).result().batch.steps
        assert reward(base=columns()[kind]).scale.to_dict() == reward(base=(PROMPTS, NEW)).scale.to_dict()


def test_a_table_is_no_column() -> None:
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"p": PROMPTS, "c": NEW})
    made = reward(learn="off")
    for table in (frame, frame[["c"]], arrow.table({"c": NEW}), {"c": NEW}, set(NEW), "text", 5, np.array("text")):
        with pytest.raises(TypeError, match="completions must be a sequence"):
            made(PROMPTS, table)
        with pytest.raises(TypeError, match="prompts must be a sequence"):
            made.score_texts(table, NEW)
        with pytest.raises(TypeError, match="must be a sequence"):
            made.observe_texts(PROMPTS, table)
        with pytest.raises(TypeError, match="must be a sequence"):
            made.submit(PROMPTS, table)


UNREADABLE = [None, float("nan"), 5, b"\xff", ["no message"], [{"role": "assistant", "content": b"\xff"}]]


@pytest.mark.parametrize("chat", [False, True])
def test_one_that_cannot_be_scored_is_none_for_itself(chat: bool, caplog: pytest.LogCaptureFixture) -> None:
    said: list[Any] = [[{"role": "assistant", "content": text}] for text in NEW] if chat else NEW
    prompts = [PROMPTS[0], *UNREADABLE[2:5], *PROMPTS[1:], "And now?", "And now?", "And now?"]
    completions = [said[0], *said[:3], *said[1:], *UNREADABLE[:2], UNREADABLE[5]]
    terminal = (lambda completions: [float("marr" in c[0]["content"]) for c in completions]) if chat else tiny.length
    made, alone = (reward(terminal=terminal, base=None, normalise="none") for _ in range(2))
    got = made.train()(prompts, completions)
    kept = [0, 4, 5, 6]
    assert [n for n, value in enumerate(got) if value is not None] == kept
    assert [got[n] for n in kept] == alone.train()(PROMPTS, said)
    assert made.store.digest() == alone.store.digest()
    for row in set(range(9)) - set(kept):
        assert f"completion {row} cannot be scored" in caplog.text
    assert "completion 0 " not in caplog.text


def test_together_answers_the_others() -> None:
    together = BatchedReward(reward(), wait=0.05)

    async def ask() -> list[Any]:
        return await asyncio.gather(*(together.asked(tiny.PROMPT, said) for said in [NEW[0], None, 5, NEW[1]]))  # type: ignore[arg-type]

    answers = asyncio.run(ask())
    assert [answer["scorable"] for answer in answers] == [1.0, 0.0, 0.0, 1.0]


def test_drift_reads_the_others() -> None:
    many = (tiny.base()[0] * 2, [*tiny.STORIES, *(text + " So it was." for text in tiny.STORIES)])
    drift = Drift(many, tiny.embed)
    reading = drift.read([*PROMPTS, None], [*NEW, None])  # type: ignore[list-item]
    assert reading["empty"] == pytest.approx(0.2)
    assert drift.read(PROMPTS, NEW)["distance"] == pytest.approx(reading["distance"])


@pytest.mark.parametrize("role", ["system", "developer", "user", "tool", "function", "critic", "assistant"])
def test_a_role_pays_only_if_it_is_the_policys(role: str) -> None:
    """The same words, in the middle and at the beginning: they pay where the assistant says them, and only there."""
    made = reward(learn="off", terminal="wedding")
    other = {"role": role, "content": "They married at the altar."}
    own = {"role": "assistant", "content": "The king had three sons."}
    out = made.score_texts([tiny.PROMPT] * 3, [[own], [own, other, own], [other, own]])
    for episode, messages in ((1, [own, other, own]), (2, [other, own])):
        pays, spans = out.pays(episode)
        text = sw.episodes.completion_text(messages)
        said = [text[a:b] for a, b in spans]
        assert (other["content"] in said) == (role == "assistant")
        assert said.count(own["content"]) == sum(message is own for message in messages)
        assert len(pays) == len(said)
        assert (out.terminal[episode] > out.terminal[0] + 0.1) == (role == "assistant")
    if role != "assistant":
        assert out.instrumental[2] <= out.instrumental[0] + 1e-6


def test_base_samples_of_a_file_are_read_as_episodes_are(tmp_path: Any) -> None:
    file = tmp_path / "base.JSON"
    rows = [{"prompt": prompt, "completion": text} for prompt, text in zip(*tiny.base(), strict=True)]
    file.write_text("\ufeff" + json.dumps(rows), "utf-8")
    found = sw.InstrumentalReward.from_config(tiny.described(tiny.store(), base=str(file)))
    assert found.scale.to_dict() == reward(learn="off").scale.to_dict()
    file.write_text('[{"prompt": 5, "completion": "x"}]')
    with pytest.raises(ValueError, match=r"base\.JSON, row 1: prompt"):
        sw.InstrumentalReward.from_config(tiny.described(tiny.store(), base=str(file)))
