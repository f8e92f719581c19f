"""Words and sentences of a text, in any script, by rule: the same everywhere and for ever, as a store needs it.

A word is what stands between blanks. Some scripts write none: there two characters (Chinese, Japanese) or five (Thai,
Lao, Khmer, Burmese, Tibetan) count as a word, about what one has.

A sentence ends with a mark of its script (Unicode's Sentence_Terminal), together with the quotes and brackets that it
closes, or with the line. The marks of ASCII end one only before a blank, or between characters of a script without
blanks; the others do everywhere. Thai and Lao have no marks: their sentences are lines, and a chunker cuts them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from unicodedata import category, combining

Span = tuple[int, int]

LONG_WORD = 64
"""Characters of the longest word; what is longer (base64, an address) is cut."""

# Sentence_Terminal of Unicode, without the marks of ASCII.
TERMINALS = "".join(
    chr(code)
    for first, _, last in (span.partition("-") for span in (
        "589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D5 1803 "
        "1809 1944-1945 1AA8-1AAB 1B4E-1B4F 1B5A-1B5B 1B5E-1B5F 1B7D-1B7F 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 "
        "2CF9-2CFB 2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F "
        "AAF0-AAF1 ABEB FE12 FE15-FE16 FE52 FE56-FE57 FF01 FF0E FF1F FF61"
    ).split())
    for code in range(int(first, 16), int(last or first, 16) + 1)
)  # fmt: skip
_CLOSERS = re.escape("\"'”’)]»›）］｝｠」』】》〉〕〗〙〛｣﹂﹄")
_EAST = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u303c\u3041-\u3096\u309d-\u30fa\u30fc-\u312f\u31a0-\u31bf"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
)
_SOUTH = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua980-\ua9df"
    "\ua9e0-\ua9ff\uaa60-\uaa7f"
)

_RUN = re.compile(r"[^\s\0]+")
_UNSPACED = re.compile(f"[{_EAST}{_SOUTH}]")
_IN_EAST = re.compile(f"[{_EAST}]")
_IN_SOUTH = re.compile(f"[{_SOUTH}]")
_END = re.compile(rf"[.!?…{TERMINALS}]+[{_CLOSERS}]*$")
# Where a sentence ends inside a run. It goes on after a comma or a colon, and where a quotation is a part of it
# (と, って); a full stop between digits or letters ends none.
_INNER_END = re.compile(
    rf"(?:[{TERMINALS}]|(?<=[{_EAST}])[.!?])[.!?…{TERMINALS}]*+[{_CLOSERS}]*+"
    rf"(?![,:;、，：；،—–-]|(?<=[」』])(?:と|って)|(?<=[．﹒])[0-9A-Za-z０-９Ａ-Ｚａ-ｚ])"
)
_ABBREVIATIONS = frozenset("mr. mrs. ms. dr. prof. st. jr. sr. vs. etc. e.g. i.e. no. fig. eq. approx.".split())

# Shares of a word. Two letters of the east, or five of the south, and an opening bracket make one.
_WORD, _EAST_SHARE, _SOUTH_SHARE, _SHARE = 640, 315, 126, 10


def words(text: str, longest: int = LONG_WORD) -> list[Span]:
    """Spans of the words; none is longer than ``longest`` characters."""
    return [(a, b) for a, b, _ in _words(text, longest)]


def sentences(text: str, longest: int = LONG_WORD) -> Iterator[list[Span]]:
    """The spans of the words of each sentence."""
    group: list[Span] = []
    for a, b, may_end in _words(text, longest):
        if group and "\n" in text[group[-1][1] : a]:
            yield group
            group = []
        group.append((a, b))
        token = text[a:b]
        initial = len(token) == 2 and token[0].isupper() and token[1] == "."
        if may_end and _END.search(token) and not initial and token.lower() not in _ABBREVIATIONS:
            yield group
            group = []
    if group:
        yield group


def last_words(text: str, count: int) -> str:
    """The last words of a text, single blanks between them."""
    if _UNSPACED.search(text):
        spans = words(text)[-count:]
        text = text[spans[0][0] :] if spans else ""
        return " ".join(text.split())
    return " ".join(text.split()[-count:])


def parts(spans: list[Span], most: int | None, most_chars: int | None) -> Iterator[Span]:
    """The words of a text in equal parts of at most so many words, and characters with a blank between two words."""
    count = -(-len(spans) // most) if most is not None else int(bool(spans))
    while True:
        cuts = [n * len(spans) // count for n in range(count + 1)] if count else [0]
        some = [spans[a:b] for a, b in pairwise(cuts)]
        if most_chars is None or count >= len(spans) or all(_fits(part, most_chars) for part in some):
            break
        count = min(count + 1 + count // 16, len(spans))
    for part in some:
        yield part[0][0], part[-1][1]


def _fits(spans: list[Span], most_chars: int) -> bool:
    """Whether a step of these words has so many characters at most."""
    if spans[-1][1] - spans[0][0] <= most_chars:
        return True
    blanks = sum(first[1] < second[0] for first, second in pairwise(spans))
    return sum(b - a for a, b in spans) + blanks <= most_chars


def _words(text: str, longest: int) -> Iterator[tuple[int, int, bool]]:
    """Spans of the words, and whether a sentence may end there."""
    plain = text.isascii()
    for run in _RUN.finditer(text):
        a, b = run.span()
        ends = [] if plain else [m.end() for m in _INNER_END.finditer(text, a, b) if m.end() < b]
        for end in [*ends, b]:
            unspaced = not plain and _UNSPACED.search(text, a, end) is not None
            cuts = list(_cuts(text, a, end, longest)) if unspaced else [*range(a + longest, end, longest), end]
            for cut in cuts:
                yield a, cut, cut == end or not unspaced
                a = cut


def _cuts(text: str, a: int, b: int, longest: int) -> Iterator[int]:
    """Where the words of a stretch without blanks end. Marks stay with the letter before them, as do closing signs."""
    used = 0
    begun = a
    for at in range(a, b):
        kind = category(text[at])
        share = _EAST_SHARE if _IN_EAST.match(text, at) else _SOUTH_SHARE if _IN_SOUTH.match(text, at) else _SHARE
        if kind[0] == "M":
            share = _SHARE
        clings = kind[0] == "M" or kind in ("Lm", "Pe", "Pf", "Po") or combining(text[at - 1]) == 9  # a virama joins
        opens = kind in ("Ps", "Pi") and used > _SHARE
        if at > begun and (at - begun >= longest or used + share > (2 * _WORD if clings else _WORD) or opens):
            yield at
            begun, used = at, 0
        used += share
    yield b
