"""Chat messages: who says what, in the shapes that data sets, trainers and SDKs give them.

A message is a dict or an object with ``role``, ``content`` and ``tool_calls``. Its content is a text, nothing, a part
or a list of parts. Arrow pads what a row does not have with None, NumPy and pandas make arrays of lists, and both mean
the same here as the lists that they come from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Number
from typing import Any, NamedTuple

from sharpwave import _coerce

Text = str | Sequence[Mapping[str, Any]]

OWN_ROLES = frozenset(("assistant", "model", "gpt", "ai"))
"""Whose words are scored: the policy's, by the names that chat templates and data sets have for it."""
PROMPT_ROLES = frozenset(("system", "developer", "user", "human"))
"""Who prompts it. All others (tool, function, …) answer it."""

_THOUGHTS = frozenset(("thinking", "redacted_thinking", "reasoning"))
_WORDS = ("text", "refusal", "content", "value")


class Unreadable(TypeError, ValueError):
    """Something that is neither a text nor chat messages."""


class Turn(NamedTuple):
    """One message: who said it (None: not told), and its text."""

    role: str | None
    text: str

    @property
    def own(self) -> bool:
        """Whether it can be scored; of a completion, what nobody is named for is the policy's."""
        return self.role is None or self.role in OWN_ROLES


def turns(text: Any) -> list[Turn]:
    """The turns of a text or of chat messages.

    Raises:
        Unreadable: it is neither; the message is named.
    """
    try:
        return _turns(_plain(text))
    except RecursionError:
        raise Unreadable("must be messages, and is nested too deeply") from None


def message_texts(text: Text) -> list[str]:
    """The text of each message; of a plain text, itself."""
    return [turn.text for turn in turns(text)]


def completion_text(completion: Text) -> str:
    """The text that an `Episode`'s spans count in: the messages' texts joined by newlines."""
    return "\n".join(message_texts(completion))


def own_from(said: Sequence[Turn]) -> int:
    """The turn from which on a completion is one.

    A completion that begins with somebody else's turn is a whole conversation: what it completes ends with the last
    turn that prompts the assistant. Otherwise it is all of it, as a trainer that rolls out several turns gives it.
    """
    if not said or said[0].own:
        return 0
    first = next((n for n, turn in enumerate(said) if turn.own), len(said))
    return max(first, _prompted(said)) if _prompted(said) else first


def split_turns(conversation: Any) -> tuple[list[Any], list[Any]]:
    """Chat messages as a prompt, up to the last turn that prompts the assistant, and the completion after it.

    Raises:
        Unreadable: they are no messages, or one does not say who speaks.
    """
    said = turns(conversation)
    silent = next((n for n, turn in enumerate(said) if turn.role is None), None)
    if silent is not None:
        raise Unreadable(f"message {silent} has no role")
    messages = _messages(_plain(conversation))
    return messages[: _prompted(said)], messages[_prompted(said) :]


def _prompted(said: Sequence[Turn]) -> int:
    """How many turns there are to the last that prompts."""
    return max((n for n, turn in enumerate(said, 1) if turn.role in PROMPT_ROLES), default=0)


# Reading ------------------------------------------------------------------------------------


def _turns(text: Any) -> list[Turn]:
    if isinstance(text, str | bytes):
        return [Turn(None, _text(text))]
    if _coerce.missing(text):
        raise Unreadable(f"must be a text or chat messages, got {text!r}")
    return [_turn(_plain(message), n) for n, message in enumerate(_messages(text))]


def _messages(text: Any) -> list[Any]:
    """A list of messages, of one or many."""
    if _is_message(text):
        roles = _field(text, "role")
        if not isinstance(roles, list | tuple):
            return [text]
        # A list of dicts that was kept as a dict of lists, as `datasets` may have it.
        columns = [_field(text, name) for name in ("content", "tool_calls")]
        rows = zip(*([None] * len(roles) if column is None else column for column in columns), strict=False)
        return [{"role": r, "content": c, "tool_calls": t} for r, (c, t) in zip(roles, rows, strict=False)]
    try:
        return _coerce.sequence("", text)
    except TypeError:
        raise Unreadable(f"must be a text or chat messages, got {type(text).__name__}") from None


def _turn(message: Any, number: int) -> Turn:
    if _coerce.missing(message):
        return Turn(None, "")
    if not _is_message(message):
        raise Unreadable(
            f"must be messages: message {number} must be a mapping with role and content, got {type(message).__name__}"
        )
    content = _first(message, "content", "value")
    answer = isinstance(content, Mapping) and not any(name in content for name in ("type", *_WORDS))  # and no part
    parts = [_json(content)] if answer else [*_words(content)]
    parts += _calls(message)
    return Turn(_role(message), " ".join(part for part in parts if part))


def _role(message: Any) -> str | None:
    role = _first(message, "role", "from")
    role = getattr(role, "value", role)  # an enum's
    if role is None and _field(message, "type") in OWN_ROLES | PROMPT_ROLES | {"tool"}:
        role = _field(message, "type")
    return None if role is None else str(role).lower()


def _is_message(thing: Any) -> bool:
    if isinstance(thing, Mapping):
        return True
    return not isinstance(thing, str | bytes) and any(hasattr(thing, name) for name in ("content", "role"))


def _words(content: Any) -> Iterator[str]:
    """The texts in a message's content."""
    content = _plain(content)
    if _coerce.missing(content):
        return
    if isinstance(content, str | bytes):
        yield _text(content)
    elif isinstance(content, Number):
        yield str(content)
    elif isinstance(content, Mapping) or hasattr(content, "type") or hasattr(content, "text"):
        yield from _words_of_part(content)
    elif isinstance(content, Iterable):
        for part in content:
            yield from _words(part)


def _words_of_part(part: Any) -> Iterator[str]:
    kind = _field(part, "type")
    if kind in _THOUGHTS:
        return
    if kind == "tool_use":
        yield _call(part)
        return
    said = _first(part, *_WORDS)
    if said is not None:
        yield from _words(said)


def _calls(message: Any) -> Iterator[str]:
    """What the tools are asked, one text a call."""
    calls = _field(message, "tool_calls")
    if isinstance(calls, str):
        yield calls
    elif isinstance(calls, Mapping):
        yield _call(calls)
    elif not _coerce.missing(calls):
        for call in calls:
            yield _call(_plain(call))
    yield _call(_field(message, "function_call"))


def _call(call: Any) -> str:
    """``name(arguments)``, or nothing of a call that says neither."""
    function = _field(call, "function")
    if _coerce.missing(function):
        function = call
    name = function if isinstance(function, str) else _field(function, "name")
    arguments = _first(function, "arguments", "input", "args")
    if _coerce.missing(name) and arguments is None:
        return ""
    said = "" if arguments is None else arguments if isinstance(arguments, str) else _json(arguments)
    return f"{'tool' if _coerce.missing(name) else name}({said})"


def _json(value: Any) -> str:
    return json.dumps(_without_padding(value), ensure_ascii=False, default=str)


def _without_padding(value: Any) -> Any:
    """A dict without the names that have nothing, as Arrow adds them to make all rows alike."""
    value = _plain(value)
    if isinstance(value, Mapping):
        return {str(name): _without_padding(item) for name, item in value.items() if not _coerce.missing(item)}
    if isinstance(value, list | tuple):
        return [_without_padding(item) for item in value]
    return value


def _field(thing: Any, name: str) -> Any:
    """A field of a dict or an object; None where there is none."""
    found = thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)
    return _plain(found)


def _first(thing: Any, *names: str) -> Any:
    """The first of these fields that there is; None for none."""
    return next((value for value in (_field(thing, name) for name in names) if not _coerce.missing(value)), None)


def _plain(value: Any) -> Any:
    """An Arrow scalar, a NumPy array or scalar, a model of an SDK that is no message, as plain Python."""
    for method in ("as_py", "tolist"):
        if hasattr(value, method):
            return getattr(value, method)()
    return value


def _text(value: str | bytes) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"must be a text, got bytes that are not UTF-8: {error}") from None
