"""A causal language model as a reader of texts: loaded, given padded batches, asked what it predicts.

`Fluency` and `Reader` differ in what they sum; this is what they share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sharpwave._lazy import require

PLAIN_HEADS = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "SmolLM3ForCausalLM")
"""Models whose logits are their head's output and nothing else (some scale or cap it)."""


def load(path: str, device: str | None, dtype: str | None) -> tuple[Any, Any]:
    """The model, in evaluation mode, and its tokenizer; None leaves device and dtype as they are saved."""
    transformers = require("transformers", "embed")
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    if device is not None:
        model = model.to(device)
    if dtype is not None:
        model = model.to(getattr(require("torch", "embed"), dtype))
    return model.eval(), tokenizer


def first_token(tokenizer: Any) -> Any:
    """The token that a text is read behind; None if the tokenizer has no such token."""
    return tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id


def batches(ids: Sequence[Sequence[int]], size: int, padding: int) -> Iterator[tuple[list[int], Any, Any]]:
    """Token sequences in batches, the longest first: which rows, their tokens (rows, T), and 1 where no padding is."""
    torch = require("torch", "embed")
    order = sorted(range(len(ids)), key=lambda n: (-len(ids[n]), n))
    for first in range(0, len(order), size):
        part = order[first : first + size]
        width = len(ids[part[0]])
        tokens = torch.full((len(part), width), padding)
        mask = torch.zeros((len(part), width), dtype=torch.long)
        for row, n in enumerate(part):
            tokens[row, : len(ids[n])] = torch.tensor(ids[n])
            mask[row, : len(ids[n])] = 1
        yield part, tokens, mask


def before_head(model: Any, tokens: Any, mask: Any, said: Any) -> tuple[Any, Callable[[Any], Any]]:
    """(tokens said, ·) what the model's head is given to predict each token said, and the head.

    The head costs as much as a quarter of a small model's layers, and what it puts out is as wide as the vocabulary, so
    it is asked of these places alone. A model whose logits are more than its head's output gives logits, and the head
    passes them on. ``said`` (rows, T − 1) is True where the token after a place is asked for.
    """
    given = {"input_ids": tokens, "attention_mask": mask, "use_cache": False}
    if type(model).__name__ in PLAIN_HEADS:
        return model.base_model(**given).last_hidden_state[:, :-1][said], model.get_output_embeddings()
    return model(**given).logits[:, :-1][said], lambda logits: logits
