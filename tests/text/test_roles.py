"""In a conversation of several turns, every turn of the policy is scored, and the others' are context between them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
from sharpwave.episodes import Sentences, Turns, chunk_batch, from_config
from sharpwave.text.rows import chunk_rows, read_rows, roles_in, roles_of

CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "the parcel is lost"},
    {
        "role": "assistant",
        "content": "looking",
        "tool_calls": [{"function": {"name": "find", "arguments": '{"n": 7}'}}],
    },
    {"role": "tool", "content": "parcel seven is in oslo"},
    {"role": "assistant", "content": "it is in oslo"},
    {"role": "user", "content": "thank you so much"},
]


def bag(texts: list[str]) -> np.ndarray:
    """A bag of words: equal words, equal directions."""
    rows = np.full((len(texts), 64), 0.01, np.float32)
    for n, text in enumerate(texts):
        for word in text.lower().split():
            rows[n, sum(map(ord, word.strip(".,!"))) % 64] += 1
    return rows


def test_every_turn_of_a_role_is_scored_and_the_others_are_context_between() -> None:
    batch = chunk_batch(Turns(roles=("Assistant",)), [None], [CHAT])
    assert batch.steps == [
        "the parcel is lost",
        'looking find({"n": 7})',
        "parcel seven is in oslo",
        "it is in oslo",
        "thank you so much",
    ]
    assert batch.context.tolist() == [1]
    assert batch.others.tolist() == [2, 4]
    assert batch.is_scored.tolist() == [False, True, False, True, False]
    assert batch.scored.tolist() == [2]
    assert batch.scored_steps == ['looking find({"n": 7})', "it is in oslo"]
    episode = Turns(roles=("assistant",))(None, CHAT)
    assert episode.scored == batch.scored_steps
    whole = sw.episodes.completion_text(CHAT)
    assert [whole[a:b] for a, b in episode.spans if a >= 0] == batch.scored_steps
    without = chunk_batch(Turns(roles=("assistant",), prompt="none"), [None], [CHAT])
    assert without.steps == batch.scored_steps


def test_no_role_of_the_policy_is_nothing_to_score() -> None:
    batch = chunk_batch(Turns(roles=("agent",)), [None, None], [CHAT, [{"role": "agent", "content": "hello"}]])
    assert batch.scored.tolist() == [0, 1]


def test_roles_are_kept_in_a_configuration() -> None:
    chunker = Sentences(roles=("agent", "bot"))
    assert from_config(json.loads(json.dumps(chunker.config))) == chunker
    for wrong in ("assistant", (), ("",)):
        with pytest.raises(ValueError, match="roles must be"):
            Sentences(roles=wrong)  # pyright: ignore[reportArgumentType]


def test_a_file_says_whether_its_conversations_have_several_turns(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": CHAT[:3], "ok": True, "kind": "mail"}))
    (one,) = read_rows(path)
    assert roles_of([one]) is None
    assert (one.numbers, one.labels) == ({"ok": 1.0}, {"kind": "mail"})
    path.write_text(json.dumps({"messages": CHAT}))
    rows = read_rows(path)
    assert roles_of(rows) == ("assistant",)
    assert roles_in(rows) == ["assistant", "system", "tool", "user"]
    assert chunk_rows(rows * 2, Turns(roles=("assistant",))).others.tolist() == [2, 4, 7, 9]
    assert chunk_rows(rows, Turns()).scored.tolist() == [0]  # the last word is the user's


@pytest.fixture
def store() -> sw.ValueStore:
    store = sw.ValueStore(sw.Config(dim=64, merge_cosine=0.999))
    store.add_channel("good")
    batch = chunk_batch(Turns(roles=("assistant",)), [None], [CHAT])
    store.observe(bag(batch.steps), batch.offsets, drives={"good": np.ones(1)}, texts=batch.steps)
    store.replay()
    return store


@pytest.mark.parametrize("functional", ["coverage", "progress", "mean"])
def test_others_are_remembered_and_never_paid(store: sw.ValueStore, functional: Any) -> None:
    """The reward of a chat is the pay of the policy's turns; the customer's thanks, worth most here, earns nothing."""
    reward = sw.InstrumentalReward(store, bag, Turns(roles=("assistant",)), functional=functional)
    thanked = [*CHAT[:5], {"role": "user", "content": "thank you so much"}]
    ended = CHAT[:5]
    out = reward.score_texts(["a", "b"], [thanked, ended])
    assert out.step[[0, 2, 4]].tolist() == [0, 0, 0]
    assert out.reward[0] == pytest.approx(out.reward[1])
    assert out.reward[0] > 0
    assert out.instrumental[0] == pytest.approx(out.step[:5].sum(), abs=1e-6)
    batch = out.batch
    everything = store.score(bag(batch.steps), batch.offsets, context=batch.context, functional=functional)
    if functional != "mean":
        assert out.step[[1, 3]].tolist() == everything.step[[1, 3]].tolist()
        assert everything.total[0] > out.instrumental[0]
    else:
        assert out.instrumental[1] == pytest.approx((everything.step[6] + everything.step[8]) * 3 / 2, abs=1e-6)
    explained = reward.explain_texts(None, thanked)
    assert [step.pay for step in explained] == pytest.approx(out.step[:5].tolist(), abs=1e-6)
    assert explained[4].memories == []
    assert out.support[0] == pytest.approx(everything.support[[1, 3]].mean())


def test_what_a_user_repeats_is_a_level(store: sw.ValueStore) -> None:
    """The same words earn less after a user has said them."""
    reward = sw.InstrumentalReward(store, bag, Turns(roles=("assistant",)))
    reply = {"role": "assistant", "content": "it is in oslo"}
    hint = {"role": "user", "content": "it is in oslo"}
    first = {"role": "assistant", "content": "yes"}
    said, echoed = reward.score_texts([None, None], [[first, CHAT[1], reply], [first, hint, reply]]).instrumental
    assert said > echoed


def test_potential_cannot_leave_out_turns(store: sw.ValueStore) -> None:
    reward = sw.InstrumentalReward(store, bag, Turns(roles=("assistant",)), functional="potential")
    with pytest.raises(ValueError, match="potential cannot leave out"):
        reward.score_texts([None], [CHAT])


def test_a_terminal_and_a_sharing_table_look_at_the_policy_alone(store: sw.ValueStore) -> None:
    store.add_terminal("thanks", bag(["thank you so much"])[0], 0.0, 1.0)
    chunker = Turns(roles=("assistant",))
    base = ([None] * 3, [CHAT[:5], [*CHAT[:4], {"role": "assistant", "content": "no"}], CHAT[1:3]])
    reward = sw.InstrumentalReward(
        store, bag, chunker, terminal="thanks", base=base, habituation={"episodes": 4, "sharing": True}
    )
    out = reward.score_texts(["a", "b"], [CHAT, CHAT[:5]], learn=True)
    assert out.terminal[0] == out.terminal[1] < 0.5
    assert out.reward[0] == out.reward[1]
    scalar = sw.InstrumentalReward(store, bag, chunker, terminal="good", base=base)
    values = scalar.score_texts(["a", "b"], [CHAT, CHAT[:5]]).terminal
    assert values[0] == values[1]
