"""Micro-batching: requests of many threads, answered in one call."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sharpwave._fork import renewed_in_children

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(eq=False)
class PendingRequest(Generic[Q, A]):
    """A question that waits, and the future of its answer."""

    question: Q
    group: Hashable
    size: int
    answer: Future[A] = field(default_factory=lambda: Future())


class MicroBatcher(Generic[Q, A]):
    """A thread that answers whatever waits, all of it at once; it begins with the first question.

    While one batch is answered, the next questions gather by themselves. A question can be cancelled while it waits;
    once it is being answered it cannot. A process that was forked has a thread of its own, and answers none of the
    questions that waited in its parent.

    Args:
        respond: a group and its questions, in the order in which they came, to as many answers. An answer that is an
            exception is raised for its question; an exception that it raises, for each of the group.
        wait: seconds that the first of a batch waits for others, at most.
        most: the sum of sizes in one batch; what is more waits for the next. A larger question goes alone.
        name: of the thread.
        expects_as_many: stop waiting as soon as there are as many questions as in the last batch. Callers in a loop,
            which ask again when they are answered, then wait for each other and not for the clock.
    """

    def __init__(
        self,
        respond: Callable[[Hashable, list[Q]], Sequence[A | BaseException]],
        *,
        wait: float,
        most: int,
        name: str,
        expects_as_many: bool = False,
    ) -> None:
        self.respond, self.wait, self.most, self.name = respond, wait, most, name
        self.expects_as_many = expects_as_many
        self._after_fork()
        renewed_in_children(self)

    def _after_fork(self) -> None:
        """Begin, or begin again: a parent's threads are not here, and its locks may be held by them for ever."""
        self._waiting: deque[PendingRequest[Q, A]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._last = 1

    def submit(self, question: Q, group: Hashable = None, size: int = 1) -> Future[A]:
        """Ask, and go on. Questions of equal groups are answered in one call.

        Raises:
            RuntimeError: it was closed.
        """
        pending: PendingRequest[Q, A] = PendingRequest(question, group, size)
        with self._changed:
            if self._closed:
                raise RuntimeError(f"{self.name} is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
                self._thread.start()
            self._waiting.append(pending)
            self._changed.notify()
        return pending.answer

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while batch := self._gather():
            groups: dict[Hashable, list[PendingRequest[Q, A]]] = {}
            for pending in batch:
                if pending.answer.set_running_or_notify_cancel():  # from here on nobody can cancel it
                    groups.setdefault(pending.group, []).append(pending)
            for group, members in groups.items():
                self._respond(group, members)

    def _gather(self) -> list[PendingRequest[Q, A]]:
        """The next batch; none when there is nothing left and it was closed."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
            end = time.monotonic() + self.wait
            while self._waits_for_more() and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            self._last = max(1, len(self._waiting))
            batch: list[PendingRequest[Q, A]] = []
            size = 0
            while self._waiting and (not batch or size + self._waiting[0].size <= self.most):
                batch.append(self._waiting.popleft())
                size += batch[-1].size
            return batch

    def _waits_for_more(self) -> bool:
        if self._closed or (self.expects_as_many and len(self._waiting) >= self._last):
            return False
        return sum(pending.size for pending in self._waiting) < self.most

    def _respond(self, group: Hashable, members: list[PendingRequest[Q, A]]) -> None:
        try:
            answers = self.respond(group, [pending.question for pending in members])
            if len(answers) != len(members):
                raise RuntimeError(f"{self.name} has {len(answers)} answers for {len(members)} questions")
        except BaseException as error:  # noqa: BLE001 — told to those who asked; the thread lives on
            for pending in members:
                pending.answer.set_exception(error)
            return
        for pending, answer in zip(members, answers, strict=True):
            if isinstance(answer, BaseException):
                pending.answer.set_exception(answer)
            else:
                pending.answer.set_result(answer)
