"""Texts and messages to steps, steps to vectors, and measures of texts under a language model.

chunkers.py      a prompt and a completion to the steps of an episode (`sharpwave.episodes`)
messages.py      chat messages: who says what, and what of it is the policy's own
segment.py       words and sentences in every script
rows.py          episodes from JSON lines, JSON and Parquet
embedders.py     the embedders' public names (`sharpwave.embed`)
packages.py      models that come as packages
cache.py         `EmbeddingCache`: content hashes to vectors, in memory and on disk
sentence.py      `SentenceTransformer`
hidden.py        `HiddenStates`: a transformers model's own pooled hidden states
fluency.py       `Fluency`: how likely a language model finds a text
joined.py        `Joined`: several embedders side by side
causal.py        a causal language model as a reader: loaded, batched, asked
host.py          to a device and back without waiting
typicality.py    `Typicality`: whether a completion is what the base model could have written
reading.py       log-probability, entropy and varentropy of completions under a language model
"""

from __future__ import annotations

from sharpwave.text.typicality import TokenLogprobs, Typicality, TypicalityReport

__all__ = ["TokenLogprobs", "Typicality", "TypicalityReport"]
