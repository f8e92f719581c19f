"""The tiny world's reward with every protection, and a reference that says what it is told to."""

from __future__ import annotations

from typing import Any

import numpy as np
import sharpwave as sw
import tiny
from sharpwave.text import TokenLogprobs, Typicality

NEW = [
    "Jane met a sailor at the harbour. They married in spring.",
    "The cat slept on the roof. It stole the fish.",
    "Ruth lost her ring at the market. He asked her to marry him.",
    "They married in spring. They met at the altar.",
]
PROMPTS = [tiny.PROMPT] * 4
BASE = [tiny.STORIES[n] for n in (1, 2, 3, 5, 6, 7)]
SHOWN = [tiny.STORIES[n] for n in (0, 1, 4)]


def handed(texts: list[str], surprise: float = 1.0) -> list[TokenLogprobs]:
    """What a reference would say of texts: every other word is a little likelier than expected."""
    rows: list[TokenLogprobs] = []
    for text in texts:
        ups = np.where(np.arange(len(text.split())) % 2, 0.5, -0.5)
        rows.append(TokenLogprobs(-surprise + ups, np.ones(len(ups)), np.ones(len(ups))))
    return rows


def gate() -> Typicality:
    rows = handed(tiny.STORIES)
    width = max(len(row.logps) for row in rows)
    padded = {
        name: np.array([np.pad(getattr(row, name), (0, width - len(row.logps))) for row in rows])
        for name in ("logps", "entropies", "varentropies")
    }
    mask = np.array([[1] * len(row.logps) + [0] * (width - len(row.logps)) for row in rows])
    return Typicality(None).fit_logprobs(mask=mask, prompts=tiny.base()[0], completions=tiny.STORIES, **padded)


def protected(**options: Any) -> sw.InstrumentalReward:
    settings: dict[str, Any] = {
        "terminal": tiny.likes_altars,
        "base": ([tiny.PROMPT] * len(BASE), BASE),
        "combine": "conjunction",
        "crowd": True,
        "typicality": gate(),
        "demonstrations": ([tiny.PROMPT] * 3, SHOWN),
    }
    return sw.InstrumentalReward(tiny.store(), tiny.embed, **{**settings, **options})


def scored(reward: sw.InstrumentalReward, texts: list[str] = NEW, surprise: float = 1.0) -> Any:
    columns = {"reference_logprobs": handed(texts, surprise)}
    return reward.score_texts([tiny.PROMPT] * len(texts), texts, columns=columns)
