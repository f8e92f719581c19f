"""Chunkers: a prompt and a completion become the steps of an episode.

A chunker is called with ``(prompt, completion)`` and returns an `Episode`: the texts of the steps,
how many leading ones are context (the prompt), and where in the completion each step lies, so
that per-step pay can be aligned to tokens (`token_steps`).

Prompts and completions are texts or chat messages (``{"role", "content", "tool_calls"}``; content
may be a str, None or a list of parts). The text of a completion of several messages is their
texts joined by a newline: `completion_text`; spans count its characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Text = str | Sequence[Mapping[str, Any]]
Span = tuple[int, int]

PROMPTS = ("step", "chunks", "none")
NO_SPAN: Span = (-1, -1)


@dataclass(frozen=True)
class Episode:
    """The steps of one episode.

    Attributes:
        steps: the texts, context first.
        context: how many leading steps are prompt.
        spans: ``(start, end)`` of each step in `completion_text`; ``(-1, -1)`` for context.
    """

    steps: list[str]
    context: int
    spans: list[Span]

    @property
    def scored(self) -> list[str]:
        """The steps that are not context."""
        return self.steps[self.context :]


@dataclass(frozen=True)
class Batch:
    """Episodes laid end to end, as a store takes them.

    Attributes:
        steps: the texts of all steps, ΣT.
        offsets: ``(E+1,)`` int64; episode e is ``steps[offsets[e]:offsets[e+1]]``.
        context: ``(E,)`` int64, leading context steps of each episode.
        spans: of all steps, ΣT.
    """

    steps: list[str]
    offsets: NDArray[np.int64]
    context: NDArray[np.int64]
    spans: list[Span] = field(repr=False)

    @property
    def scored(self) -> NDArray[np.int64]:
        """``(E,)`` scored steps of each episode; 0 where nothing can be scored."""
        return np.diff(self.offsets) - self.context

    @property
    def scored_steps(self) -> list[str]:
        """The texts of all steps that are not context."""
        spans = zip(self.offsets[:-1] + self.context, self.offsets[1:], strict=True)
        return [step for first, end in spans for step in self.steps[first:end]]


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
    """

    prompt: str = field(default="step", kw_only=True)
    prompt_words: int = field(default=64, kw_only=True)
    strip_think: bool = field(default=True, kw_only=True)
    max_steps: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
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
        steps = list(self._context(prompt))
        context = len(steps)
        spans = [NO_SPAN] * context
        start = 0
        for text in self._messages(completion):
            kept = hide_think(text) if self.strip_think else text
            for a, b in self.pieces(kept):
                if self.max_steps is not None and len(steps) - context >= self.max_steps:
                    return Episode(steps, context, spans)
                steps.append(" ".join(kept[a:b].replace("\0", " ").split()))
                spans.append((start + a, start + b))
            start += len(text) + 1
        return Episode(steps, context, spans)

    def _messages(self, text: Text) -> list[str]:
        return message_texts(text)

    def _context(self, prompt: Text | None) -> Iterator[str]:
        if prompt is None or self.prompt == "none":
            return
        texts = message_texts(prompt)
        if self.prompt == "chunks":
            for text in texts:
                for a, b in self.pieces(text):
                    yield " ".join(text[a:b].split())
        else:
            words = next((t for t in reversed(texts) if t.strip()), "").split()
            if words:
                yield " ".join(words[-self.prompt_words :])

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
        words = _words(text)
        starts = list(range(0, len(words), self.n))
        if len(starts) > 1 and len(words) - starts[-1] < (self.n + 1) // 2:
            starts.pop()
        for first, last in zip(starts, [*starts[1:], len(words)], strict=False):
            yield words[first][0], words[last - 1][1]


@dataclass(frozen=True)
class Sentences(_Chunker):
    """Sentences; one of more than ``max_words`` words is cut into equal parts.

    A sentence of fewer than ``min_words`` joins the one after it, the last one the one before.
    A truncated last sentence is a step like any other.
    """

    max_words: int = 16
    min_words: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.min_words <= self.max_words:
            raise ValueError(f"1 <= min_words <= max_words must hold, got {self.min_words}, {self.max_words}")

    def pieces(self, text: str) -> Iterator[Span]:
        groups: list[list[Span]] = []
        for words in _sentences(text):
            if groups and len(groups[-1]) < self.min_words:
                groups[-1].extend(words)
            else:
                groups.append(words)
        if len(groups) > 1 and len(groups[-1]) < self.min_words:
            tail = groups.pop()
            groups[-1].extend(tail)
        for words in groups:
            parts = -(-len(words) // self.max_words)
            for part in range(parts):
                some = words[part * len(words) // parts : (part + 1) * len(words) // parts]
                yield some[0][0], some[-1][1]


@dataclass(frozen=True)
class Turns(_Chunker):
    """Chat messages, one step each: assistant turns, tool calls and what the tools answered.

    Args:
        tools: whether answers of tools are steps.
        max_words: a longer message is cut into equal parts; None: never.

    A completion that is a plain text is one turn.
    """

    tools: bool = True
    max_words: int | None = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_words is not None and self.max_words < 1:
            raise ValueError(f"max_words must be at least 1 or None, got {self.max_words}")

    def _messages(self, text: Text) -> list[str]:
        if self.tools or isinstance(text, str):
            return message_texts(text)
        # An answer that is left out still takes its place in the completion's text.
        return [
            "\0" * len(one) if message.get("role") == "tool" else one
            for message, one in zip(text, message_texts(text), strict=True)
        ]

    def pieces(self, text: str) -> Iterator[Span]:
        words = _words(text)
        parts = -(-len(words) // self.max_words) if self.max_words and words else int(bool(words))
        for part in range(parts):
            some = words[part * len(words) // parts : (part + 1) * len(words) // parts]
            yield some[0][0], some[-1][1]


# Texts and words -----------------------------------------------------------------------------

_WORD = re.compile(r"[^\s\0]+")
_LONG_WORD = 64
_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’)\]»]*$")
_ABBREVIATIONS = frozenset("mr. mrs. ms. dr. prof. st. jr. sr. vs. etc. e.g. i.e. no. fig. eq. approx.".split())
_THINK_OPEN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_THINK_CLOSE = re.compile(r"</think(?:ing)?>", re.IGNORECASE)


def _words(text: str) -> list[Span]:
    """Spans of the words; a run without blanks (Chinese, base64) is cut every 64 characters."""
    out: list[Span] = []
    for match in _WORD.finditer(text):
        a, b = match.span()
        while b - a > _LONG_WORD:
            out.append((a, a + _LONG_WORD))
            a += _LONG_WORD
        out.append((a, b))
    return out


def _sentences(text: str) -> Iterator[list[Span]]:
    """Words grouped into sentences: to an end mark, or the end of a line."""
    group: list[Span] = []
    for word in _words(text):
        if group and "\n" in text[group[-1][1] : word[0]]:
            yield group
            group = []
        group.append(word)
        token = text[word[0] : word[1]]
        initial = len(token) == 2 and token[0].isupper() and token[1] == "."
        if _SENTENCE_END.search(token) and not initial and token.lower() not in _ABBREVIATIONS:
            yield group
            group = []
    if group:
        yield group


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


def message_texts(text: Text) -> list[str]:
    """The text of each message; of a plain text, itself."""
    if isinstance(text, str):
        return [text]
    if isinstance(text, Mapping):
        return [_message_text(text, 0)]
    return [_message_text(message, n) for n, message in enumerate(text)]


def completion_text(completion: Text) -> str:
    """The text that an `Episode`'s spans count in: the messages' texts joined by newlines."""
    return "\n".join(message_texts(completion))


def _message_text(message: Any, number: int) -> str:
    if not isinstance(message, Mapping):
        raise TypeError(f"message {number} must be a mapping, got {type(message).__name__}")
    content = message.get("content")
    parts: list[str] = []
    if isinstance(content, str):
        parts.append(content)
    elif isinstance(content, Iterable):
        parts += [str(p.get("text", "")) if isinstance(p, Mapping) else str(p) for p in content]
    elif content is not None:
        parts.append(str(content))
    for call in message.get("tool_calls") or ():
        function = call.get("function", call)
        arguments = function.get("arguments", "")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        parts.append(f"{function.get('name', 'tool')}({arguments})")
    return " ".join(part for part in parts if part)


# Batches and tokens --------------------------------------------------------------------------


def chunk_batch(chunker: Chunker, prompts: Sequence[Text | None], completions: Sequence[Text]) -> Batch:
    """Episodes of ``prompts`` and ``completions``, pair by pair.

    Raises:
        ValueError: the two have different lengths.
    """
    if len(prompts) != len(completions):
        raise ValueError(f"got {len(prompts)} prompts for {len(completions)} completions")
    episodes = [chunker(p, c) for p, c in zip(prompts, completions, strict=True)]
    offsets = np.zeros(len(episodes) + 1, np.int64)
    np.cumsum([len(e.steps) for e in episodes], out=offsets[1:])
    return Batch(
        [step for e in episodes for step in e.steps],
        offsets,
        np.array([e.context for e in episodes], np.int64),
        [span for e in episodes for span in e.spans],
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
    return kinds[kind](**options)
