"""One conversation gives one pay, whichever trainer hands it over; what others say amid it earns nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
import tiny
from sharpwave.trainers import openrlhf, pointwise

PROMPT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Tell me of Jane."}]
REPLY = "Jane met a sailor. They talked all night. He asked her to marry him."
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"who": "Jane"}'}}
TURNS: list[dict[str, Any]] = [
    {"role": "assistant", "content": "Anna met Tom at the harbour.", "tool_calls": [CALL]},
    {"role": "tool", "content": "They met at the altar. He asked her to marry him.", "tool_call_id": "1"},
    {"role": "assistant", "content": "They talked until the lamps went out."},
    {"role": "user", "content": "They married in spring. And then?"},
    {"role": "assistant", "content": "He asked her to marry him."},
]
STORE = tiny.store()


def made(**options: Any) -> sw.InstrumentalReward:
    chunker = sw.episodes.Sentences(roles=("assistant",))
    return sw.InstrumentalReward(sw.ValueStore.from_bytes(STORE.to_bytes()), tiny.embed, chunker, **options)


def expected(completion: list[dict[str, Any]]) -> float:
    """By hand: the steps of the conversation in the store, and of their pay the assistant's."""
    reward = made()
    batch = sw.episodes.chunk_batch(reward.chunker, [PROMPT], [completion])
    scores = STORE.score(tiny.embed(batch.steps), batch.offsets, context=batch.context)
    return float(scores.step[batch.is_scored].astype(np.float64).sum())


def by_call(completion: list[dict[str, Any]]) -> float:
    """TRL's GRPO, RLOO and OnlineDPO."""
    (pay,) = made()(prompts=[PROMPT], completions=[completion])
    assert pay is not None
    return pay


def by_verifiers(completion: list[dict[str, Any]]) -> float:
    vf = pytest.importorskip("verifiers.v1")
    from sharpwave.trainers.verifiers import reward_function
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.trace import AgentInfo, Trace, TraceTask
    from verifiers.v1.types import AssistantMessage, SystemMessage, ToolCall, ToolMessage, UserMessage

    class Data(vf.TaskData):
        pass

    class Chat(vf.Task[Data]):
        pass

    def message(data: dict[str, Any]) -> Any:
        if data["role"] == "tool":
            return ToolMessage(content=data["content"], tool_call_id=data["tool_call_id"])
        if data["role"] == "assistant":
            calls = [ToolCall(id=c["id"], **c["function"]) for c in data.get("tool_calls", ())]
            return AssistantMessage(content=data["content"], tool_calls=calls or None)
        return {"system": SystemMessage, "user": UserMessage}[data["role"]](content=data["content"])

    task = Chat(Data(prompt="Tell me of Jane."), None)
    nodes = [
        MessageNode(parent=n - 1 if n else None, message=message(data), sampled=data["role"] == "assistant")
        for n, data in enumerate([*PROMPT, *completion])
    ]
    about = TraceTask(type="Chat", data=task.data, key=task.key, hash=task.hash)
    trace = Trace(task=about, agent=AgentInfo(config=vf.AgentConfig()), nodes=nodes)
    return asyncio.run(reward_function(made())(task.data, trace))


def by_pointwise(completion: list[dict[str, Any]]) -> float:
    """verl's compute_score, and everything else that asks for one sample at a time."""
    return pointwise.BatchedReward(made(), wait=0.0).ask(PROMPT, completion)["score"]


@pytest.mark.parametrize("handed", [by_call, by_verifiers, by_pointwise])
def test_a_conversation_with_tools_and_users_pays_the_same(handed: Any) -> None:
    assert handed(TURNS) == pytest.approx(expected(TURNS), abs=1e-6)


@pytest.mark.parametrize("handed", [by_call, by_verifiers, by_pointwise])
def test_what_others_say_pays_nothing(handed: Any) -> None:
    """The tool and the user say what the store values most; the assistant is paid no more for it."""
    strange = {"role": "assistant", "content": "Zq xv kk."}
    louder = [strange, {"role": "user", "content": tiny.STORIES[1]}, strange]
    quiet = [strange, {"role": "user", "content": "Hm."}, strange]
    own = [strange, {"role": "assistant", "content": tiny.STORIES[1]}, strange]
    assert handed(louder) == pytest.approx(handed(quiet), abs=1e-6)
    assert handed(own) > handed(louder) + 0.01  # the same words of the assistant's


def test_trainers_that_hand_over_text_pay_the_same_for_a_reply() -> None:
    """OpenRLHF's queries are texts, of which the adapter finds the answer."""
    messages = by_call([{"role": "assistant", "content": REPLY}])
    text = made().score_texts(["Tell me of Jane."], [REPLY]).instrumental[0]
    assert messages == pytest.approx(text, abs=1e-6)
    asked = "<|im_start|>user\nTell me of Jane.<|im_end|>\n<|im_start|>assistant\n"
    together = pointwise.BatchedReward(made(), wait=0.0)
    (parts,) = openrlhf.scores(together, [f"{asked}{REPLY}<|im_end|>"], [asked], None, learn=False)
    want = made().score_texts([openrlhf.plain(asked)], [REPLY]).instrumental[0]
    assert parts["score"] == pytest.approx(want, abs=1e-6)
    assert openrlhf.completion_of(f"{asked}{REPLY}<|im_end|>", asked) == REPLY
