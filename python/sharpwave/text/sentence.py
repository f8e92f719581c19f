"""sentence-transformers models: batched by length, in bfloat16 on request, cached by content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._embedder import check_dtype, check_texts, fixed_path, unit, weights_hash
from sharpwave._lazy import require
from sharpwave._names import PROBES, Remembered, fields, precision, probe_of_rows, weights_state
from sharpwave.text.cache import EmbeddingCache, as_cache, plain_config, rows_of
from sharpwave.text.host import Collected


class SentenceTransformer:
    """A sentence-transformers model as an embedder; rows have unit length.

    Args:
        model: a path or name, loaded at the first call, or a loaded model.
        device: where it runs, e.g. ``"cuda:1"``; None leaves a loaded model where it is and takes
            sentence-transformers' choice for a path.
        dtype: ``"float32"``, ``"bfloat16"`` (2.5 times as fast on a CPU that has it) or
            ``"float16"``; None leaves the model's own.
        batch_size: texts a forward pass; texts are sorted by length first.
        cache: True: in memory; a path: also in that SQLite file; an `EmbeddingCache`; False: none.

    Raises:
        MissingExtra: sentence-transformers is not installed (at the first call).
        ValueError: an unknown dtype, or a batch size below 1.
    """

    checked_embedder = True

    def __init__(
        self,
        model: Any,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 64,
        cache: EmbeddingCache | str | os.PathLike[str] | bool = True,
    ) -> None:
        check_dtype(dtype)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.path = fixed_path(model) if isinstance(model, str | Path) else None
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size
        self.cache = as_cache(cache)
        self._model: Any = None if self.path is not None else self._placed(model)
        self._plain: Any = None
        self._known = Remembered()

    @property
    def model(self) -> Any:
        """The loaded sentence-transformers model."""
        if self._model is None:
            library = require("sentence_transformers", "embed")
            self._model = self._placed(library.SentenceTransformer(self.path, device=self.device))
            self._plain = None
        return self._model

    @property
    def _network(self) -> Any:
        """What computes the rows: `model`, or a plain BERT in its place as long as nobody has asked for `model`."""
        if self._model is None and self._plain is None and self.path is not None:
            self._plain = self._without_library(Path(self.path))
        return self.model if self._plain is None else self._plain

    def _without_library(self, path: Path) -> Any:
        """The model as `bert.load` reads it; None where it cannot, or where the library would choose an accelerator."""
        torch = require("torch", "embed")
        if not path.is_dir() or (
            self.device is None and (torch.cuda.is_available() or torch.backends.mps.is_available())
        ):
            return None
        try:
            from sharpwave.text import bert
        except ImportError:  # safetensors, tokenizers: sentence-transformers says which one is missing
            return None
        found = bert.load(path)
        return None if found is None else self._placed(found)

    def _placed(self, model: Any) -> Any:
        if self.device is not None:
            model = model.to(self.device)
        if self.dtype is not None:
            model = model.to(getattr(require("torch", "embed"), self.dtype))
        return model.eval()

    @property
    def dim(self) -> int:
        """The dimension of a row."""
        model = self._network
        named = getattr(model, "get_embedding_dimension", None)
        return int(named() if named else model.get_sentence_embedding_dimension())

    @property
    def fingerprint(self) -> str:
        """The model's weights, what is set about it now, and a probe; `embed.agree` compares two.

        Fingerprints agree at every precision and on every device.
        """
        model, settings = self._network, self._settings()
        return self._known(
            (settings, model.max_seq_length, self.dim, weights_state(model)),
            lambda: (
                f"sentence-transformers:{weights_hash(model)}:{model.max_seq_length}:{self.dim}"
                f"{settings}{fields(probe=probe_of_rows(self._encode(list(PROBES))))}"
            ),
        )

    def _settings(self) -> str:
        """What changes a vector and is no weight, as far as it is known."""
        model = self._network
        modules = list(model)
        poolings = [m for m in modules if hasattr(m, "include_prompt")]
        prompt = model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None
        return fields(
            modules="-".join(type(m).__name__ for m in modules),
            pool="-".join(f"{_pooling(m)}{'' if m.include_prompt or not prompt else '.noprompt'}" for m in poolings),
            prompt=prompt or "",
            lower=int(any(getattr(m, "do_lower_case", False) for m in modules)),
        )

    @property
    def config(self) -> dict[str, Any]:
        """Plain data from which `from_config` builds this embedder again."""
        return plain_config(self, "sentence-transformers", "device", "dtype", "batch_size")

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self.path is not None:
            state["_model"] = state["_plain"] = None  # loaded again where it is used
        return state

    def __call__(self, texts: list[str], /) -> NDArray[np.float32]:
        return rows_of(self.cache, self._namespace, check_texts(texts), self._encode, self.dim)

    def _namespace(self) -> str:
        return f"{self.fingerprint}:{precision(self._network)}"

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda n: (-len(texts[n]), n))
        rows = self._network.encode(
            [texts[n] for n in order],
            batch_size=self.batch_size,
            show_progress_bar=False,
            convert_to_numpy=False,
            convert_to_tensor=True,
            normalize_embeddings=False,
        )
        collected = Collected(len(texts), rows.shape[1], rows.device)
        collected.put(order, rows)
        return unit(collected.finish())


def _pooling(module: Any) -> str:
    """``mean``, ``cls``, …, in every version of sentence-transformers."""
    mode = getattr(module, "pooling_mode", None) or module.get_pooling_mode_str()
    return mode if isinstance(mode, str) else ".".join(mode)
