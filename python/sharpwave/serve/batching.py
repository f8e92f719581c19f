"""Scoring, searching and valuing together: concurrent requests become one call of the store.

One pass over the memories answers many queries in little more time than one, and the answer of a store does not depend
on the other queries of a call: each request gets, to the bit, the answer that a call of its own would give.

Requests that differ in an option (k, weights, a functional, …) go in different calls. A request with a habituation goes
alone, since the table is its own; and so does each request of a group that was refused, so that an error names the
caller's own rows and reaches no other caller.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave._batching import MicroBatcher
from sharpwave.serve.verbs import VERBS, Data
from sharpwave.store import ValueStore

STEPWISE = ("step", "support", "edge", "redundancy", "ids", "phi", "similarity")
"""Fields of a score with one entry per step; the others have one per episode."""


@dataclass
class Query:
    """One request, with the arguments of its verb as they are sent, and `offsets` of a score."""

    verb: str
    arguments: Data

    @property
    def rows(self) -> NDArray[np.float32]:
        """(n, d) the queries, or the steps to score."""
        return self.arguments["steps" if self.verb == "score" else "queries"]


def prepared(store: ValueStore, verb: str, arguments: Data) -> tuple[Query, Hashable]:
    """A request, checked as far as a shared call needs, and its group: requests of equal groups may share a call.

    Raises:
        TypeError, ValueError, KeyError: naming the argument.
    """
    held = VERBS[verb].coerced(store, VERBS[verb].checked(arguments))
    query = Query(verb, held)
    alone = "habituation" in held
    if verb == "score":
        offsets = held.setdefault("offsets", _coerce.offsets(None, len(held["steps"])))
        alone |= offsets[0] != 0 or offsets[-1] != len(held["steps"]) or bool((np.diff(offsets) < 0).any())
    if alone:
        return query, object()
    shared = {name: value for name, value in held.items() if name not in ("queries", "steps", "offsets", "context")}
    return query, (verb, *((name, _hashable(value)) for name, value in shared.items()))


def _hashable(value: Any) -> Hashable:
    return value.tobytes() if isinstance(value, np.ndarray) else value


class QueryBatcher:
    """Answers requests together, in one thread.

    Args:
        most: rows in one call; further requests wait for the next.
        linger: seconds that a request waits for others, at most.
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
        self.store, self.told = store, told
        self._batcher: MicroBatcher[Query, Data] = MicroBatcher(
            self._answers, wait=linger, most=most, name="sharpwave-batches", expects_as_many=True
        )

    def submit(self, verb: str, arguments: Data) -> Future[Data]:
        """The future answer of a batched verb."""
        query, group = prepared(self.store, verb, arguments)
        return self._batcher.submit(query, group, len(query.rows))

    def close(self) -> None:
        """Answer the requests that wait, and end the thread."""
        self._batcher.close()

    def _answers(self, group: Hashable, queries: list[Query]) -> Sequence[Data | BaseException]:
        if self.told is not None:
            self.told(len(queries), sum(len(query.rows) for query in queries))
        try:
            return together(self.store, queries)
        except Exception as error:  # noqa: BLE001 — raised for the caller whose rows are wrong
            return [error] if len(queries) == 1 else [self._answers(group, [query])[0] for query in queries]


def together(store: ValueStore, queries: Sequence[Query]) -> list[Data]:
    """The answers to requests of one group, in one call."""
    verb, arguments = VERBS[queries[0].verb], queries[0].arguments
    if len(queries) == 1:
        return [verb.run(store, arguments)]
    rows = np.concatenate([query.rows for query in queries])
    ends = np.cumsum([0, *(len(query.rows) for query in queries)])
    if verb.name != "score":
        found = verb.run(store, {**arguments, "queries": rows})
        return [{name: array[a:b] for name, array in found.items()} for a, b in pairwise(ends)]
    spans = [query.arguments["offsets"] for query in queries]
    contexts = [query.arguments["context"] for query in queries]
    offsets = np.concatenate([[0], *(span[1:] + end for span, end in zip(spans, ends, strict=False))])
    joined = {"steps": rows, "offsets": offsets, "context": np.concatenate(contexts)}
    parts = verb.run(store, {**arguments, **joined})
    episodes = np.cumsum([0, *map(len, contexts)])
    answers: list[Data] = []
    for n, (span, context) in enumerate(zip(spans, contexts, strict=True)):
        answer: Data = {"total": parts["total"][episodes[n] : episodes[n + 1]]}
        answer |= {name: parts[name][ends[n] : ends[n + 1]] for name in STEPWISE if name in parts}
        answers.append({**answer, "offsets": span, "context": context})
    return answers
