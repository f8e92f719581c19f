"""Tokens for many particles in one forward pass, with a key-value cache that is branched and never recomputed.

A particle's tokens do not depend on what is sampled beside it. Each has uniform numbers of its own, and its logits have
the same bits in every batch: a prompt is padded to a multiple of `PAD` tokens by its own length alone, prompts of equal
padded length share a pass, and a pass has two rows at least (matrix products of one row take another path in torch).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from time import process_time
from typing import Any

import numpy as np

from sharpwave._lazy import require
from sharpwave.guide.swarm import Swarm

PAD = 16

LEAST_LIVE = 0.75
"""Finished particles leave the pass when fewer than this share of its rows are live: leaving copies the cache."""

Process = Callable[[Any, Any], Any]
"""Token ids (rows, T) and logits (rows, V) to logits: the logits processors of transformers."""


class LanguageModel:
    """What is asked of a causal language model of transformers, by the names that its version has.

    Raises:
        TypeError: it is no causal language model with a tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.torch = require("torch", "embed")
        if not callable(getattr(model, "forward", None)) or not callable(getattr(model, "generate", None)):
            raise TypeError(f"model must be a causal language model of transformers, got {type(model).__name__}")
        if not callable(tokenizer) or not callable(getattr(tokenizer, "decode", None)):
            raise TypeError(f"tokenizer must be a tokenizer of transformers, got {type(tokenizer).__name__}")
        self.model: Any = model
        self.tokenizer: Any = tokenizer
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.names = set(inspect.signature(inner.forward).parameters)
        self.cache_name = "cache" if "cache" in self.names else "past_key_values"

    def next_logits(self, ids: Any, mask: Any, cache: Any) -> tuple[Any, Any]:
        """(rows, V) float32 logits of what follows ``ids`` (rows, T), and the cache; ``mask`` covers the cache too."""
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, self.cache_name: cache, "use_cache": True}
        if "position_ids" in self.names:
            given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in self.names:
            given["logits_to_keep"] = 1
        out = self.model(**given)
        cache = getattr(out, self.cache_name, None)
        if cache is None or not hasattr(cache, "batch_select_indices"):
            raise TypeError(f"{type(self.model).__name__} keeps no key-value cache that can be branched")
        return out.logits[:, -1].float(), cache

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end a text."""
        configured = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        every = configured if isinstance(configured, list) else [configured]
        return frozenset(int(t) for t in (*every, self.tokenizer.eos_token_id) if t is not None)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


class Laps:
    """Processor time by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"model": 0.0, "draw": 0.0, "text": 0.0}
        self.last = process_time()

    def lap(self, name: str | None) -> None:
        """The time since the last call belongs to this part; None: to no part."""
        now = process_time()
        if name is not None:
            self.seconds[name] += now - self.last
        self.last = now


def padded_width(length: int) -> int:
    """How many tokens a prompt of this length is padded to."""
    return -(-length // PAD) * PAD


def sample(
    model: LanguageModel,
    heads: Sequence[Sequence[int]],
    swarms: Sequence[Swarm],
    *,
    max_tokens: int,
    temperature: float,
    end_tokens: frozenset[int],
    process: Process | None,
    laps: Laps,
) -> None:
    """Let the swarms write to their ends; ``heads`` are the tokens of their prompts, all of one `padded_width`."""
    torch = model.torch
    device = model.model.device
    width = padded_width(max(map(len, heads)))
    padding = min(end_tokens, default=0)
    twice = 2 if len(heads) == 1 else 1  # two rows at least, see above
    ids = torch.full((len(heads), width), padding)
    mask = torch.zeros((len(heads), width), dtype=torch.long)
    for row, head in enumerate(heads):
        ids[row, width - len(head) :] = torch.tensor(list(head))
        mask[row, width - len(head) :] = 1
    ids, mask = ids.to(device).repeat(twice, 1), mask.to(device).repeat(twice, 1)
    exact = any(swarm.typicality is not None for swarm in swarms)
    with torch.inference_mode():
        laps.lap(None)
        logits, cache = model.next_logits(ids, mask, None)
        owners = [(s, n) for s, swarm in enumerate(swarms) for n in swarm.live]
        logits, mask, cache = _select(torch, [s for s, _ in owners], logits, mask, cache)
        laps.lap("model")
        for t in range(max_tokens):
            if process is not None:
                rows = torch.full((len(logits), width + t), padding)
                for row, (s, n) in enumerate(owners):
                    so_far = torch.tensor([*heads[s], *swarms[s].particles[n].tokens])
                    rows[row, width - len(heads[s]) :][: len(so_far)] = so_far
                logits = process(rows.to(device), logits)
            uniform = np.array([swarms[s].uniforms[n, t] for s, n in owners])
            tokens, said = draw(torch, logits[: len(owners)], temperature, uniform, exact=exact)
            laps.lap("draw")
            written: list[tuple[int, int]] = []
            for (s, n), token, numbers in zip(owners, tokens, said, strict=True):
                if not swarms[s].particles[n].done:
                    swarms[s].add(n, token, numbers, ended=token in end_tokens, last=t == max_tokens - 1)
                    written.append((s, n))
            for s, n in written:
                particle = swarms[s].particles[n]
                swarms[s].rewritten(n, model.text(particle.tokens[: particle.said]))
            laps.lap("text")
            asked = {s for s, _ in written}
            parents = {s: swarms[s].weigh() for s in sorted(asked) if swarms[s].ready()}
            laps.lap(None)
            row_of = {owner: row for row, owner in enumerate(owners)}
            live = [(s, n) for s, swarm in enumerate(swarms) for n in swarm.live]
            if not live:
                return
            resampled = {s: chosen for s, chosen in parents.items() if chosen is not None}
            if resampled or len(live) < LEAST_LIVE * len(owners):
                source = [row_of[s, int(resampled[s][n]) if s in resampled else n] for s, n in live]
                logits, mask, cache = _select(torch, source, logits, mask, cache)
                owners = live
            following = [swarms[s].particles[n].tokens[-1] for s, n in owners]
            following += following[-1:] * (len(mask) - len(following))
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            logits, cache = model.next_logits(torch.tensor(following, device=device)[:, None], mask, cache)
            laps.lap("model")


def _select(torch: Any, rows: list[int], logits: Any, mask: Any, cache: Any) -> tuple[Any, Any, Any]:
    """Rows of a pass, in a new order, two at least."""
    index = torch.tensor(rows * 2 if len(rows) == 1 else rows, device=mask.device)
    cache.batch_select_indices(index)
    return logits[index], mask[index], cache


def draw(torch: Any, logits: Any, temperature: float, uniform: Any, *, exact: bool) -> tuple[list[int], list[Any]]:
    """A token of each row of logits (rows, V), where its uniform number falls in the cumulative distribution.

    Returns:
        Tokens, and of each its log-probability and, if ``exact``, the entropy and varentropy of its row; else zeros.
    """
    nats = (logits / temperature).log_softmax(-1)
    weight = nats.exp()
    cumulative = weight.cumsum(-1)
    places = torch.as_tensor(uniform, dtype=cumulative.dtype, device=cumulative.device)[:, None]
    whole = cumulative[:, -1:].contiguous()
    last = torch.searchsorted(cumulative, whole)  # the last token that is possible: rounding may reach beyond it
    chosen = torch.minimum(torch.searchsorted(cumulative, places * whole, right=True), last)
    said = torch.zeros((len(logits), 3), device=logits.device)
    said[:, 0] = nats.gather(1, chosen)[:, 0]
    if exact:
        nats = nats.masked_fill_(weight == 0, 0.0)  # a token that is ruled out adds nothing
        product = weight.mul_(nats)
        said[:, 1] = -product.sum(-1)
        said[:, 2] = (torch.linalg.vecdot(product, nats) - said[:, 1] ** 2).clamp(min=0)
    return chosen[:, 0].tolist(), said.double().tolist()
