"""The language model that the demo trains: with an adapter, sampled, and read by its own base."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from sharpwave._lazy import require

from examples.demo.sample import SampleSettings, complete


def with_adapter(model: Any, rank: int, alpha: int, seed: int) -> Any:
    """``model`` with a fresh LoRA adapter on every linear map of the upper half of its layers.

    The lower half is left alone: no gradient has to go through it, which is a third of a step's time.
    """
    torch, peft = require("torch", "demo"), require("peft", "demo")
    torch.manual_seed(seed)
    head = model.get_output_embeddings()
    maps = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    layers = int(model.config.num_hidden_layers)
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=sorted(maps),
        layers_to_transform=list(range(layers // 2, layers)),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of peft's use of transformers
        return peft.get_peft_model(model, config)


def sample(
    model: Any, tokenizer: Any, prompts: Sequence[str], settings: SampleSettings, seed: int, rounds: int
) -> list[list[str]]:
    """``rounds`` texts of each prompt, one round after the other."""
    torch = require("torch", "demo")
    model.eval()
    asked = list(prompts) * rounds
    texts: list[str] = []
    for first in range(0, len(asked), settings.batch):
        torch.manual_seed(seed * 1_000_003 + first)
        texts += complete(model, tokenizer, asked[first : first + settings.batch], settings)
    return [texts[n : n + len(prompts)] for n in range(0, len(texts), len(prompts))]


def base_log_likelihood(
    model: Any, tokenizer: Any, prompts: Sequence[str], texts: Sequence[str], batch: int = 16
) -> list[tuple[float, float]]:
    """Nats of each text after its prompt under the model without its adapter, and its number of tokens."""
    torch = require("torch", "demo")
    model.eval()
    pad = tokenizer.pad_token_id
    out: list[tuple[float, float]] = []
    for first in range(0, len(texts), batch):
        heads = [rendered(tokenizer, p) for p in prompts[first : first + batch]]
        tails = texts[first : first + batch]
        head_ids = [tokenizer(h, add_special_tokens=False)["input_ids"] for h in heads]
        tail_ids = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in tails]
        rows = [h + t for h, t in zip(head_ids, tail_ids, strict=True)]
        width = max(len(r) for r in rows)
        ids = torch.tensor([r + [pad] * (width - len(r)) for r in rows], device=model.device)
        mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows], device=model.device)
        kept = max(len(t) for t in tail_ids) + max(width - len(r) for r in rows) + 1
        with torch.inference_mode(), model.disable_adapter():
            # Only the last places are put through the head: the vocabulary is most of the cost.
            logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=min(kept, width)).logits.float()
        shift = width - logits.shape[1]
        nats = logits.log_softmax(-1)
        for n, (h, t) in enumerate(zip(head_ids, tail_ids, strict=True)):
            places = range(len(h), len(h) + len(t))
            out.append((sum(float(nats[n, p - 1 - shift, ids[n, p]]) for p in places), float(len(t))))
    return out


def rendered(tokenizer: Any, prompt: str) -> str:
    """A prompt as the model reads it."""
    if not tokenizer.chat_template:
        return prompt
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
