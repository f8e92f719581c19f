"""What a causal language model expected at each token of a completion: log-probability, entropy, varentropy."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._embedder import check_dtype, fixed_path, weights_hash
from sharpwave._lazy import require
from sharpwave.text import causal
from sharpwave.text.cache import EmbeddingCache, as_cache, rows_of
from sharpwave.text.chunkers import Text, completion_text
from sharpwave.text.host import Collected, to_device

Template = str | Callable[[Any], str] | None
"""How a prompt is put before a completion: None, a text with ``{prompt}``, ``"chat"``, or a function."""

SUMS = 5
"""Columns of `Reader.sums`: tokens, surprise, squared surprise, entropy, varentropy."""

TOKENS = 512
"""Tokens whose predictions are held at once: each is a row as long as the vocabulary."""


def check_template(template: Template) -> None:
    """A ValueError if a template has no place for the prompt."""
    if isinstance(template, str) and template != "chat" and "{prompt}" not in template:
        raise ValueError(f'template must be "chat" or hold {{prompt}}, got {template!r}')


def needs_tokenizer(prompt: Text | None, template: Template) -> bool:
    """Whether `wrapped` writes the prompt in a tokenizer's chat format."""
    if prompt is None or callable(template):
        return False
    return template == "chat" or (template is None and not isinstance(prompt, str))


def wrapped(prompt: Text | None, template: Template, tokenizer: Any = None) -> str:
    """The text that goes before a completion; the tokenizer is that of a chat format."""
    if prompt is None:
        return ""
    if needs_tokenizer(prompt, template):
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    if callable(template):
        return template(prompt)
    return completion_text(prompt) if template is None else template.replace("{prompt}", completion_text(prompt))


class Reader:
    """A causal language model that reads completions after their prompts.

    Args:
        model: a loaded causal language model, or a path (then the tokenizer is loaded from it too).
        tokenizer: its tokenizer.
        temperature: what completions were sampled at; the model's predictions are sharpened by it.
        template: None gives texts as they are and messages in the tokenizer's chat format; ``"chat"`` takes a text for
            a user's message; a text with ``{prompt}`` or a function wraps the prompt.
        max_tokens: of a completion; the rest is not read. A prompt keeps its last ``max_tokens`` tokens.
        device, dtype, batch_size, cache: as for `sharpwave.embed.Fluency`.

    Raises:
        ValueError: a loaded model without its tokenizer, a temperature that is not above 0, or a template without
            ``{prompt}``.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        temperature: float = 1.0,
        template: Template = None,
        max_tokens: int = 1024,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 16,
        cache: EmbeddingCache | str | os.PathLike[str] | bool = True,
    ) -> None:
        check_dtype(dtype)
        if batch_size < 1 or max_tokens < 2:
            raise ValueError("batch_size must be at least 1 and max_tokens at least 2")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        check_template(template)
        self.path = fixed_path(model) if isinstance(model, str | os.PathLike) else None
        if self.path is None and tokenizer is None:
            raise ValueError("a loaded model needs its tokenizer")
        self.temperature, self.template = float(temperature), template
        self.max_tokens, self.batch_size = max_tokens, batch_size
        self.device, self.dtype = device, dtype
        self.cache = as_cache(cache)
        self._loaded: tuple[Any, Any] | None = None if self.path is not None else (model, tokenizer)
        self._weights: str | None = None

    def sums(self, prompts: Sequence[Text | None], completions: Sequence[Text]) -> NDArray[np.float64]:
        """(n, `SUMS`) of each completion: how many tokens it has, and the sums over them of −log p, of its square, of
        the entropy and of the varentropy of the prediction, in nats.

        The completion is tokenised anew from its text, apart from the prompt, so that how a policy had split it does
        not matter. The end of the sequence is not part of it.
        """
        pairs = [
            json.dumps([self.wrapped(prompt), completion_text(completion)])
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        return rows_of(self.cache, self._name, pairs, self._read, SUMS).astype(np.float64)

    def wrapped(self, prompt: Text | None) -> str:
        """The text that goes before a completion."""
        tokenizer = self._load()[1] if needs_tokenizer(prompt, self.template) else None
        return wrapped(prompt, self.template, tokenizer)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None if self.path is not None else self._loaded}

    def _name(self) -> str:
        if self._weights is None:
            self._weights = weights_hash(self._load()[0])
        settings = f"{self._weights}:{self.dtype}:{self.temperature!r}:{self.max_tokens}"
        return f"typicality:{hashlib.sha256(settings.encode()).hexdigest()[:16]}"

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            assert self.path is not None
            self._loaded = causal.load(self.path, self.device, self.dtype)
        return self._loaded

    def _read(self, pairs: list[str]) -> NDArray[np.float32]:
        torch = require("torch", "embed")
        model, tokenizer = self._load()
        start = causal.first_token(tokenizer)
        heads: list[list[int]] = []
        tails: list[list[int]] = []
        for pair in pairs:
            prompt, completion = json.loads(pair)
            head = tokenizer(prompt, add_special_tokens=False)["input_ids"][-self.max_tokens :]
            heads.append(head if head[:1] == [start] else [start, *head])
            tails.append(tokenizer(completion, add_special_tokens=False)["input_ids"][: self.max_tokens])
        out = Collected(len(pairs), SUMS, model.device)
        whole = [[*head, *tail] for head, tail in zip(heads, tails, strict=True)]
        with torch.inference_mode():
            for part, tokens, mask in causal.batches(whole, self.batch_size, start):
                said = mask.bool()
                for row, n in enumerate(part):
                    said[row, : len(heads[n])] = False
                tokens, mask, said = (to_device(t, model.device) for t in (tokens, mask, said))
                out.put(part, self._sums(model, tokens, mask, said[:, 1:]))
        return out.finish()

    def _sums(self, model: Any, tokens: Any, mask: Any, said: Any) -> Any:
        """(rows, `SUMS`) of one batch; ``said`` is True where the token after a place belongs to the completion."""
        torch = require("torch", "embed")
        row = said.nonzero()[:, 0]
        targets = tokens[:, 1:][said]
        sums = torch.zeros((len(tokens), SUMS), dtype=torch.float64, device=tokens.device)
        first = 0
        states, head = causal.before_head(model, tokens, mask, said)
        for some in states.split(TOKENS):
            logits = head(some)
            place = slice(first, first + len(logits))
            first = place.stop
            nats = (logits.float() / self.temperature).log_softmax(-1)
            surprise = -nats.gather(1, targets[place, None])[:, 0].double()
            weight = nats.exp()
            # A prediction that rules a token out gives it a weight of 0, whatever its log is.
            nats = nats.masked_fill(weight == 0, 0.0)
            entropy = -(weight * nats).sum(1)
            varentropy = (weight * (nats + entropy[:, None]) ** 2).sum(1)
            columns = (torch.ones_like(surprise), surprise, surprise**2, entropy.double(), varentropy.double())
            sums.index_add_(0, row[place], torch.stack(columns, dim=1))
        return sums
