"""What looks wrong about episodes of texts before anything is learned from them, in one line each."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from sharpwave.text import segment
from sharpwave.text.chunkers import Batch, Text

FEW_WORDS = 2
"""A median step of so many words is hardly ever meant."""
MOST = 0.9
"""The share of episodes with a single step that is worth a warning."""
ENOUGH = 4
"""Episodes, or steps, below which nothing is said."""

_OTHER = r"user|human|customer|client|system"
_OWN = r"assistant|ai|bot|agent|support"
_LINE = "(?:^|\\n)[ \\t>*_#-]*(?i:{0})[*_]*[ \\t]*:|(?<![\\w-])(?:{1}):"
_SPEAKERS = [
    re.compile(_LINE.format(names, "|".join(name.capitalize() for name in names.split("|"))))
    for names in (_OTHER, _OWN)
]
_MARKS = re.compile(r"<\|(?:im_start|start_header_id|user|assistant)\|>|\[/?INST\]|<start_of_turn>")


def is_joined(text: Text) -> bool:
    """Whether a text looks like a conversation of several speakers in one string."""
    if not isinstance(text, str):
        return False
    return _MARKS.search(text) is not None or all(speaker.search(text) for speaker in _SPEAKERS)


def joined_warnings(completions: Sequence[Text]) -> list[str]:
    """A sentence if half of the completions are conversations in one string."""
    count = sum(map(is_joined, completions))
    if 2 * count < len(completions) or not count:
        return []
    message = (
        f"{count} of {len(completions)} texts look like whole conversations in one string, so what the others say in "
        'them is scored too: give chat messages, [{"role": "user", "content": …}, …]'
    )
    return [message]


def short_warnings(batch: Batch) -> list[str]:
    """A sentence if half of the steps are of one or two words."""
    words = [len(segment.words(step)) for step in batch.scored_steps]
    if len(words) < ENOUGH or np.median(words) > FEW_WORDS:
        return []
    message = (
        f"half of the steps have at most {np.median(words):.0f} words, too few to mean anything alone. The number "
        "after a chunker's name is the most words of a step: turns is a message a step, sentences:16 a sentence"
    )
    return [message]


def single_warnings(batch: Batch) -> list[str]:
    """A sentence if episodes are single steps."""
    single = int((batch.scored == 1).sum())
    if len(batch.scored) < ENOUGH or single < MOST * len(batch.scored):
        return []
    message = (
        f"{single} of {len(batch.scored)} episodes have a single step, so nothing can be learned of which step leads "
        "to which: cut them finer (sentences:16), or give conversations of several turns"
    )
    return [message]
