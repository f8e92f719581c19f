"""Scoring, searching and valuing together: what many ask at once becomes one call of the store.

One pass over the memories answers many queries in little more time than one, and what a store answers does not depend
on what else was asked in the same call: so everybody gets, to the bit, what a call of their own would have given.

Requests that differ in an option (k, weights, a functional, …) go in different calls. One that habituates goes alone,
since its table is its own; and so does each of a batch that was refused, so that an error names the caller's own rows
and reaches nobody else.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave.serve.verbs import VERBS, Data
from sharpwave.store import ValueStore

SCORED = ("step", "support", "edge", "redundancy", "ids", "phi", "similarity")
"""What a score gives by step; the rest is by episode."""


@dataclass
class Asked:
    """One request.

    Attributes:
        group: requests of equal groups may share a call; None: alone.
        rows: (n, d) what it asks about.
    """

    verb: str
    arguments: Data
    group: Hashable
    rows: NDArray[np.float32]
    offsets: NDArray[np.int64] | None = None
    context: NDArray[np.int64] | None = None
    future: Future[Data] = field(default_factory=lambda: Future())


def asked(store: ValueStore, verb: str, arguments: Data) -> Asked:
    """A request, checked as far as it has to be to stand beside others.

    Raises:
        TypeError, ValueError, KeyError: naming the argument.
    """
    VERBS[verb].checked(arguments)
    if verb != "score":
        rows = _coerce.batch("queries", arguments["queries"], store.dim)
        options = {name: value for name, value in arguments.items() if name != "queries"}
        if verb == "search":
            nprobe = options.get("nprobe")
            options = {
                "k": _coerce.count("k", options.get("k", 16)),
                "nprobe": None if nprobe is None else _coerce.count("nprobe", nprobe),
            }
        return Asked(verb, {"queries": rows, **options}, (verb, *sorted(options.items())), rows)
    rows = _coerce.rows("steps", arguments["steps"], store.dim)
    offsets = _coerce.offsets(arguments.get("offsets"), len(rows))
    context = _coerce.context(arguments.get("context", True), len(offsets) - 1)
    weights = arguments.get("weights")
    weighed = None if weights is None else _coerce.weights(weights, store.channels)
    options: Data = {
        "weights": weighed,
        "functional": _coerce.string("functional", arguments.get("functional", "coverage")),
        "discount": _coerce.number("discount", arguments.get("discount", 1.0)),
        "details": _coerce.flag("details", arguments.get("details", False)),
    }
    group: Hashable = None
    sound = offsets[0] == 0 and offsets[-1] == len(rows) and bool((np.diff(offsets) >= 0).all())
    if arguments.get("habituation") is None and sound:
        named = None if weighed is None else weighed.tobytes()
        group = (verb, named, options["functional"], options["discount"], options["details"])
    held = {"steps": rows, "offsets": offsets, "context": context, **options}
    if arguments.get("habituation") is not None:
        held["habituation"] = arguments["habituation"]
    return Asked(verb, held, group, rows, offsets, context)


class Batcher:
    """A thread that answers what waits, all of it at once.

    While one call is answered the next requests gather by themselves. A caller that asks again as soon as it is
    answered comes a moment later than the thread is free: the thread waits for as many as came the last time, but not
    longer than `linger`.

    Args:
        most: rows in one call; what is more waits for the next.
        linger: seconds.
        told: called with the number of requests and of rows of each call.
    """

    def __init__(
        self,
        store: ValueStore,
        *,
        most: int = 8192,
        linger: float = 0.004,
        told: Callable[[int, int], None] | None = None,
    ) -> None:
        self.store, self.most, self.linger, self.told = store, most, linger, told
        self._waiting: deque[Asked] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._expected = 1
        self._thread = threading.Thread(target=self._work, name="sharpwave-batches", daemon=True)
        self._thread.start()

    def submit(self, request: Asked) -> Future[Data]:
        """The answer, when it is there."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the store is no longer served")
            self._waiting.append(request)
            self._changed.notify()
        return request.future

    def close(self) -> None:
        """Answer what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while requests := self._gather():
            groups: dict[Hashable, list[Asked]] = {}
            for request in requests:
                if request.future.set_running_or_notify_cancel():
                    alone = request.group is None
                    groups.setdefault(id(request) if alone else request.group, []).append(request)
            for group in groups.values():
                self._answer(group)

    def _gather(self) -> list[Asked]:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            end = perf_counter() + self.linger
            while len(self._waiting) < self._expected and not self._closed:
                if not self._changed.wait(end - perf_counter()) and perf_counter() >= end:
                    break
            self._expected = max(1, len(self._waiting))
            requests: list[Asked] = []
            rows = 0
            while self._waiting and (not requests or rows + len(self._waiting[0].rows) <= self.most):
                requests.append(self._waiting.popleft())
                rows += len(requests[-1].rows)
            return requests

    def _answer(self, group: Sequence[Asked]) -> None:
        if self.told is not None:
            self.told(len(group), sum(len(request.rows) for request in group))
        try:
            answers = together(self.store, group)
        except Exception as error:  # noqa: BLE001 — told to whoever asked
            if len(group) == 1:
                group[0].future.set_exception(error)
                return
            for request in group:
                self._answer([request])
            return
        for request, answer in zip(group, answers, strict=True):
            request.future.set_result(answer)


def together(store: ValueStore, group: Sequence[Asked]) -> list[Data]:
    """The answers to requests of one group, in one call."""
    first = group[0]
    if len(group) == 1:
        return [VERBS[first.verb].run(store, first.arguments)]
    rows = np.concatenate([request.rows for request in group])
    ends = np.cumsum([0, *(len(request.rows) for request in group)])
    if first.verb != "score":
        found = VERBS[first.verb].run(store, {**first.arguments, "queries": rows})
        return [{name: array[a:b] for name, array in found.items()} for a, b in pairwise(ends)]
    spans = [_given(request.offsets) for request in group]
    contexts = [_given(request.context) for request in group]
    offsets = np.concatenate([[0], *(span[1:] + end for span, end in zip(spans, ends, strict=False))])
    joined = {"steps": rows, "offsets": offsets, "context": np.concatenate(contexts)}
    parts = VERBS["score"].run(store, {**first.arguments, **joined})
    episodes = np.cumsum([0, *map(len, contexts)])
    answers: list[Data] = []
    for n, (span, context) in enumerate(zip(spans, contexts, strict=True)):
        answer: Data = {"total": parts["total"][episodes[n] : episodes[n + 1]]}
        answer |= {name: parts[name][ends[n] : ends[n + 1]] for name in SCORED if name in parts}
        answers.append({**answer, "offsets": span, "context": context})
    return answers


def _given(array: NDArray[np.int64] | None) -> NDArray[np.int64]:
    assert array is not None
    return array
