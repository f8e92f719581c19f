"""The policy: a small causal language model with a LoRA adapter, sampled and differentiated on the CPU (or a GPU).

With the adapter switched off it is the base model, which serves as the reference of the KL, as the judge and as the
second encoder, so that one set of weights is all there is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Draw = Callable[[Tensor, torch.Generator], Tensor]
"""Logits (B, V) to one token for each row, (B,)."""

CHAT = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{opening}"


def multinomial(logits: Tensor, generator: torch.Generator) -> Tensor:
    """(B,) a token for each row of ``logits`` (B, V), drawn by torch."""
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


@dataclass(frozen=True)
class Lora:
    """The adapter: rank, scale, the linear maps that get one, and the first layer that does.

    The layers below the first are read once for the policy and its base together, and no gradient goes through them.
    """

    rank: int = 16
    alpha: int = 32
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    first_layer: int = 15


@dataclass(frozen=True)
class Samples:
    """Completions of one batch: ids right-padded after the end token, mask 1 up to and with the end token.

    Attributes:
        copies: completions of each prompt; they lie together.
        prompt_ids, prompt_mask: (B/copies, P) the prompts, once each, padded on the left.
        ids, mask: (B, T).
    """

    copies: int
    texts: tuple[str, ...]
    prompt_ids: Tensor
    prompt_mask: Tensor
    ids: Tensor
    mask: Tensor

    def packed(self) -> tuple[Tensor, Tensor, Tensor]:
        """A row for each prompt with its completions behind it, so that it is read once.

        Returns:
            (G, L) ids; (G, 1, L, L) what each place sees: the prompt, and its own completion up to itself; (G, L)
            positions, which begin anew behind the prompt for every completion.
        """
        groups, width = self.prompt_ids.shape
        ids = torch.cat([self.prompt_ids, self.ids.reshape(groups, -1)], 1)
        real = torch.cat([self.prompt_mask, self.mask.reshape(groups, -1)], 1).bool()
        owner = torch.arange(self.copies, device=ids.device).repeat_interleave(self.ids.shape[1])
        owner = torch.cat([owner.new_full((width,), -1), owner])  # -1: the prompt
        place = torch.arange(len(owner), device=ids.device)
        allowed = (owner[:, None] == owner) | (owner == -1)
        allowed &= place[:, None] >= place
        sees = (allowed & real[:, None, :]) | (place[:, None] == place)
        before = self.prompt_mask.cumsum(1) - 1
        behind = before[:, -1:] + 1 + torch.arange(self.ids.shape[1], device=ids.device)
        return ids, sees[:, None], torch.cat([before.clamp(min=0), behind.repeat(1, self.copies)], 1)

    def unpacked(self, hidden: Tensor) -> Tensor:
        """(B, T, ·) what a packed reading says at the place before each token of the completions."""
        groups, width = self.prompt_ids.shape
        tokens = self.ids.shape[1]
        last = hidden[:, width - 1 : width].unsqueeze(1).expand(-1, self.copies, -1, -1)
        own = hidden[:, width:].reshape(groups, self.copies, tokens, -1)[:, :, :-1]
        return torch.cat([last, own], 2).flatten(0, 1)


@dataclass(frozen=True)
class Reading:
    """What of a batch does not depend on the adapter.

    Attributes:
        sees, places: of the packed rows.
        lower: (G, L, hidden) what goes into the first layer that has an adapter.
        base: (B, T, V) float32 log-probabilities of the base model at each place of the completions.
    """

    samples: Samples
    temperature: float
    sees: Tensor
    places: Tensor
    lower: Tensor
    base: Tensor

    def pick(self, log_probs: Tensor) -> Tensor:
        """(B, T) the entries of ``log_probs`` (B, T, V) at the tokens that were drawn."""
        return log_probs.gather(-1, self.samples.ids[..., None])[..., 0]

    def mean(self, values: Tensor) -> Tensor:
        """The mean of ``values`` (B, T) over the tokens of the completions."""
        mask = self.samples.mask.float()
        return (values * mask).sum() / mask.sum()

    def kl(self, log_probs: Tensor) -> Tensor:
        """The exact KL(policy‖base) of ``log_probs`` (B, T, V), in nats a token."""
        return self.mean((log_probs.exp() * (log_probs - self.base)).sum(-1))


class Policy:
    """A language model, its tokenizer and a LoRA adapter that is made here."""

    def __init__(self, model: Any, tokenizer: Any, lora: Lora, seed: int) -> None:
        import peft

        torch.manual_seed(seed)
        self.tokenizer = tokenizer
        self.model: Any = peft.get_peft_model(
            model,
            peft.LoraConfig(
                r=lora.rank,
                lora_alpha=lora.alpha,
                target_modules=list(lora.targets),
                layers_to_transform=list(range(lora.first_layer, model.config.num_hidden_layers)),
                task_type="CAUSAL_LM",
            ),
        )
        self.first_layer = lora.first_layer
        self.model.eval()  # no dropout anywhere: sampling and training see one distribution
        self.core: Any = self.model.get_base_model()

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.core.parameters()).device

    def parameters(self) -> list[Tensor]:
        """What is trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def adapter(self) -> dict[str, Tensor]:
        """The adapter's weights by name."""
        return {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad}

    def load_adapter(self, weights: dict[str, Tensor]) -> None:
        """The inverse of `adapter`."""
        named = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                named[name].copy_(value)

    @contextmanager
    def base(self) -> Generator[None]:
        """The model without its adapter, and no gradient."""
        with torch.no_grad(), self.model.disable_adapter():
            yield

    def encode(self, texts: Sequence[str], side: str) -> tuple[Tensor, Tensor]:
        """Token ids and mask, padded on ``side``."""
        self.tokenizer.padding_side = side
        out = self.tokenizer(list(texts), return_tensors="pt", padding=True, add_special_tokens=False)
        return out["input_ids"].to(self.device), out["attention_mask"].to(self.device)

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        copies: int,
        tokens: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        draw: Draw = multinomial,
    ) -> Samples:
        """``copies`` completions of each prompt, at most ``tokens`` long; copies of one prompt lie together.

        Each prompt is read once and its keys and values are shared by its copies.
        """
        from transformers import DynamicCache

        ids, mask = self.encode(prompts, "left")
        cache: Any = DynamicCache()
        hidden = self.hidden(ids, mask, cache)[:, -1]
        cache.batch_repeat_interleave(copies)
        hidden = hidden.repeat_interleave(copies, 0)
        seen = mask.repeat_interleave(copies, 0)
        rows, end = len(seen), self.tokenizer.eos_token_id
        drawn = torch.full((rows, tokens), self.tokenizer.pad_token_id, device=self.device)
        kept = torch.zeros((rows, tokens), dtype=mask.dtype, device=self.device)
        alive = torch.ones(rows, dtype=torch.bool, device=self.device)
        for t in range(tokens):
            token = draw(self.core.lm_head(hidden).float() / temperature, generator)
            drawn[alive, t] = token[alive]
            kept[:, t] = alive.to(mask.dtype)
            alive &= token != end
            if t == tokens - 1 or not alive.any():
                break
            seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1)
            hidden = self.hidden(token[:, None], seen, cache)[:, -1]
        texts = [
            self.tokenizer.decode(row[: int(n)], skip_special_tokens=True).strip()
            for row, n in zip(drawn.tolist(), kept.sum(1).tolist(), strict=True)
        ]
        return Samples(copies, tuple(texts), ids, mask, drawn, kept)

    def read(self, samples: Samples, temperature: float = 1.0) -> Reading:
        """The base model's reading of completions, from which the policy's log-probabilities go on."""
        ids, sees, places = samples.packed()
        with self.base():
            out = self.core.model(
                input_ids=ids, attention_mask=sees, position_ids=places, use_cache=False, output_hidden_states=True
            )
            base = self._over_words(out.last_hidden_state, samples, temperature)
        return Reading(samples, temperature, sees, places, out.hidden_states[self.first_layer], base)

    def log_probs(self, reading: Reading) -> Tensor:
        """(B, T, V) the policy's log-probabilities, with gradient."""
        layers = self.core.model.layers
        try:
            self.core.model.layers = layers[self.first_layer :]
            out = self.core.model(
                inputs_embeds=reading.lower,
                attention_mask=reading.sees,
                position_ids=reading.places,
                use_cache=False,
            )
        finally:
            self.core.model.layers = layers
        return self._over_words(out.last_hidden_state, reading.samples, reading.temperature)

    def _over_words(self, hidden: Tensor, samples: Samples, temperature: float) -> Tensor:
        return (self.core.lm_head(samples.unpacked(hidden)).float() / temperature).log_softmax(-1)

    def next_log_probs(self, texts: Sequence[str], prefix: str = "") -> Tensor:
        """(n, V) log-probabilities of what follows each text; a common ``prefix`` is read once."""
        from transformers import DynamicCache

        ids, mask = self.encode(texts, "right")
        last = mask.sum(1) - 1
        if prefix:
            cache: Any = DynamicCache()
            head, head_mask = self.encode([prefix], "right")
            self.hidden(head, head_mask, cache)
            cache.batch_repeat_interleave(len(texts))
            mask = torch.cat([head_mask.expand(len(texts), -1), mask], 1)
            hidden = self.hidden(ids, mask, cache)
        else:
            hidden = self.hidden(ids, mask)
        rows = torch.arange(len(texts), device=self.device)
        return self.core.lm_head(hidden[rows, last]).float().log_softmax(-1)

    def pooled(self, texts: Sequence[str], layer: int) -> Tensor:
        """(n, hidden) mean over the tokens of each text of what layer ``layer`` puts out.

        The first token is left out: its hidden state is an attention sink, a hundred times as long as the others.
        """
        ids, mask = self.encode(texts, "right")
        out = self.core.model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        mask[:, 0] = 0
        hidden = out.hidden_states[layer].float() * mask[..., None]
        return hidden.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)

    def hidden(self, ids: Tensor, mask: Tensor, cache: Any = None) -> Tensor:
        """Last hidden states of ``ids``; ``mask`` covers the cache too."""
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self.core.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return out.last_hidden_state
