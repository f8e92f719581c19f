"""Gold: what a text is, by measures that no reward of the study is made of.

A measure enters a table only if it tells the labelled texts apart (AUC of at least .9, `validate`): `measure` and
`fluency` return those that do, and what else is here failed. A text is read as opening and completion together; every
measure is higher where there is more of what it is named after.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sharpwave.text.cache import EmbeddingCache
from sharpwave.text.reading import Reader
from sharpwave.text.typicality import distinct_bigrams

from examples.study import gold as first
from examples.study.claim.gemma import gemma
from examples.study.gold_texts import objectives
from examples.study.setting import PROMPT

Floats = NDArray[np.float64]

READINGS = Path("runs/study/claim/readings.sqlite")
"""What Gemma found of each text, by its content."""

SLOW = ("not broken", "likelier")
HAPPY, SAD = "Write a happy short story.", "Write a sad short story."
VALIDATED = Path("study/claim-gold.json")

WORD = re.compile(r"[\w']+")
BLOCK = 64


def stories(openings: Sequence[str], completions: Sequence[str]) -> list[str]:
    """Opening and completion as one text."""
    return [f"{o} {c}".strip() for o, c in zip(openings, completions, strict=True)]


# Words


def found(objective: str, text: str) -> list[str]:
    """The words of the objective's list that the text has, each once, in order of the list."""
    said = {w.removesuffix("'s") for w in WORD.findall(text.lower().replace("’", "'"))}
    return [word for word in objectives()[objective]["words"] if word in said]


def words(objective: str, texts: Sequence[str]) -> Floats:
    """(n,) how many different words of the objective's list each text has."""
    return np.array([len(found(objective, text)) for text in texts], np.float64)


# Mood by a lexicon: VADER (Hutto and Gilbert 2014)


@cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import (  # pyright: ignore[reportMissingTypeStubs]
        SentimentIntensityAnalyzer,
    )

    return SentimentIntensityAnalyzer()


def vader(texts: Sequence[str]) -> Floats:
    """(n,) VADER's compound score, from −1 to 1."""
    return np.array([_vader().polarity_scores(text)["compound"] for text in texts], np.float64)


# Another encoder: WordLlama, token embeddings of language models, trained to be averaged


@cache
def _wordllama() -> Any:
    import wordllama  # pyright: ignore[reportMissingTypeStubs]
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer
    from wordllama.inference import WordLlamaInference  # pyright: ignore[reportMissingTypeStubs]

    # Its own loader looks for the tokenizer in another directory than the package has it in, then on the network.
    package = Path(str(wordllama.__file__)).parent
    weights = load_file(package / "weights/l2_supercat_256.safetensors")["embedding.weight"]
    tokenizer = Tokenizer.from_file(str(package / "tokenizers/l2_supercat_tokenizer_config.json"))
    return WordLlamaInference(weights, tokenizer)


def encoded(texts: Sequence[str]) -> Floats:
    """(n, 256) unit vectors of texts by WordLlama."""
    return np.asarray(_wordllama().embed([t or "." for t in texts], norm=True), np.float64)


def targets(objective: str) -> list[str]:
    """The objective in other words than its terminals."""
    own = objectives()[objective].get("gold")
    return list(own or first.read()["objective"][objective]["texts"])


def encoder_objective(objective: str, texts: Sequence[str], centre: Floats) -> Floats:
    """(n,) cosine, less ``centre`` (of base completions), to the mean of the objective's texts."""
    rows = encoded(texts) - centre
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return rows @ first.unit(encoded(targets(objective)).mean(0) - centre)


def encoder_mood(texts: Sequence[str]) -> Floats:
    """(n,) projection on the direction from unhappy to happy sentences."""
    said = first.read()["mood"]
    return encoded(texts) @ first.unit(encoded(said["happy"]).mean(0) - encoded(said["unhappy"]).mean(0))


# Another language model: Gemma-3-270M


@cache
def _kept() -> EmbeddingCache:
    READINGS.parent.mkdir(parents=True, exist_ok=True)
    return EmbeddingCache(READINGS)


@cache
def _gemma() -> tuple[Any, Any]:
    return gemma()


@cache
def _reader(told: str) -> Reader:
    """Gemma, told what the text before it is; temperature 1."""
    return Reader(*_gemma(), template=f"{told}\n\n{{prompt}}", cache=_kept())


def readings(told: str, openings: Sequence[str], completions: Sequence[str]) -> Floats:
    """(n, 5) sums over each completion's tokens under Gemma, columns as `sharpwave.text.reading.SUMS`."""
    rows = [
        _reader(told).sums(openings[n : n + BLOCK], [c or "." for c in completions[n : n + BLOCK]])
        for n in range(0, len(openings), BLOCK)
    ]
    return np.concatenate(rows)


def log_probability(openings: Sequence[str], completions: Sequence[str]) -> Floats:
    """(n,) mean log-probability of a completion's token under Gemma, nats."""
    tokens, surprise = readings(PROMPT, openings, completions)[:, :2].T
    return -surprise / np.maximum(tokens, 1.0)


def likelier(told: str, other: str, openings: Sequence[str], completions: Sequence[str]) -> Floats:
    """(n,) by how many nats a completion is likelier under Gemma when it is told one thing than another."""
    return readings(other, openings, completions)[:, 1] - readings(told, openings, completions)[:, 1]


def variety(completions: Sequence[str]) -> Floats:
    """(n,) the share of different ones among a text's bigrams."""
    return distinct_bigrams(completions)


# The measures that tables are made of


@cache
def scales() -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of fluency and variety over the base's reference, kept by `validate`."""
    kept: dict[str, list[float]] = json.loads(VALIDATED.read_text("utf-8"))["scales"]
    return {name: (mean, sd) for name, (mean, sd) in kept.items()}


def whole(fluent: Floats, varied: Floats) -> Floats:
    """(n,) the lower of fluency and variety, each in standard deviations of the base: loops are fluent and not varied,
    word salad is varied and not fluent."""
    units = [(v - scales()[k][0]) / scales()[k][1] for k, v in (("fluency", fluent), ("variety", varied))]
    return np.minimum(*units)


def measure(
    objective: str, openings: list[str], completions: list[str], slow: Collection[str] = ()
) -> dict[str, Floats]:
    """(n,) each validated measure of each text, higher where there is more of it.

    "objective" is whether the text has a word of the objective's list.

    Args:
        slow: of `SLOW`, what is measured beside it. Gemma has to read each text once for "not broken" and twice for
            "likelier", half a second on one core each time.
    """
    unknown = sorted(set(slow) - set(SLOW))
    if unknown:
        raise ValueError(f"slow: no measure {unknown[0]!r}, there are {SLOW}")
    out = {"objective": (words(objective, stories(openings, completions)) > 0).astype(np.float64)}
    if "not broken" in slow:
        out["not broken"] = fluency(openings, completions)
    if "likelier" in slow:
        out["likelier"] = likelier(objectives()[objective]["ask"], PROMPT, openings, completions)
    return out


def fluency(openings: list[str], completions: list[str]) -> Floats:
    """(n,) how far a completion is from being broken: the lower of Gemma's mean log-probability of a token and of the
    share of different bigrams, in standard deviations of the base. Either alone fails (docs/study-gold.md)."""
    return whole(log_probability(openings, completions), variety(completions))
