"""A small world of texts: an embedder of bags of words, a store of stories, importable so that all of it pickles."""

from __future__ import annotations

import hashlib

import numpy as np
import sharpwave as sw
from numpy.typing import NDArray

DIM = 48
PROMPT = "Tell me a story."
STORIES = [
    "Anna met Tom at the harbour. They talked until the lamps went out. He asked her to marry him.",
    "Ruth lost her ring at the market. A stranger brought it back. They married in spring.",
    "Ben built a boat with Carl. A storm broke the mast. They rowed home at night.",
    "Mia planted a tree. It grew taller than the house. Lightning split it one day.",
    "Ella wrote letters to a soldier. He answered every one. They met at the altar.",
    "Sam missed the last train. He slept in the station. A dog had taken his shoe.",
    "The king had three sons. The youngest went to sea. He found a white shell.",
    "A baker burned the bread. The children laughed at him. He gave them cake.",
]


def word(text: str) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    return np.random.default_rng(seed).normal(size=DIM).astype(np.float32)


def embed(texts: list[str]) -> NDArray[np.float32]:
    """A bag of words; "" and "silence" are the zero vector."""
    rows = np.zeros((len(texts), DIM), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for token in text.lower().replace(".", " ").split():
            if token != "silence":
                row += word(token)
    return rows


def other_embed(texts: list[str]) -> NDArray[np.float32]:
    return embed(texts)[:, ::-1]


def length(completions: list[str], **_: object) -> list[float]:
    """A terminal that likes long texts."""
    return [len(str(completion)) / 100 for completion in completions]


def likes_altars(prompts: list[str], completions: list[str]) -> list[float | None]:
    return [None if "boat" in text else float("marr" in text or "altar" in text) for text in completions]


def store(stories: list[str] = STORIES) -> sw.ValueStore:
    """A calibrated store that knows the stories and sleeps."""
    made = sw.ValueStore(sw.Config(dim=DIM, min_novelty=0.5))
    batch = sw.episodes.chunk_batch(sw.episodes.Sentences(), [PROMPT] * len(STORIES), STORIES)
    steps = embed(batch.steps)
    made.calibrate(steps, batch.offsets)
    made.add_terminal("wedding", embed(["They married at the altar."])[0])
    if stories:
        batch = sw.episodes.chunk_batch(sw.episodes.Sentences(), [PROMPT] * len(stories), stories)
        made.observe(embed(batch.steps), batch.offsets, texts=batch.steps)
        made.replay()
    return made


def described(store: object, **more: object) -> dict[str, object]:
    """A reward as a file describes it, of this embedder and a terminal."""
    prompts, completions = base()
    return {
        "store": store,
        "embedder": {"function": "tiny:embed"},
        "terminal": {"function": "tiny:likes_altars"},
        "base": {"prompts": prompts, "completions": completions},
        **more,
    }


def base() -> tuple[list[str], list[str]]:
    return [PROMPT] * len(STORIES), STORIES
