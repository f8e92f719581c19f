"""verifiers' own task, trace and loader score with the reward: by hand, by name, and many at once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
import tiny
import verifiers.v1 as vf
from sharpwave.trainers import pointwise
from sharpwave.trainers.verifiers import BatchedReward, messages_of, metric_function, reward_function
from verifiers.v1.graph import MessageNode
from verifiers.v1.trace import AgentInfo, Trace, TraceTask
from verifiers.v1.types import AssistantMessage, ToolCall, ToolMessage, UserMessage

STORY = "Jane met a sailor. They talked all night. He asked her to marry him."


class Data(vf.TaskData):
    answer: str = ""


class Story(vf.Task[Data]):
    pass


def made(learn: Any = "off", **options: Any) -> sw.InstrumentalReward:
    return sw.InstrumentalReward(
        tiny.store(), tiny.embed, terminal=tiny.likes_altars, learn=learn, base=tiny.base(), **options
    )


def task(kind: Any = Story, config: Any = None, prompt: str = tiny.PROMPT) -> Any:
    return kind(Data(prompt=prompt, answer="altar"), config)


def trace(task: Any, *texts: str) -> Trace:
    """A trace as rollouts leave them: the prompt, then a sampled message for each text, each after the one before."""
    nodes = [MessageNode(message=UserMessage(content=task.data.prompt))]
    nodes += [
        MessageNode(parent=n, message=AssistantMessage(content=text), sampled=True) for n, text in enumerate(texts)
    ]
    about = TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
    return Trace(task=about, agent=AgentInfo(config=vf.AgentConfig()), nodes=nodes)


def test_a_task_is_scored_by_the_reward_and_tells_its_parts() -> None:
    reward = made()
    score_of, support_of = reward_function(reward), metric_function(reward, "support")

    class Rewarded(vf.Task[Data]):
        @vf.reward(weight=0.5)
        async def sharpwave(self, task: Any, trace: Any) -> float:
            return await score_of(task, trace)

        @vf.metric
        async def known(self, task: Any, trace: Any) -> float:
            return await support_of(task, trace)

    one = task(Rewarded)
    told = trace(one, STORY)
    asyncio.run(one.score(told))
    out = reward.score_texts([[{"role": "user", "content": tiny.PROMPT}]], [[{"role": "assistant", "content": STORY}]])
    score = told.rewards["sharpwave"]
    assert score is not None
    assert score.score == pytest.approx(float(out.reward[0]))
    assert told.reward == pytest.approx(0.5 * float(out.reward[0]))
    assert told.metrics["sharpwave/instrumental"] == pytest.approx(float(out.standardised["instrumental"][0]))
    for name in ("known", "sharpwave/support"):  # the metric of its own, and the part of the reward
        assert told.metrics[name] == pytest.approx(float(out.support[0]))
    assert told.metrics["sharpwave/scorable"] == 1


def test_it_is_plugged_by_name_from_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.store().save(tmp_path / "store.safetensors")
    described = tiny.described(str(tmp_path / "store.safetensors"))
    (tmp_path / "reward.json").write_text(json.dumps(described))
    monkeypatch.setenv(pointwise.CONFIG, str(tmp_path / "reward.json"))
    config = vf.TaskConfig.model_validate(
        {
            "rewards": {"sharpwave": {"fn": "sharpwave.trainers.verifiers:reward", "weight": 2.0}},
            "metrics": {"known": {"fn": "sharpwave.trainers.verifiers:support"}},
        }
    )
    one = task(config=config)
    told = trace(one, STORY)
    asyncio.run(one.score(told))
    pointwise.forget()
    out = made().score_texts([[{"role": "user", "content": tiny.PROMPT}]], [[{"role": "assistant", "content": STORY}]])
    assert told.reward == pytest.approx(2 * float(out.reward[0]))
    assert told.metrics["known"] == pytest.approx(float(out.support[0]))


def test_a_config_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pointwise.CONFIG, raising=False)
    with pytest.raises(ValueError, match=pointwise.CONFIG):
        pointwise.shared()


def test_what_is_asked_at_once_is_scored_together() -> None:
    together = BatchedReward(made(), wait=0.05)
    fn = reward_function(together)

    async def all_of_them() -> list[float]:
        traces = [(one := task()) and (one.data, trace(one, story)) for story in tiny.STORIES]
        return await asyncio.gather(*(fn(data, told) for data, told in traces))

    scores = asyncio.run(all_of_them())
    assert together.batches == 1
    prompts = [[{"role": "user", "content": tiny.PROMPT}]] * len(tiny.STORIES)
    alone = made().score_texts(prompts, [[{"role": "assistant", "content": story}] for story in tiny.STORIES])
    np.testing.assert_allclose(scores, np.nan_to_num(alone.reward), atol=1e-6)


def test_turns_and_tool_calls_are_scored_and_what_tools_answer_is_not() -> None:
    one = task()
    told = trace(one, "Anna met Tom.", "He asked her.")
    call = ToolCall(id="1", name="look", arguments='{"at": "sea"}')
    told.nodes[1].message = AssistantMessage(content=None, tool_calls=[call])
    told.nodes.insert(2, MessageNode(parent=1, message=ToolMessage(tool_call_id="1", content="A storm.")))
    told.nodes[3].parent = 2
    prompt, completion = messages_of(one.data, told)
    assert prompt == [{"role": "user", "content": tiny.PROMPT}]
    assert [message["role"] for message in completion] == ["assistant", "tool", "assistant"]
    assert completion[0]["tool_calls"][0]["name"] == "look"
    steps = sw.episodes.Turns()(prompt, completion)
    assert steps.scored == ['look({"at": "sea"})', "He asked her."]


@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_traces_are_learned_in_training_only(mode: str) -> None:
    reward = made(learn="online")
    if mode == "evaluation":
        reward.eval()
    before = reward.store.episodes_observed
    one = task()
    asyncio.run(reward_function(reward)(one.data, trace(one, STORY)))
    assert reward.store.episodes_observed == before + (mode == "training")


def test_an_empty_trace_scores_as_nothing_and_an_error_reaches_who_asked() -> None:
    one = task()
    told = trace(one, "")
    assert asyncio.run(reward_function(made())(one.data, told)) == 0.0
    assert told.metrics["sharpwave/scorable"] == 0

    def broken(texts: list[str]) -> np.ndarray:
        if any("dragon" in text for text in texts):
            raise RuntimeError("no dragons here")
        return tiny.embed(texts)

    together = BatchedReward(sw.InstrumentalReward(tiny.store(), broken))
    with pytest.raises(RuntimeError, match="no dragons"):
        together.ask(tiny.PROMPT, "A dragon came by.")
    assert together.ask(tiny.PROMPT, "A sailor came by.")["scorable"] == 1  # the thread lives on


def test_the_store_sleeps_after_so_many_samples() -> None:
    reward = made(learn="propose")
    together = BatchedReward(reward, sleep_every=4)
    for story in tiny.STORIES[:4]:
        together.ask(tiny.PROMPT, story, learn=True)
    together.ask(tiny.PROMPT, STORY)
    assert reward.last_sleep is not None
    assert reward.last_sleep.observed == 4
    assert reward.store.episodes_proposed == 0
