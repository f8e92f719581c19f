"""Chunkers: a prompt and a completion become the steps of an episode.

A chunker is called with ``(prompt, completion)`` and returns an `Episode`: the texts of the steps,
how many leading ones are context (the prompt), and where in the completion each step lies, so
that per-step pay can be aligned to tokens (`token_steps`).

Prompts and completions are texts or chat messages (``{"role", "content", "tool_calls"}``, or objects with such
attributes; content may be a str, None, a part or a list of parts). The text of a completion of several messages is
their texts joined by a newline: `completion_text`; spans count its characters.

Only what the assistant says is scored (`messages.Turn.own`). A completion that begins with somebody else's turn is a
whole conversation: all of it to the last turn of a user or the system is prompt. What tools and users say later is no
step; it keeps its place in the completion's text.

With ``roles`` every turn of these roles is scored, wherever it stands in the conversation. The other turns are context
steps between them: they are remembered and set levels, and earn nothing (`Batch.others`, `Scores.without`).
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import InitVar, asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave._show import shown
from sharpwave.text import segment
from sharpwave.text.messages import Text, Turn, Unreadable, completion_text, message_texts, own_from, turns
from sharpwave.text.segment import Span

__all__ = [
    "NO_SPAN",
    "Batch",
    "Chunker",
    "Episode",
    "Sentences",
    "Span",
    "Text",
    "Turns",
    "Unreadable",
    "Words",
    "chunk_batch",
    "completion_text",
    "from_config",
    "hide_think",
    "message_texts",
    "pairs",
    "strip_think",
    "token_steps",
]

PROMPTS = ("step", "chunks", "none")
NO_SPAN: Span = (-1, -1)

_log = logging.getLogger("sharpwave")


@dataclass(frozen=True)
class Episode:
    """The steps of one episode.

    Attributes:
        steps: the texts, context first.
        context: how many leading steps are prompt.
        spans: ``(start, end)`` of each step in `completion_text`; ``(-1, -1)`` for context.
        others: which steps after the first ``context`` are somebody else's turns, and context too.
    """

    steps: list[str]
    context: int
    spans: list[Span]
    others: list[int] = field(default_factory=list[int])

    @property
    def scored(self) -> list[str]:
        """The steps that are not context."""
        others = set(self.others)
        return [step for n, step in enumerate(self.steps) if n >= self.context and n not in others]


@dataclass(frozen=True)
class Batch:
    """Episodes laid end to end, as a store takes them.

    Attributes:
        steps: the texts of all steps, ΣT.
        offsets: ``(E+1,)`` int64; episode e is ``steps[offsets[e]:offsets[e+1]]``.
        context: ``(E,)`` int64, leading context steps of each episode.
        spans: of all steps, ΣT.
        others: the rows of `steps` that are somebody else's turns after the leading context, ascending.
    """

    steps: list[str]
    offsets: NDArray[np.int64]
    context: NDArray[np.int64]
    spans: list[Span] = field(repr=False)
    others: NDArray[np.int64] = field(repr=False, default_factory=lambda: np.empty(0, np.int64))

    @property
    def is_scored(self) -> NDArray[np.bool_]:
        """``(ΣT,)`` whether a step is not context."""
        counts = np.diff(self.offsets)
        scored = np.arange(len(self.steps)) >= np.repeat(self.offsets[:-1] + self.context, counts)
        scored[self.others] = False
        return scored

    def own(self) -> Iterator[NDArray[np.int64]]:
        """The rows of each episode's scored steps."""
        scored = self.is_scored
        for first, end in zip(self.offsets[:-1], self.offsets[1:], strict=True):
            yield first + np.flatnonzero(scored[first:end])

    @property
    def scored(self) -> NDArray[np.int64]:
        """``(E,)`` scored steps of each episode; 0 where nothing can be scored."""
        before = np.concatenate([[0], np.cumsum(self.is_scored)])
        return np.diff(before[self.offsets])

    @property
    def scored_steps(self) -> list[str]:
        """The texts of all steps that are not context."""
        return [self.steps[row] for row in np.flatnonzero(self.is_scored)]


class Chunker(Protocol):
    """``(prompt, completion)`` to an `Episode`."""

    def __call__(self, prompt: Text | None, completion: Text, /) -> Episode: ...


@dataclass(frozen=True)
class _Chunker:
    """What all chunkers share: prompt, ``<think>`` blocks, messages.

    Args:
        prompt: ``"step"``: the prompt (of chat messages the last) is one context step, its last
            ``prompt_words`` words; ``"chunks"``: all of it is chunked into context steps;
            ``"none"``: it is left out.
        strip_think: leave ``<think>…</think>`` out of the steps; an unclosed block is left out to
            its end, and so is everything before a ``</think>`` whose opening was in the prompt.
        max_steps: of the completion; the rest is cut (None: all). An 8,000-token completion is
            about 500 steps of 12 words.
        roles: the roles of the policy in a conversation of several turns; each turn of theirs is scored, and what the
            others say between them is context, by the rule of ``prompt``. None: the assistant's names; of a whole
            conversation only the reply to its last prompt is scored.
    """

    prompt: str = field(default="step", kw_only=True)
    prompt_words: int = field(default=64, kw_only=True)
    strip_think: bool = field(default=True, kw_only=True)
    max_steps: int | None = field(default=None, kw_only=True)
    roles: tuple[str, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.roles is not None:
            object.__setattr__(self, "roles", _roles(self.roles))
        if self.prompt not in PROMPTS:
            raise ValueError(f"prompt must be one of {PROMPTS}, got {self.prompt!r}")
        if self.prompt_words < 1:
            raise ValueError(f"prompt_words must be at least 1, got {self.prompt_words}")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1 or None, got {self.max_steps}")

    def pieces(self, text: str) -> Iterator[Span]:
        """Spans of the steps of one message's text, in order, without surrounding blanks."""
        raise NotImplementedError

    def __call__(self, prompt: Text | None, completion: Text, /) -> Episode:
        said = turns(completion)
        begin = own_from(said) if self.roles is None else next((n for n, t in enumerate(said) if self._own(t)), 0)
        steps = list(self._context([*([] if prompt is None else turns(prompt)), *said[:begin]]))
        context = len(steps)
        spans = [NO_SPAN] * context
        others: list[int] = []
        start = 0
        for number, turn in enumerate(said):
            if number >= begin and self._own(turn):
                kept = hide_think(turn.text) if self.strip_think else turn.text
                for a, b in self.pieces(kept):
                    if self.max_steps is not None and len(steps) - context - len(others) >= self.max_steps:
                        return Episode(steps, context, spans, others)
                    steps.append(_step(kept[a:b]))
                    spans.append((start + a, start + b))
            elif number >= begin and self.roles is not None:
                for step in self._context([turn]):
                    others.append(len(steps))
                    steps.append(step)
                    spans.append(NO_SPAN)
            start += len(turn.text) + 1
        return Episode(steps, context, spans, others)

    def _own(self, turn: Turn) -> bool:
        return turn.own if self.roles is None else turn.role is None or turn.role in self.roles

    def _context(self, said: Sequence[Turn]) -> Iterator[str]:
        if self.prompt == "none":
            return
        if self.prompt == "chunks":
            for turn in said:
                for a, b in self.pieces(turn.text):
                    yield _step(turn.text[a:b])
        else:
            last = next((turn.text for turn in reversed(said) if turn.text.strip()), "")
            words = segment.last_words(last, self.prompt_words)
            if words:
                yield _step(words)

    @property
    def config(self) -> dict[str, Any]:
        """Plain data from which `from_config` builds this chunker again."""
        return {"kind": type(self).__name__.lower(), **asdict(self)}


@dataclass(frozen=True)
class Words(_Chunker):
    """Fixed windows of ``n`` words; a tail of fewer than half a window joins the last one."""

    n: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}")

    def pieces(self, text: str) -> Iterator[Span]:
        words = segment.words(text)
        starts = list(range(0, len(words), self.n))
        if len(starts) > 1 and len(words) - starts[-1] < (self.n + 1) // 2:
            starts.pop()
        for first, last in zip(starts, [*starts[1:], len(words)], strict=False):
            yield words[first][0], words[last - 1][1]


@dataclass(frozen=True)
class Sentences(_Chunker):
    """Sentences; one of more than ``max_words`` words, or ``max_chars`` characters, is cut into equal parts.

    A sentence of fewer than ``min_words`` joins the one after it, the last one the one before.
    A truncated last sentence is a step like any other. Where a script writes no blanks, two characters (Chinese,
    Japanese) or five (Thai, Khmer, …) count as a word; see `segment`.
    """

    max_words: int = 16
    min_words: int = 3
    max_chars: int | None = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.min_words <= self.max_words:
            raise ValueError(f"1 <= min_words <= max_words must hold, got {self.min_words}, {self.max_words}")
        _check_chars(self.max_chars)

    def pieces(self, text: str) -> Iterator[Span]:
        groups: list[list[Span]] = []
        for words in segment.sentences(text, _longest(self.max_chars)):
            if groups and len(groups[-1]) < self.min_words:
                groups[-1].extend(words)
            else:
                groups.append(words)
        if len(groups) > 1 and len(groups[-1]) < self.min_words:
            tail = groups.pop()
            groups[-1].extend(tail)
        for words in groups:
            yield from segment.parts(words, self.max_words, self.max_chars)


@dataclass(frozen=True)
class Turns(_Chunker):
    """Chat messages, one step each: what the assistant says, and the tool calls it makes.

    Args:
        tools: deprecated and without effect: what tools answer is never a step.
        max_words: a longer message is cut into equal parts; None: never.
        max_chars: likewise, in characters.

    A completion that is a plain text is one turn.
    """

    tools: InitVar[bool | None] = None
    max_words: int | None = 128
    max_chars: int | None = None

    def __post_init__(self, tools: bool | None = None) -> None:  # noqa: RUF033 (as the base can be called)
        super().__post_init__()
        if tools is not None:
            message = "Turns(tools=) has no effect, and goes with the next version: leave it out"
            warnings.warn(message, DeprecationWarning, stacklevel=3)
        if self.max_words is not None and self.max_words < 1:
            raise ValueError(f"max_words must be at least 1 or None, got {self.max_words}")
        _check_chars(self.max_chars)

    def pieces(self, text: str) -> Iterator[Span]:
        return segment.parts(segment.words(text, _longest(self.max_chars)), self.max_words, self.max_chars)


def _check_chars(most: int | None) -> None:
    if most is not None and most < 1:
        raise ValueError(f"max_chars must be at least 1 or None, got {most}")


def _longest(most: int | None) -> int:
    """The longest word that steps of so many characters can be made of."""
    return segment.LONG_WORD if most is None else min(most, segment.LONG_WORD)


def _roles(roles: Sequence[str]) -> tuple[str, ...]:
    """Names of roles, in small letters as turns have them."""
    if isinstance(roles, str) or not roles or not all(isinstance(role, str) and role.strip() for role in roles):
        raise ValueError(f"roles must be a list of names such as ['assistant'], or None; got {roles!r}")
    return tuple(role.strip().lower() for role in roles)


# Texts ----------------------------------------------------------------------------------------

_THINK_OPEN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_THINK_CLOSE = re.compile(r"</think(?:ing)?>", re.IGNORECASE)


def _step(text: str) -> str:
    """The text of a step: single blanks, and nothing that UTF-8 cannot hold."""
    step = " ".join(text.replace("\0", " ").split())
    return step if step.isascii() else _coerce.SURROGATE.sub("\ufffd", step)


def hide_think(text: str) -> str:
    """``text`` with every ``<think>`` block replaced by as many NUL characters.

    Characters keep their places, so spans stay true. A block without an end reaches to the end of
    the text; an end without a beginning hides what is before it.
    """
    out: list[str] = []
    place = 0
    close = _THINK_CLOSE.search(text)
    opening = _THINK_OPEN.search(text)
    if close and (opening is None or close.start() < opening.start()):
        out.append("\0" * close.end())
        place = close.end()
    while opening := _THINK_OPEN.search(text, place):
        close = _THINK_CLOSE.search(text, opening.end())
        end = close.end() if close else len(text)
        out.append(text[place : opening.start()])
        out.append("\0" * (end - opening.start()))
        place = end
    out.append(text[place:])
    return "".join(out)


def strip_think(text: str) -> str:
    """``text`` without its ``<think>`` blocks, as `hide_think` finds them."""
    return hide_think(text).replace("\0", "").strip()


# Batches and tokens --------------------------------------------------------------------------


def pairs(prompts: Any, completions: Any) -> tuple[list[Text | None], list[Text]]:
    """Prompts and completions as lists, by position, whatever sequences they come in; a missing prompt is None.

    A pair that cannot be read (a completion that is missing; one of the two is no text and no chat messages) becomes an
    empty completion, which cannot be scored; the log says which and why.

    Raises:
        TypeError: one of them is no sequence.
        ValueError: the two have different lengths.
    """
    asked, said = _coerce.sequence("prompts", prompts), _coerce.sequence("completions", completions)
    if len(asked) != len(said):
        raise ValueError(f"got {len(asked)} prompts for {len(said)} completions")
    unread: list[int] = []
    for row, (prompt, completion) in enumerate(zip(asked, said, strict=True)):
        asked[row] = None if _coerce.missing(prompt) else prompt
        try:
            for text in (completion,) if asked[row] is None else (completion, prompt):
                if not isinstance(text, str):
                    turns(text)
        except Unreadable as error:
            _log.warning("completion %d cannot be scored: it, or its prompt, %s", row, shown(str(error)))
            asked[row] = None
            unread.append(row)
    read = next((text for row, text in enumerate(said) if row not in unread), "")
    for row in unread:
        said[row] = "" if isinstance(read, str) else [{"role": "assistant", "content": ""}]
    return asked, said


def chunk_batch(chunker: Chunker, prompts: Sequence[Text | None], completions: Sequence[Text]) -> Batch:
    """Episodes of ``prompts`` and ``completions``, pair by pair; one that cannot be read has no step (`pairs`).

    Raises:
        TypeError: one of the two is no sequence.
        ValueError: the two have different lengths.
    """
    episodes = [chunker(p, c) for p, c in zip(*pairs(prompts, completions), strict=True)]
    offsets = np.zeros(len(episodes) + 1, np.int64)
    np.cumsum([len(e.steps) for e in episodes], out=offsets[1:])
    return Batch(
        [step for e in episodes for step in e.steps],
        offsets,
        np.array([e.context for e in episodes], np.int64),
        [span for e in episodes for span in e.spans],
        np.array(
            [first + n for first, e in zip(offsets[:-1].tolist(), episodes, strict=True) for n in e.others], np.int64
        ),
    )


def token_steps(spans: Sequence[Span], tokens: Any) -> NDArray[np.int64]:
    """The step of each token of a completion; −1 for a token of no step.

    Args:
        spans: of an episode's steps (context ones are skipped, and keep their numbers).
        tokens: ``(n, 2)`` first and end character of each token in the completion's text, as
            tokenizers' ``return_offsets_mapping`` gives them. A token belongs to the step that
            it overlaps; a blank between steps belongs to none.
    """
    pairs = np.asarray(tokens, np.int64).reshape(-1, 2)
    out = np.full(len(pairs), -1, np.int64)
    numbers = [n for n, (a, b) in enumerate(spans) if b > a >= 0]
    if not numbers:
        return out
    starts = np.array([spans[n][0] for n in numbers], np.int64)
    ends = np.array([spans[n][1] for n in numbers], np.int64)
    place = np.searchsorted(ends, pairs[:, 0], side="right")
    inside = np.minimum(place, len(numbers) - 1)
    hit = (place < len(numbers)) & (starts[inside] < pairs[:, 1]) & (pairs[:, 1] > pairs[:, 0])
    out[hit] = np.array(numbers, np.int64)[inside[hit]]
    return out


def from_config(config: Mapping[str, Any] | str) -> Chunker:
    """A chunker from plain data: ``{"kind": "words", "n": 12}``, or its kind alone."""
    options: dict[str, Any] = {"kind": config} if isinstance(config, str) else dict(config)
    kinds: dict[str, type[_Chunker]] = {"words": Words, "sentences": Sentences, "turns": Turns}
    kind = str(options.pop("kind", "sentences")).lower()
    if kind not in kinds:
        raise ValueError(f"chunker kind must be one of {sorted(kinds)}, got {kind!r}")
    if kind == "turns":
        options.pop("tools", None)  # which earlier versions wrote, and which has no effect
    return kinds[kind](**options)
