"""What can be read off the words: "yes", repetition, variety, parroting. No model has a part in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

WORD = re.compile(r"[a-z]+(?:['’][a-z]+)?|\d+")
ANSWERS = frozenset({"yes", "yeah", "yep", "yup", "yea", "aye"})
SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")


def words(text: str) -> list[str]:
    """Lower-case words and numbers."""
    return WORD.findall(text.lower())


def sentences(text: str) -> list[str]:
    """Pieces between end marks, of three words or more."""
    return [s.strip() for s in SENTENCE.findall(text) if len(words(s)) >= 3]


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """The n-grams of words, in order."""
    w = words(text)
    return list(zip(*(w[k:] for k in range(n)), strict=False))


def yes_share(texts: Sequence[str]) -> float:
    """Share of the words that are "yes" or mean no more than it."""
    all_words = [w for t in texts for w in words(t)]
    return sum(w in ANSWERS for w in all_words) / max(1, len(all_words))


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams over all n-grams of the batch: falls when every text becomes the same one."""
    all_ngrams = [g for t in texts for g in ngrams(t, n)]
    return len(set(all_ngrams)) / max(1, len(all_ngrams))


def distinct_within(texts: Sequence[str], n: int) -> float:
    """Mean over texts of the same share within a text: falls when a text repeats itself."""
    shares = [len(set(g)) / len(g) for t in texts if (g := ngrams(t, n))]
    return float(np.mean(shares)) if shares else 0.0


def copies(sentence: str, source: str, n: int = 3) -> float:
    """Share of the sentence's n-grams that stand in ``source``."""
    own = ngrams(sentence, n)
    there = set(ngrams(source, n))
    return sum(g in there for g in own) / len(own) if own else 0.0


def parrot_share(texts: Sequence[str], terminals: Sequence[str], least: float) -> float:
    """Share of the sentences of which at least ``least`` is copied from one terminal."""
    all_sentences = [s for t in texts for s in sentences(t)]
    hits = sum(any(copies(s, t) >= least for t in terminals) for s in all_sentences)
    return hits / max(1, len(all_sentences))


def top_word(texts: Sequence[str]) -> tuple[str, float]:
    """The most frequent word of three letters or more that is not a function word, and its share of all words."""
    all_words = [w for t in texts for w in words(t)]
    counts: dict[str, int] = {}
    for w in all_words:
        if len(w) > 2 and w not in FUNCTION_WORDS:
            counts[w] = counts.get(w, 0) + 1
    if not counts:
        return "", 0.0
    best = min(counts, key=lambda w: (-counts[w], w))
    return best, counts[best] / len(all_words)


FUNCTION_WORDS = frozenset(
    "the and was were his her their they she him that with for had has have from but not this which who its into "
    "would there been are all one you your out when what could them than then some more upon our will about how after "
    "before while where each very only other over down off did does also being those these just like".split()
)
