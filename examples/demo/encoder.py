"""From texts to embedded episodes: MiniLM for what is said, SmolLM2 for whether one would say it so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sharpwave._embedder import Embedder
from sharpwave.cli.jobs import with_fluency
from sharpwave.embed import EmbeddingCache, Fluency, SentenceTransformer
from sharpwave.episodes import Chunker, chunk_batch
from sharpwave.probe.columns import Episodes
from sharpwave.text.packages import minilm_path, smollm2_path

MEANING = 384
"""The components of a step that are its meaning (MiniLM's); the rest are its fluency."""


@dataclass
class Encoder:
    """Texts to embedded episodes: one chunker, one embedder."""

    chunker: Chunker
    embedder: Embedder

    def __call__(self, prompts: Sequence[str], texts: Sequence[str]) -> Episodes:
        batch = chunk_batch(self.chunker, list(prompts), list(texts))
        return Episodes(self.embedder(batch.steps), batch.offsets, batch.context)

    def chunks(self, prompts: Sequence[str], texts: Sequence[str]) -> list[str]:
        """The texts of the same steps."""
        return chunk_batch(self.chunker, list(prompts), list(texts)).steps


def fluent_encoder(
    chunker: Chunker,
    prompts: Sequence[str],
    texts: Sequence[str],
    weight: float,
    cache: Path,
    model: str | None = None,
    device: str = "cpu",
) -> Encoder:
    """An encoder whose fluency, of ``weight`` beside a meaning of 1, is fitted to the base's ``texts``.

    Args:
        cache: the SQLite file that keeps what was embedded.
        model: directory of the causal language model; None is SmolLM2-135M.
    """
    kept = EmbeddingCache(cache)
    meaning = SentenceTransformer(minilm_path(), dtype="bfloat16", cache=kept)
    form = Fluency(model or smollm2_path(), dtype="bfloat16", cache=kept, device=None if device == "cpu" else device)
    batch = chunk_batch(chunker, list(prompts), list(texts))
    return Encoder(chunker, with_fluency(meaning, form, batch, weight))
