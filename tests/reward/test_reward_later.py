"""What is scored beside the training is what would have been scored in turn; in TRL's own trainers too."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
import tiny
from served import Server
from sharpwave.reward import AsyncReward
from sharpwave.text.host import Collected, to_device

torch = pytest.importorskip("torch")
TOLD = ["Jane met a sailor. They married in spring.", "The cat slept. It stole the fish.", "A storm came. They rowed."]
PROMPTS = [tiny.PROMPT] * len(TOLD)


class Counting:
    """The embedder of tiny, with a cache and a count of what it had to embed."""

    checked_embedder = True

    def __init__(self) -> None:
        self.cache = sw.embed.EmbeddingCache()
        self.embedded: list[str] = []

    def __call__(self, texts: list[str], /) -> Any:
        def compute(missing: list[str]) -> Any:
            self.embedded += missing
            return tiny.embed(missing)

        return self.cache.embed("tiny", texts, compute)


def made(**options: Any) -> sw.InstrumentalReward:
    return sw.InstrumentalReward(tiny.store(), tiny.embed, learn="online", base=tiny.base(), **options)


def test_what_is_submitted_is_scored_and_learned_in_turn() -> None:
    one, other = made(), made()
    later = [one.submit([tiny.PROMPT], [text]) for text in TOLD * 3]
    for future, text in zip(later, TOLD * 3, strict=True):
        np.testing.assert_array_equal(future.result().reward, other.score_texts([tiny.PROMPT], [text]).reward)
    assert one.store.digest() == other.store.digest()
    failing = one.submit([tiny.PROMPT], [])
    with pytest.raises(ValueError, match="prompts"):
        failing.result()
    assert pickle.loads(pickle.dumps(one)).store.digest() == one.store.digest()


def test_what_was_prepared_is_not_embedded_again() -> None:
    embedder = Counting()
    reward = sw.InstrumentalReward(tiny.store(), embedder, base=tiny.base())
    finished = [reward.prepare([tiny.PROMPT], [text]) for text in TOLD]
    assert [future.result() for future in finished] == [3, 3, 2]
    before = len(embedder.embedded)
    out = reward.score_texts(PROMPTS, TOLD, learn=False)
    assert len(embedder.embedded) == before
    np.testing.assert_array_equal(out.reward, made().score_texts(PROMPTS, TOLD, learn=False).reward)
    with pytest.raises(ValueError, match="a cache"):
        made().prepare(PROMPTS, TOLD)


def test_coroutine_rewards_take_their_time_together() -> None:
    """Two that wait for each other come to an end only if neither blocks the loop."""
    met = threading.Barrier(2)

    def meets(completions: list[str], **_: object) -> list[float]:
        met.wait(timeout=60)
        return [0.0] * len(completions)

    first, second = (
        sw.InstrumentalReward(tiny.store(), tiny.embed, terminal=meets, normalise="none") for _ in range(2)
    )
    rewards = [first.asynchronous(), second.asynchronous()]

    async def both() -> list[Any]:
        return await asyncio.gather(*(reward(PROMPTS, TOLD) for reward in rewards))

    assert [len(found) for found in asyncio.run(both())] == [3, 3]
    assert rewards[0].__name__ == "sharpwave"
    copied = pickle.loads(pickle.dumps(made().eval().asynchronous()))
    assert isinstance(copied, AsyncReward)
    assert asyncio.run(copied(PROMPTS, TOLD)) == made().eval()(PROMPTS, TOLD)


def test_rows_are_collected_in_their_places() -> None:
    rows = Collected(4, 2, "cpu")
    rows.put([3, 0], torch.tensor([[3.0, 3.0], [0.0, 0.0]], dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="2 of 4 rows"):
        rows.finish()
    rows.put([1, 2], to_device(torch.tensor([[1.0, 1.0], [2.0, 2.0]]), "cpu"))
    np.testing.assert_array_equal(rows.finish(), [[0, 0], [1, 1], [2, 2], [3, 3]])


@pytest.mark.cuda
def test_rows_come_back_from_a_device_without_waiting() -> None:
    values = torch.randn(64, 8, 16)
    rows, order = Collected(512, 16, "cuda"), np.random.default_rng(0).permutation(512)
    for n, part in enumerate(values):
        rows.put(order[8 * n : 8 * n + 8].tolist(), to_device(part, "cuda") * 2)
    np.testing.assert_array_equal(rows.finish()[order], values.reshape(-1, 16).numpy() * 2)


# TRL


def test_grpo_gathers_the_reward_with_other_coroutines(tmp_path: Path) -> None:
    import tiny_trl
    from sharpwave.trainers.trl import SharpwaveCallback
    from trl import GRPOConfig, GRPOTrainer

    async def judge(completions: list[str], **_: object) -> list[float]:
        await asyncio.sleep(0)
        return [float(len(text) % 3) for text in completions]

    def run(reward: sw.InstrumentalReward, function: Any) -> Any:
        trainer = GRPOTrainer(
            tiny_trl.model(),
            reward_funcs=[function, judge],
            args=tiny_trl.arguments(GRPOConfig, tmp_path),
            train_dataset=tiny_trl.dataset(),
            processing_class=tiny_trl.tokenizer(),
            callbacks=[SharpwaveCallback(reward)],
        )
        trainer.train()
        return trainer

    one, other = (made(terminal=tiny.length) for _ in range(2))
    later, blocking = run(one, one.asynchronous()), run(other, other)
    for name in ("rewards/sharpwave/mean", "sharpwave/instrumental", "loss"):
        assert tiny_trl.logged(later, name) == tiny_trl.logged(blocking, name)
    assert one.store.digest() == other.store.digest()
    assert len(one.store) > len(tiny.store())


def chat_tokenizer() -> Any:
    """With a template that TRL knows how to read tool calls from."""
    import tiny_trl
    from trl.chat_template_utils import qwen3_chat_template

    tokenizer = tiny_trl.tokenizer()
    tokenizer.chat_template = qwen3_chat_template
    return tokenizer


def score_in_child(given: list[bytes], told: list[str], answers: Any) -> None:
    """What the child that AsyncGRPO spawns does with a finished group: TRL's own loop, made of what it pickles."""
    from accelerate import PartialState
    from trl.experimental.async_grpo.async_rollout_worker import RolloutGroup, _AsyncRolloutLoop

    PartialState(cpu=True)
    context = multiprocessing.get_context("spawn")
    shared = {
        "rollout_buffer": context.Queue(),
        "model_version_value": context.Value("i", 0),
        "heartbeat_value": context.Value("d", 0.0),
        "failed_event": context.Event(),
        "exception_info_queue": context.Queue(),
        "metrics_queue": context.Queue(),
    }
    count = len(told)
    sequence = type("Sequence", (), {"input_ids": [5], "completion_mask": [1], "old_log_probs": [0.0]})
    for arguments in given:
        loop = _AsyncRolloutLoop(**pickle.loads(arguments), **shared)
        group = RolloutGroup(
            prompts=[[{"role": "user", "content": tiny.PROMPT}]] * count,
            reward_kwargs={"answer": ["altar"] * count},
            completions=[[{"role": "assistant", "content": text}] for text in told],
            completions_ids=[[5, 6]] * count,
            completions_sequences=[[sequence()]] * count,
            tool_call_counts=[0] * count,
            tool_failure_counts=[0] * count,
            model_version=0,
            group_id=0,
            env_rewards=[None] * count,
            rollout_rewards=[None] * count,
        )
        samples = loop._loop.run_until_complete(loop._score_group(group))
        answers.put([sample.metrics["rewards/sharpwave"] for sample in samples])


def test_asyncgrpo_pickles_the_address_of_a_shared_store(tmp_path: Path) -> None:
    """Its child scores and learns through the server; the callback in the trainer's process sleeps the same store.

    Generation is vLLM's, which runs on no CPU box: what is run here is TRL's own loop from its constructor to the
    scored samples of a group, in a spawned process.
    """
    import tiny_trl

    here = made().train()
    with Server(tmp_path / "store", dim=tiny.DIM) as server:
        client = server.client()
        client.become(tiny.store())
        reward = sw.InstrumentalReward(client, tiny.embed, learn="online", base=tiny.base()).train()
        arguments = {
            "model_name": "tiny",
            "dataset": tiny_trl.dataset(chat=True),
            "processing_class": chat_tokenizer(),
            "eos_token_ids": [1],
        }
        functions: list[Any] = [reward, reward.asynchronous()]
        given = [pickle.dumps({**arguments, "reward_funcs": [function]}) for function in functions]
        context = multiprocessing.get_context("spawn")
        answers = context.Queue()
        child = context.Process(target=score_in_child, args=(given, TOLD, answers))
        child.start()
        chats = [[{"role": "assistant", "content": text}] for text in TOLD]
        for _ in functions:
            expected = here([[{"role": "user", "content": tiny.PROMPT}]] * len(TOLD), [*chats])
            assert answers.get(timeout=300) == expected
        child.join()
        assert client.digest() == here.store.digest()  # what the child learned
        reward.sleep()
        here.sleep()
        assert client.digest() == here.store.digest()


class Diary:
    """An environment that owns its reward: what was said in it is scored when the conversation is over."""

    reward: sw.InstrumentalReward

    def reset(self, **_: Any) -> None:
        self.said: list[str] = []

    def write(self, line: str) -> str:
        """Write a line into the diary.

        Args:
            line: what to write.
        """
        self.said.append(line)
        return f"{len(self.said)} lines"

    def get_reward(self) -> float:
        """Of the whole diary; it is learned."""
        out = self.reward.score_texts([tiny.PROMPT], [" ".join(self.said) or "Nothing was written."], learn=True)
        return float(out.reward[0])


def test_an_environment_owns_the_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    import tiny_trl
    from trl import GRPOConfig, GRPOTrainer

    Diary.reward = made().train()
    before = Diary.reward.store.digest()
    trainer = GRPOTrainer(
        tiny_trl.model(),
        environment_factory=Diary,
        args=tiny_trl.arguments(GRPOConfig, tmp_path),
        train_dataset=tiny_trl.dataset(chat=True),
        processing_class=chat_tokenizer(),
    )
    trainer.train()
    assert len(tiny_trl.logged(trainer, "rewards/Diary/mean")) == 2
    assert Diary.reward.store.digest() != before
