"""A transformers model's own hidden states as embeddings, also of a forward pass that ran anyway.

Any layer, pooled by mean (or the last token). A policy or reference model that has just read a
completion has already computed these: `HiddenStates.pool` takes that pass's hidden states.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._embedder import check_dtype, check_texts, unit, weights_hash
from sharpwave._lazy import require
from sharpwave._names import PROBES, Remembered, fields, precision, probe_of_rows, weights_state
from sharpwave.text.cache import EmbeddingCache, as_cache, rows_of
from sharpwave.text.host import Collected, to_device

POOLS = ("mean", "last")


class HiddenStates:
    """Pooled hidden states of a transformers model; rows have unit length.

    Args:
        model: a loaded model, or a path (then the tokenizer is loaded from it too).
        tokenizer: needed with a loaded model.
        layer: which hidden state: 0 the embeddings, 1 … n the layers, negative from the end.
        pool: ``"mean"`` over a text's tokens, or its ``"last"`` token.
        center: ``(d,)`` subtracted before normalising: hidden states share a large common
            direction; `fit_center` measures it. It is part of the fingerprint.
        max_tokens: longer texts are cut.
        device, dtype, batch_size, cache: as for `SentenceTransformer`. A model that is being
            trained changes under a cache: leave it off (the default).

    Raises:
        ValueError: an unknown pool or dtype, a layer that the model does not have, or a loaded
            model without its tokenizer.
    """

    checked_embedder = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        layer: int = -1,
        pool: str = "mean",
        center: NDArray[np.float32] | None = None,
        max_tokens: int = 256,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 16,
        cache: EmbeddingCache | str | os.PathLike[str] | bool = False,
    ) -> None:
        if pool not in POOLS:
            raise ValueError(f"pool must be one of {POOLS}, got {pool!r}")
        check_dtype(dtype)
        if batch_size < 1 or max_tokens < 1:
            raise ValueError("batch_size and max_tokens must be at least 1")
        if isinstance(model, str | os.PathLike):
            transformers = require("transformers", "embed")
            path = os.fspath(model)
            model = transformers.AutoModel.from_pretrained(path)
            tokenizer = tokenizer or transformers.AutoTokenizer.from_pretrained(path)
        if tokenizer is None:
            raise ValueError("a loaded model needs its tokenizer")
        if device is not None:
            model = model.to(device)
        if dtype is not None:
            model = model.to(getattr(require("torch", "embed"), dtype))
        self.model = model
        self.tokenizer = tokenizer
        self.pool_name = pool
        self.center = None if center is None else np.asarray(center, np.float32)
        self.max_tokens = max_tokens
        self.batch_size = batch_size
        self.cache = as_cache(cache)
        self.layer = self._layer_index(layer)
        self._known = Remembered()

    def _layer_index(self, layer: int) -> int:
        layers = getattr(self.model.config, "num_hidden_layers", None)
        if layers is None:
            return layer
        index = layer if layer >= 0 else layers + 1 + layer
        if not 0 <= index <= layers:
            raise ValueError(f"layer must lie in [{-layers - 1}, {layers}], got {layer}")
        return index

    @property
    def dim(self) -> int:
        """The dimension of a row."""
        return int(self.model.config.hidden_size)

    @property
    def fingerprint(self) -> str:
        """Weights (as they are now), settings and a probe, of texts read on their own; `embed.agree` compares two."""
        return self._name("alone")

    @property
    def contextual_fingerprint(self) -> str:
        """The same for `pool`: steps read in their context are another kind of vector."""
        return self._name("context")

    def _name(self, mode: str) -> str:
        shift = b"" if self.center is None else self.center.tobytes()
        centre = f":{shift.hex()[:16]}" if shift else ""
        settings = fields(cut=self.max_tokens, centre=hashlib.sha256(shift).hexdigest()[:16] if shift else "")
        state = (self.layer, self.pool_name, settings, weights_state(self.model))
        found = self._known(
            state,
            lambda: f"{weights_hash(self.model)} {fields(probe=probe_of_rows(self._encode(list(PROBES))))}",
        )
        weights, probe = found.split(" ")
        return f"hidden-states:{weights}:{self.layer}:{self.pool_name}:{mode}{centre}{settings}{probe}"

    def __call__(self, texts: list[str], /) -> NDArray[np.float32]:
        return rows_of(self.cache, self._namespace, check_texts(texts), self._encode, self.dim)

    def _namespace(self) -> str:
        return f"{self.fingerprint}:{precision(self.model)}"

    def fit_center(self, texts: list[str]) -> NDArray[np.float32]:
        """Set and return the centre ``(d,)``: the mean row over ``texts``."""
        self.center = None
        self.center = np.asarray(self._encode(check_texts(texts)).mean(axis=0), np.float32)
        return self.center

    def pool(self, hidden_states: Any, steps: Any) -> NDArray[np.float32]:
        """Rows for the steps of a batch whose forward pass ran anyway.

        Args:
            hidden_states: the pass's tuple of hidden states (this embedder's layer is taken), or
                one layer ``(B, T, d)``.
            steps: ``(B, T)`` integers: the step of each token, counted from 0 in each row, and
                −1 for tokens of no step (`sharpwave.episodes.token_steps` gives them).

        Returns:
            ``(Σ steps, d)`` float32, row by row of the batch, steps in order.

        Raises:
            ValueError: shapes that do not fit, or a step number without a token.
        """
        torch = require("torch", "embed")
        if isinstance(hidden_states, tuple | list):
            hidden_states = hidden_states[self.layer]
        hidden = hidden_states.detach()
        step = torch.as_tensor(steps, device=hidden.device).long()
        if hidden.ndim != 3 or step.shape != hidden.shape[:2]:
            raise ValueError(
                f"steps must be (B, T) for hidden states (B, T, d), got {tuple(step.shape)} for {tuple(hidden.shape)}"
            )
        counts = step.amax(dim=1).clamp(min=-1) + 1
        first = torch.cumsum(counts, 0) - counts
        total = int(counts.sum())
        taken = step >= 0
        row = (step + first[:, None])[taken]
        values = hidden[taken].float()
        size = torch.zeros(total, device=hidden.device).index_add_(0, row, torch.ones_like(row, dtype=torch.float32))
        if total and bool((size == 0).any()):
            raise ValueError(f"step {int((size == 0).int().argmax())} of the batch has no token")
        out = torch.zeros(total, hidden.shape[2], device=hidden.device)
        if self.pool_name == "mean":
            out.index_add_(0, row, values)
            out /= size[:, None]
        else:
            last = torch.zeros(total, dtype=torch.long, device=hidden.device)
            last.scatter_reduce_(0, row, torch.arange(len(row), device=hidden.device), "amax")
            out = values[last] if total else out
        return self._finish(out.cpu().numpy())

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        torch = require("torch", "embed")
        order = sorted(range(len(texts)), key=lambda n: (-len(texts[n]), n))
        rows = Collected(len(texts), self.dim, self.model.device)
        was_training = self.model.training
        self.model.eval()
        body = getattr(self.model, "base_model", self.model)
        try:
            with torch.inference_mode():
                for first in range(0, len(order), self.batch_size):
                    part = order[first : first + self.batch_size]
                    rows.put(part, self._forward(body, [texts[n] or " " for n in part]))
        finally:
            self.model.train(was_training)
        return self._finish(rows.finish())

    def _forward(self, body: Any, texts: list[str]) -> Any:
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        inputs = self.tokenizer(
            texts,
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
        )
        inputs = {k: to_device(v, self.model.device) for k, v in inputs.items() if k != "token_type_ids"}
        hidden = body(**inputs, output_hidden_states=True).hidden_states[self.layer].float()
        mask = inputs["attention_mask"]
        if self.pool_name == "mean":
            weight = mask[..., None].float()
            pooled = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1.0)
        else:
            places = mask.new_ones(mask.shape).cumsum(1) * mask
            pooled = hidden[range(len(texts)), places.argmax(1)]
        return pooled

    def _finish(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return unit(rows if self.center is None else rows - self.center)
