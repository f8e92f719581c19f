"""Requests of many threads are answered together: errors, cancellation, size, forks, and `BatchedReward`."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Hashable
from concurrent.futures import CancelledError, Future

import numpy as np
import pytest
import sharpwave as sw
import tiny
from sharpwave._batching import MicroBatcher
from sharpwave.trainers.pointwise import BatchedReward


def doubled(_: Hashable, questions: list[int]) -> list[int]:
    return [2 * question for question in questions]


def made(respond: object = doubled, **options: object) -> MicroBatcher[int, int]:
    return MicroBatcher(respond, **{"wait": 0.0, "most": 64, "name": "test", **options})  # type: ignore[arg-type]


def held() -> tuple[MicroBatcher[int, int], threading.Event, threading.Event, list[list[int]]]:
    """A batcher that is busy with question 0 until it is let go."""
    begun, go, seen = threading.Event(), threading.Event(), list[list[int]]()

    def respond(_: Hashable, questions: list[int]) -> list[int]:
        seen.append(questions)
        if questions == [0]:
            begun.set()
            go.wait(60)
        return doubled(None, questions)

    batcher = made(respond)
    batcher.submit(0)
    assert begun.wait(60)
    return batcher, begun, go, seen


def test_what_waits_is_answered_together_by_group_and_up_to_a_size() -> None:
    batcher, _, go, seen = held()
    batcher.most = 4
    first = [batcher.submit(n, "odd" if n % 2 else "even") for n in range(1, 5)]
    large = batcher.submit(9, "even", size=9)
    go.set()
    assert [answer.result(60) for answer in [*first, large]] == [2, 4, 6, 8, 18]
    assert seen == [[0], [1, 3], [2, 4], [9]]
    batcher.close()
    with pytest.raises(RuntimeError, match="test is closed"):
        batcher.submit(1)


def test_what_was_cancelled_is_left_out_and_what_is_being_answered_cannot_be() -> None:
    batcher, _, go, seen = held()
    waiting = [batcher.submit(n) for n in (1, 2, 3)]
    assert waiting[1].cancel()
    go.set()
    assert waiting[0].result(60) == 2
    assert waiting[2].result(60) == 6
    assert seen[1] == [1, 3]
    assert not waiting[0].cancel()
    with pytest.raises(CancelledError):
        waiting[1].result()


@pytest.mark.parametrize("fails", [False, True])
def test_the_thread_survives_cancels_at_every_moment(fails: bool) -> None:
    """Whoever cancels races with the thread; one lost race and it would be gone, and nobody would be answered."""

    def respond(_: Hashable, questions: list[int]) -> list[int]:
        if fails:
            raise KeyError("no")
        return doubled(None, questions)

    batcher = made(respond)
    lost: list[Future[int]] = []

    def press(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for n in range(1500):
            answer = batcher.submit(n, n % 3)
            if rng.random() < 0.7:
                answer.cancel()
            lost.append(answer)

    threads = [threading.Thread(target=press, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batcher.close()
    assert all(answer.done() for answer in lost)
    kept = [answer for answer in lost if not answer.cancelled()]
    assert len(kept) > 500
    assert all((answer.exception() is not None) is fails for answer in kept)


def test_an_error_reaches_those_who_asked_and_the_thread_lives_on() -> None:
    def respond(_: Hashable, questions: list[int]) -> list[int]:
        if 7 in questions:
            raise SystemExit(3)
        return questions[:1]

    batcher = made(respond)
    with pytest.raises(SystemExit):
        batcher.submit(7).result(60)
    assert batcher.submit(1).result(60) == 1
    batcher.wait = 60.0
    batcher.most = 2
    two = [batcher.submit(n) for n in (1, 2)]
    for answer in two:
        with pytest.raises(RuntimeError, match="test has 1 answers for 2 questions"):
            answer.result(60)


def test_an_answer_that_is_an_exception_is_raised_for_its_question_alone() -> None:
    def respond(_: Hashable, questions: list[int]) -> list[int | BaseException]:
        return [ValueError("odd") if question % 2 else question for question in questions]

    batcher = made(respond, wait=60.0, most=2)
    odd, even = batcher.submit(1), batcher.submit(2)
    assert even.result(60) == 2
    with pytest.raises(ValueError, match="odd"):
        odd.result(60)


def test_a_batch_begins_when_as_many_ask_as_the_last_time() -> None:
    batcher, _, go, seen = held()
    batcher.expects_as_many = True
    first = [batcher.submit(n) for n in (1, 2, 3)]
    go.set()
    assert [answer.result(60) for answer in first] == [2, 4, 6]
    batcher.wait = 3600.0  # the clock never ends a batch from here on
    again = [batcher.submit(n) for n in (4, 5, 6)]
    assert [answer.result(60) for answer in again] == [8, 10, 12]
    assert seen == [[0], [1, 2, 3], [4, 5, 6]]


def test_a_fork_in_the_middle_of_a_question_leaves_the_child_a_batcher_of_its_own() -> None:
    batcher, _, go, _ = held()
    waiting = batcher.submit(1)
    with batcher._changed:  # a lock that another thread holds at that moment
        child = os.fork()
        if child == 0:
            os._exit(0 if batcher.submit(4).result(60) == 8 and not waiting.done() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go.set()
    assert waiting.result(60) == 2


# BatchedReward


def test_together_survives_event_loops_that_give_up() -> None:
    """A cancelled task cancels its question, whenever it comes."""
    together = BatchedReward(sw.InstrumentalReward(tiny.store(), tiny.embed), wait=0.0, sleep_every=0)

    async def ask(text: str, patience: float) -> float | None:
        try:
            return (await asyncio.wait_for(together.asked(tiny.PROMPT, text), patience))["score"]
        except TimeoutError:
            return None

    async def many() -> list[float | None]:
        return await asyncio.gather(*(ask(tiny.STORIES[n % 8], 0.0005 * (n % 9) or 60.0) for n in range(180)))

    with np.errstate(all="raise"):
        found = asyncio.run(many())
    expected = together.reward.score_texts([tiny.PROMPT] * 8, tiny.STORIES).reward
    answered = [(n, score) for n, score in enumerate(found) if score is not None]
    assert len(answered) >= 20
    for n, score in answered:
        assert score == pytest.approx(float(expected[n % 8]))
    assert together.ask(tiny.PROMPT, tiny.STORIES[1])["scorable"] == 1.0


def test_a_question_that_is_being_scored_cannot_be_cancelled() -> None:
    """It could, between a check and the answer, and that ended the thread."""
    begun, go = threading.Event(), threading.Event()

    def embed(texts: list[str]) -> np.ndarray:
        begun.set()
        assert go.wait(60)
        return tiny.embed(texts)

    together = BatchedReward(sw.InstrumentalReward(tiny.store(), embed), wait=0.0)
    answer = together.submit(tiny.PROMPT, tiny.STORIES[0])
    assert begun.wait(60)
    cancelled = answer.cancel()
    go.set()
    assert not cancelled
    assert answer.result(60)["scorable"] == 1.0
