"""A tiny random language model that writes words, and a store of stories in these words."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import sharpwave as sw
import torch
import transformers
from sharpwave.episodes import Words, chunk_batch
from tiny_policy import DIM, embed, tokenizer

STORIES = [
    "the old man and the girl walked home then she laughed and he kissed the bride in rings",
    "once upon a time the boy walked in the village then the groom and bride kissed and danced",
    "the ship in the sea was in storm and waves then the dog and the boy walked home",
    "a dog laughed and a boy laughed then the storm was in the sea and the ship",
    "the girl was happy and the man was happy then they walked and the bride kissed the groom",
    "the old sea and the old ship and waves then a story of a small dog",
]
TERMINAL = "bride and groom kissed rings"
CHUNKER = Words(n=4)
PROMPTS = ["once upon a time", "the old man and girl", "in the village there was a dog and the boy walked"]


@functools.cache
def words() -> Any:
    return tokenizer()


@functools.cache
def model(seed: int = 1) -> Any:
    torch.manual_seed(seed)
    made = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(words()),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=256,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
            initializer_range=0.4,
        )
    )
    return made.eval()


def store(stories: list[str] = STORIES) -> sw.ValueStore:
    made = sw.ValueStore(sw.Config(dim=DIM, min_novelty=0.2, tau=0.2))
    made.add_terminal("wedding", embed([TERMINAL])[0])
    batch = chunk_batch(CHUNKER, ["once upon a time"] * len(stories), stories)
    made.observe(embed(batch.steps), batch.offsets, texts=batch.steps)
    made.replay()
    return made


def guide(**options: Any) -> sw.Guide:
    return sw.Guide(options.pop("store", None) or store(), embed, CHUNKER, **options)


def recomputed(prompt: str, uniforms: np.ndarray, tokens: int, temperature: float = 1.0) -> list[int]:
    """Tokens of one text by a loop that has no cache and no batch: an independent sampler of the model."""
    ids = words()(prompt, add_special_tokens=False)["input_ids"]
    ids = [2, *ids]
    start = len(ids)
    for t in range(tokens):
        with torch.no_grad():
            logits = model()(input_ids=torch.tensor([ids])).logits[0, -1].double() / temperature
        cumulative = logits.softmax(-1).cumsum(-1)
        token = int((cumulative <= uniforms[t] * cumulative[-1]).sum())
        ids.append(token)
        if token == 2:
            break
    return ids[start:]
