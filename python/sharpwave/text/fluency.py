"""How likely a language model finds a text, as a direction that an encoder of meaning lacks.

A sentence encoder barely sees the order of words: of a shuffled text it makes nearly the vector of the text. What tells
order from disorder is a language model. `Fluency` puts its surprise on an arc, and `Joined` puts that beside the
meaning, so that support, drives and edges ask for both.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._embedder import check_dtype, check_texts, fixed_path, weights_hash
from sharpwave._lazy import require
from sharpwave._names import PROBES, Remembered, fields, precision, probe_of, weights_state
from sharpwave.text import causal
from sharpwave.text.cache import EmbeddingCache, as_cache, plain_config, rows_of
from sharpwave.text.host import Collected, to_device

Floats = NDArray[np.float64]


class Fluency:
    """A text's surprise under a causal language model as a unit vector ``(cos θ, sin θ)``.

    The surprise is the mean of −log p over the text's tokens, in nats, read on its own behind the tokenizer's first
    token. It is turned into an angle,

        θ = π/2 · clip((surprise − low)/(high − low), 0, 2)

    so that two fluent texts agree (cosine 1), and a fluent and a scrambled one are at right angles or opposed.

    Args:
        model: a loaded causal language model, or a path (then the tokenizer is loaded from it too).
        tokenizer: its tokenizer.
        low, high: nats a token; `fit` measures them.
        max_tokens: longer texts are cut.
        device, dtype, batch_size, cache: as for `SentenceTransformer`. A model that is being trained changes under a
            cache: leave it off there.

    Raises:
        ValueError: an unknown dtype, ``low`` not below ``high``, or a loaded model without its tokenizer.
    """

    checked_embedder = True
    dim = 2

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        low: float = 4.0,
        high: float = 7.0,
        max_tokens: int = 64,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 64,
        cache: EmbeddingCache | str | os.PathLike[str] | bool = True,
    ) -> None:
        check_dtype(dtype)
        if batch_size < 1 or max_tokens < 2:
            raise ValueError("batch_size must be at least 1 and max_tokens at least 2")
        self.path = fixed_path(model) if isinstance(model, str | os.PathLike) else None
        if self.path is None and tokenizer is None:
            raise ValueError("a loaded model needs its tokenizer")
        self.device, self.dtype = device, dtype
        self.max_tokens, self.batch_size = max_tokens, batch_size
        self.cache = as_cache(cache)
        self._loaded: tuple[Any, Any] | None = None if self.path is not None else (model, tokenizer)
        self._known = Remembered()
        self.set_range(low, high)

    def set_range(self, low: float, high: float) -> None:
        """The surprise that counts as fluent, and the one at a right angle to it, in nats a token."""
        if not low < high:
            raise ValueError(f"low must lie below high, got {low} and {high}")
        self.low, self.high = float(low), float(high)

    def fit(self, texts: Sequence[str], most: int = 512, seed: int = 0) -> tuple[float, float]:
        """Set and return the range: low the 0.95 quantile of the texts' surprise, high the median of their shuffles'.

        The sample is all different texts, or ``most`` of them at even strides if there are more; each is shuffled word
        by word. Nearly everything that is written like the texts is then equally fluent.

        Raises:
            ValueError: there is no text, or shuffling does not make the texts less likely.
        """
        known = list(dict.fromkeys(check_texts(texts)))
        known = [known[n * len(known) // most] for n in range(most)] if len(known) > most else known
        if not known:
            raise ValueError("fit needs at least one text")
        order = np.random.default_rng(seed)
        shuffled = [" ".join(order.permutation(t.split()).tolist()) for t in known]
        low, high = float(np.quantile(self.surprise(known), 0.95)), float(np.median(self.surprise(shuffled)))
        if not low < high:
            raise ValueError(
                f"shuffling the texts' words does not make them less likely: {low:.2f} and {high:.2f} nats"
            )
        self.set_range(low, high)
        return self.low, self.high

    def surprise(self, texts: Sequence[str]) -> Floats:
        """``(n,)`` nats a token of each text."""
        rows = rows_of(self.cache, self._namespace, check_texts(texts), self._read, 1)
        return rows[:, 0].astype(np.float64)

    def __call__(self, texts: list[str], /) -> NDArray[np.float32]:
        texts = check_texts(texts)
        reach = np.clip((self.surprise(texts) - self.low) / (self.high - self.low), 0.0, 2.0)
        theta = math.pi / 2 * reach
        return np.stack([np.cos(theta), np.sin(theta)], axis=1).astype(np.float32)

    @property
    def fingerprint(self) -> str:
        """The model's weights (as they are now), the cut-off, the range and a probe; `embed.agree` compares two."""
        return f"{self._name}:{self.low!r}:{self.high!r}{self._probe}"

    @property
    def _name(self) -> str:
        return f"fluency:{self._found()[0]}:{self.max_tokens}"

    def _namespace(self) -> str:
        return f"{self._name}{self._probe}:{precision(self._load()[0])}"

    @property
    def _probe(self) -> str:
        return self._found()[1]

    def _found(self) -> list[str]:
        """The hash of the weights, and the surprise of the probes: the range is not part of it."""
        model, _ = self._load()
        return self._known(
            (self.max_tokens, weights_state(model)),
            lambda: f"{weights_hash(model)} {fields(probe=probe_of(self._read(list(PROBES))))}",
        ).split(" ")

    @property
    def config(self) -> dict[str, Any]:
        """Plain data from which `from_config` builds this embedder again."""
        names = "low", "high", "max_tokens", "device", "dtype", "batch_size"
        return plain_config(self, "fluency", *names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None if self.path is not None else self._loaded}

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            assert self.path is not None
            self._loaded = causal.load(self.path, self.device, self.dtype)
        return self._loaded

    def _read(self, texts: list[str]) -> NDArray[np.float32]:
        torch = require("torch", "embed")
        model, tokenizer = self._load()
        start = causal.first_token(tokenizer)
        ids = [
            [start, *tokenizer(t or " ", add_special_tokens=False)["input_ids"][: self.max_tokens - 1]] for t in texts
        ]
        out = Collected(len(texts), 1, model.device)
        with torch.inference_mode():
            for part, tokens, mask in causal.batches(ids, self.batch_size, start):
                tokens, mask = to_device(tokens, model.device), to_device(mask, model.device)
                said = mask[:, 1:].bool()
                states, head = causal.before_head(model, tokens, mask, said)
                spent = torch.zeros(said.shape, device=model.device)
                spent[said] = torch.nn.functional.cross_entropy(
                    head(states).float(), tokens[:, 1:][said], reduction="none"
                )
                out.put(part, (spent.sum(1) / said.sum(1).clamp(min=1))[:, None])
        return out.finish()
