"""verifiers (`import verifiers.v1 as vf`): a reward as the async function that tasks are scored with.

In a config, by name; the file is what `InstrumentalReward.from_config` reads, and `SHARPWAVE_REWARD` names it:

    [env.taskset.task.rewards.sharpwave]
    fn = "sharpwave.trainers.verifiers:reward"

In a task, by hand:

    scored = reward_function(my_reward)

    class Story(vf.Task):
        @vf.reward
        async def sharpwave(self, task, trace):
            return await scored(task, trace)

verifiers scores one trace at a time, all that are ready at once: they are gathered into batches (`pointwise`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from sharpwave._moved import renamed
from sharpwave.reward import InstrumentalReward
from sharpwave.trainers.pointwise import BatchedReward, shared

__all__ = ["BatchedReward", "messages_of", "metric_function", "reward", "reward_function", "support"]

Scoring = Callable[[Any, Any], Coroutine[Any, Any, float]]


async def reward(task: Any, trace: Any) -> float:
    """The reward of the file that ``SHARPWAVE_REWARD`` names."""
    return await _score(shared(), task, trace)


async def support(task: Any, trace: Any) -> float:
    """The support of the same reward: how well the store knows the trace; for use as a metric."""
    together = shared()
    prompt, completion = messages_of(task, trace)
    return (await together.asked(prompt, completion, columns=columns_of(task)))["support"]


def reward_function(
    reward: InstrumentalReward | BatchedReward, *, learn: bool = True, name: str | None = None
) -> Scoring:
    """An async function ``fn(task, trace) -> float`` that verifiers calls; its ``__name__`` is what it is logged under.

    The parts of the score go to ``trace.metrics`` as ``<name>/instrumental`` and so on.

    Args:
        reward: scores the traces.
        learn: whether traces enter the store in the way that the reward's ``learn`` says; not in evaluation.
        name: by default that of the reward.
    """
    together = reward if isinstance(reward, BatchedReward) else BatchedReward(reward)

    async def scored(task: Any, trace: Any) -> float:
        return await _score(together, task, trace, learn, scored.__name__)

    scored.__name__ = scored.__qualname__ = name or together.reward.name
    scored.__doc__ = "What a trace earns from the store."
    return scored


def metric_function(reward: InstrumentalReward | BatchedReward, part: str) -> Scoring:
    """An async function that gives one part of the score: "instrumental", "terminal", "divergence" or "support"."""
    together = reward if isinstance(reward, BatchedReward) else BatchedReward(reward)

    async def measured(task: Any, trace: Any) -> float:
        prompt, completion = messages_of(task, trace)
        return (await together.asked(prompt, completion, columns=columns_of(task)))[part]

    measured.__name__ = measured.__qualname__ = f"{together.reward.name}_{part}"
    return measured


async def _score(together: BatchedReward, task: Any, trace: Any, learn: bool = True, name: str = "sharpwave") -> float:
    prompt, completion = messages_of(task, trace)
    learning = learn and together.reward.training is not False
    parts = await together.asked(prompt, completion, learn=learning, columns=columns_of(task))
    for part, value in parts.items():
        if part != "score":
            trace.record_metric(f"{name}/{part}", value)
    return parts["score"]


def messages_of(task: Any, trace: Any) -> tuple[list[dict[str, Any]] | None, list[dict[str, Any]]]:
    """The prompt and the completion as chat messages: the last branch, cut at the model's first message.

    What tools and users answered later is in it, and is not scored. Reasoning that the provider gives apart is left
    out.
    """
    branches = trace.branches
    nodes = branches[-1].nodes if branches else []
    first = next((n for n, node in enumerate(nodes) if node.sampled), len(nodes))
    given = [_plain(node.message) for node in nodes[:first]]
    if not given and task is not None and getattr(task, "prompt", None):
        given = [{"role": "user", "content": task.prompt_text}]
    return given or None, [_plain(node.message) for node in nodes[first:]]


def _plain(message: Any) -> dict[str, Any]:
    """A message as plain data: role, text, tool calls."""
    data = message.model_dump(mode="json", exclude_none=True)
    found: dict[str, Any] = {"role": data["role"], "content": data.get("content")}
    if data.get("tool_calls"):
        found["tool_calls"] = data["tool_calls"]
    return found


def columns_of(task: Any) -> dict[str, Any]:
    """The task's own data fields, such as ``answer``, as arguments of a terminal."""
    if task is None:
        return {}
    common = {"prompt", "system_prompt", "image", "workdir", "skills", "timeout", "resources", "artifacts"}
    return {name: value for name, value in dict(task).items() if name not in common and value is not None}


__getattr__ = renamed(__name__, {"Together": "BatchedReward"})
