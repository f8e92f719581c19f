"""Terminals: what an episode is worth in the end, as one number.

A terminal is any trainer-style reward function, a channel of the store by its name, or nothing.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave.reward.measure import Scorable
from sharpwave.reward.warn import Once
from sharpwave.view import View

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Request:
    """What a terminal may look at.

    Attributes:
        prompts, completions: as the trainer gave them, E each.
        columns: everything else the trainer gave, by keyword.
        scorable: the episodes that can be scored, embedded.
        view: the store at this moment.
    """

    prompts: Sequence[Any]
    completions: Sequence[Any]
    columns: Mapping[str, Any]
    scorable: Scorable
    view: View


class FunctionTerminal:
    """A trainer-style reward function: ``f(prompts=, completions=, **columns) -> list[float | None]``.

    It is given those of the trainer's keywords that it takes. A coroutine function is run to its end.

    Raises:
        TypeError: not callable.

    Warns:
        RuntimeWarning: a value was NaN or infinite, and counts as None; once.
    """

    saturates = False

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        if not callable(function):
            raise TypeError(
                f"terminal must be a reward function, a channel's name or None, got {type(function).__name__}"
            )
        self.function = function
        self.name = name or function_name(function)
        self._once = Once(f"terminal {self.name!r}")

    def __call__(self, request: Request) -> Floats:
        """(E,) the values, NaN for None and for what is not finite.

        Raises:
            ValueError: the wrong number of values.
            TypeError: no list of values, or a value that is no number.
        """
        offered = {**request.columns, "prompts": request.prompts, "completions": request.completions}
        values = finished(self.function(**_accepted(self.function, offered)))
        return numbers(self._once, values, len(request.completions))


class ChannelTerminal:
    """A channel of the store.

    An embedding channel gives the highest cosine of a scored step to the terminal, saturated at the channel's range:
    0 at its low, 1 at its high and beyond, so that saying the terminal itself is worth no more than the best of the
    base. A scalar channel gives the trainer's column of the same name where there is one, and else what the store
    expects: Φ of the last step.
    """

    def __init__(self, name: str, view: View) -> None:
        if name not in view.channels:
            raise KeyError(f"terminal: no channel {name!r}, there are {view.channels}")
        self.name = name
        self.saturates = name not in view.scalar_channels
        self._once = Once(f"column {name!r}")

    def __call__(self, request: Request) -> Floats:
        """(E,) values in [0, 1] of an embedding channel, any of a scalar one; NaN where there is nothing to look at."""
        scorable = request.scorable
        out = np.full(len(scorable.kept), np.nan)
        if not self.saturates:
            column = request.columns.get(self.name)
            if column is not None:
                return numbers(self._once, column, len(request.completions))
            last = [int(rows[-1]) for rows in scorable.own()]
            values, _ = request.view.value(scorable.steps[last])
            out[scorable.kept] = values[:, request.view.channels.index(self.name)]
            return out
        low, high = request.view.channel_ranges[self.name]
        length = np.sqrt(np.einsum("nd,nd->n", scorable.steps, scorable.steps))
        cosines = scorable.steps @ request.view.terminal_key(self.name) / length
        best = [cosines[rows].max() for rows in scorable.own()]
        out[scorable.kept] = np.clip((np.array(best, np.float64) - low) / (high - low), 0.0, 1.0)
        return out


Terminal = FunctionTerminal | ChannelTerminal


def as_terminal(terminal: Any, view: View) -> Terminal | None:
    """What a ``terminal=`` argument stands for."""
    if terminal is None or isinstance(terminal, FunctionTerminal | ChannelTerminal):
        return terminal
    return ChannelTerminal(terminal, view) if isinstance(terminal, str) else FunctionTerminal(terminal)


def one_each(who: str, values: Any, count: int) -> list[Any]:
    """What a reward function returned, as a list with one value a completion.

    Raises:
        TypeError: it is no list of values.
        ValueError: they are not ``count``.
    """
    found = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(found, str | bytes | Mapping) or not isinstance(found, Iterable):
        raise TypeError(
            f"{who} must return a list with one number or None for each of {count} completions, got {_shown(values)}"
        )
    listed = list(found)
    if len(listed) != count:
        raise ValueError(f"{who} returned {len(listed)} values for {count} completions")
    return listed


def numbers(once: Once, values: Any, count: int) -> Floats:
    """`one_each` as floats (count,): NaN for None and, with a warning, for NaN and infinity.

    Raises:
        TypeError, ValueError: as `one_each`; or a value is no number.
    """
    found = np.full(count, np.nan)
    for row, value in enumerate(one_each(once.name, values, count)):
        if value is not None:
            found[row] = _number(once, row, value)
    return found


def _number(once: Once, row: int, value: Any) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        number = np.inf
    except (TypeError, ValueError):
        raise TypeError(
            f"{once.name} must return numbers or None, one a completion; for completion {row} it returned "
            f"{_shown(value)}"
        ) from None
    if np.isfinite(number):
        return number
    once.say("finite", f"the value of completion {row} is {number}, which counts as None")
    return np.nan


def _shown(value: Any) -> str:
    """A value in an error: its type and a short form of it."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def function_name(function: Any) -> str:
    """A stable name of a callable: its own, or that of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def value_range(values: Floats) -> tuple[float, float]:
    """A range for the values of a terminal: [0, 1] where they all lie in it, else from the least to the greatest."""
    finite = values[np.isfinite(values)]
    if not len(finite) or (finite.min() >= 0.0 and finite.max() <= 1.0):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _accepted(function: Any, offered: dict[str, Any]) -> dict[str, Any]:
    """Those of the keywords on offer that a function takes."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin
        return offered
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return offered
    return {parameter.name: offered[parameter.name] for parameter in parameters if parameter.name in offered}


def finished(result: Any) -> Any:
    """A coroutine's result; also where an event loop already runs in this thread."""
    if not inspect.iscoroutine(result):
        return result
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(result)
    box: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            box.append(asyncio.run(result))
        except BaseException as error:  # noqa: BLE001 — raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return box[0]
