"""What an embedder is, and how a bare function becomes one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce

DTYPES = ("float32", "bfloat16", "float16")


@runtime_checkable
class Embedder(Protocol):
    """``texts`` (n) to vectors ``(n, d)`` float32, one row a text, in order.

    An embedder may also have ``fingerprint: str``, a stable name of what it computes: equal
    fingerprints mean vectors that may be compared with one another.
    """

    def __call__(self, texts: list[str], /) -> NDArray[np.float32]: ...


class CallableEmbedder:
    """A bare function as an embedder: its result is coerced and checked.

    Lists, numpy arrays and torch tensors (of any device) are accepted.

    Raises:
        TypeError: ``function`` is not callable, or returns something that is no array.
        ValueError: the result is not ``(n, d)`` or holds NaN or infinities; the row is named.
    """

    def __init__(self, function: Callable[[list[str]], Any], name: str | None = None) -> None:
        if not callable(function):
            raise TypeError(f"an embedder must be callable on a list of texts, got {type(function).__name__}")
        self.function = function
        self.name = name

    @property
    def fingerprint(self) -> str:
        """``callable:module.qualname``, or the given name."""
        if self.name is not None:
            return self.name
        inner = self.function
        while hasattr(inner, "func"):  # functools.partial
            inner = inner.func  # type: ignore[attr-defined]
        named = inner if hasattr(inner, "__qualname__") else type(inner)
        return f"callable:{named.__module__}.{named.__qualname__}"

    def __call__(self, texts: list[str], /) -> NDArray[np.float32]:
        texts = check_texts(texts)
        return as_matrix(self.function(texts), len(texts))


def check_texts(texts: Sequence[str]) -> list[str]:
    """``texts`` as a list of str, or a TypeError that names the first item that is none."""
    if isinstance(texts, str):
        raise TypeError("texts must be a list of str, got one str")
    out = _coerce.sequence("texts", texts)
    for n, text in enumerate(out):
        if not isinstance(text, str):
            raise TypeError(f"texts[{n}] must be a str, got {type(text).__name__}")
    return out


def fixed_path(model: str | os.PathLike[str]) -> str:
    """A model's directory by its whole path, so that it stays the same one after a chdir; a name as it is."""
    path = os.fspath(model)
    return os.path.abspath(path) if os.path.isdir(path) else path  # noqa: PTH100, PTH112


def check_dtype(dtype: str | None) -> None:
    """A ValueError if ``dtype`` is none of `DTYPES`, nor None."""
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {DTYPES} or None, got {dtype!r}")


def as_matrix(result: Any, rows: int) -> NDArray[np.float32]:
    """An embedder's ``result`` as a finite C-contiguous ``(rows, d)`` float32 array."""
    if hasattr(result, "detach"):  # a torch tensor, without importing torch
        result = result.detach().float().cpu().numpy()
    elif isinstance(result, list | tuple) and result and hasattr(result[0], "detach"):
        result = [row.detach().float().cpu().numpy() for row in result]
    try:
        matrix = np.ascontiguousarray(np.asarray(result, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise TypeError(f"an embedder must return an (n, d) array of numbers: {error}") from None
    if rows == 0 and matrix.size == 0:
        return matrix.reshape(0, matrix.shape[-1] if matrix.ndim == 2 else 0)
    if matrix.ndim != 2 or matrix.shape[0] != rows:
        raise ValueError(f"an embedder must return one row a text: expected ({rows}, d), got {matrix.shape}")
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        raise ValueError(f"the embedder returned NaN or infinity in row {int(np.argmin(finite))}")
    return matrix


def as_embedder(embedder: Any) -> Embedder:
    """``embedder`` itself where it is one of this package's, else checked at every call."""
    if isinstance(embedder, CallableEmbedder) or getattr(embedder, "checked_embedder", False):
        return embedder
    name = getattr(embedder, "fingerprint", None)
    return CallableEmbedder(embedder, name if isinstance(name, str) else None)


def fingerprint(embedder: Any) -> str:
    """The stable name of what ``embedder`` computes, as a store records it."""
    own = getattr(embedder, "fingerprint", None)
    return own if isinstance(own, str) else CallableEmbedder(embedder).fingerprint


def weights_hash(model: Any) -> str:
    """A hash of a torch module's weights: every name and shape, and a sample of each tensor.

    Up to 4,096 values a tensor are read, evenly strided, so that a 7B model takes a second.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        flat = tensor.detach().reshape(-1)
        stride = max(1, flat.numel() // 4096)
        sample = flat[::stride].float().cpu().numpy()
        # Rounded to bfloat16 (half to even), so that a bfloat16 copy of a model has the same name.
        bits = sample.astype(np.float32).view(np.uint32)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(bits.astype("<u2").tobytes())
    return digest.hexdigest()[:16]


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at unit length; a zero row stays zero, for the store to refuse by its number."""
    norm = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    norm[norm == 0.0] = 1.0
    return np.ascontiguousarray((rows / norm[:, None]).astype(np.float32))
