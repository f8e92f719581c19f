"""Coercion: whatever a caller passes becomes the flat arrays that the core borrows. The one place where it happens.

C-contiguous float32 NumPy and CPU torch tensors (through DLPack) pass without a copy; CUDA tensors are copied through
pinned memory; lists, other dtypes and strided arrays are converted. Dtypes and shapes are checked here; values
(NaN, infinities, zero rows, offsets that do not fit, unknown ids) are checked by the core. Every message names its
argument.

Columns of pandas, polars and Arrow are taken by position: the label of a row never counts, and a missing value is NaN
among numbers and None among texts.
"""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Array: TypeAlias = "ArrayLike | Any"
"""A NumPy array, a torch tensor, anything with `__dlpack__` or `__array__` (a pandas or polars Series or DataFrame, an
Arrow array, chunked array or table), or nested sequences of numbers."""

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a pair that UTF-16 has for one character: a str may hold it, UTF-8 may not."""


# Arrays


def rows(name: str, data: Array, dim: int) -> NDArray[np.float32]:
    """An (n, dim) float32 matrix."""
    array = _numbers(name, data)
    if array.size == 0 and array.ndim < 2:
        array = array.reshape(0, dim)
    if array.ndim != 2 or array.shape[1] != dim:
        raise ValueError(f"{name} must have shape (n, {dim}), got {array.shape}")
    return _float32(array)


def batch(name: str, data: Array, dim: int) -> NDArray[np.float32]:
    """`rows`, where a single (dim,) vector is a batch of one."""
    array = _numbers(name, data)
    if array.ndim == 1 and array.size:
        array = array.reshape(1, -1)
    return rows(name, array, dim)


def vector(name: str, data: Array, dim: int) -> NDArray[np.float32]:
    """A (dim,) float32 vector; a (1, dim) matrix is taken for one."""
    array = _numbers(name, data)
    if array.shape not in ((dim,), (1, dim)):
        raise ValueError(f"{name} must have shape ({dim},), got {array.shape}")
    return _float32(array.reshape(dim))


def offsets(data: Array | None, total: int) -> NDArray[np.int64]:
    """(E+1,) int64, Arrow style; None means that all steps are one episode."""
    if data is None:
        return np.array([0, total], np.int64)
    array = integers("offsets", data)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"offsets must have shape (E+1,), got {array.shape}")
    return array


def integers(name: str, data: Array) -> NDArray[np.int64]:
    """An int64 array of any shape. Floats are refused: an id or an offset is not a measurement."""
    array = _numbers(name, data)
    if array.size and array.dtype.kind == "f":
        unknown = np.flatnonzero(np.isnan(array.ravel()))
        found = f"entry {unknown[0]} is missing or NaN" if unknown.size else f"got dtype {array.dtype}"
        raise TypeError(f"{name} must hold integers, {found}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds a number beyond int64")
    return np.asarray(array, np.int64, order="C")


def per_episode(name: str, data: Array | None, episodes: int) -> NDArray[np.int64] | None:
    """(E,) int64, or None."""
    if data is None:
        return None
    array = integers(name, data)
    if array.ndim == 0 and episodes == 1:
        array = array.reshape(1)
    if array.shape != (episodes,):
        raise ValueError(f"{name} must have shape ({episodes},), one an episode, got {array.shape}")
    return array


def context(data: bool | int | Array, episodes: int) -> NDArray[np.int64]:
    """How many leading steps of each episode are prompt: True is one, False none."""
    if data is None:
        raise TypeError("context must be a bool, an int or one int an episode, got None")
    if isinstance(data, bool | np.bool_):
        return np.full(episodes, int(data), np.int64)
    array = integers("context", data)
    if array.ndim == 0:
        array = np.full(episodes, int(array), np.int64)
    if array.shape != (episodes,):
        raise ValueError(f"context must be one number or have shape ({episodes},), got {array.shape}")
    if (array < 0).any():
        raise ValueError(f"context must not be negative, episode {int(np.argmax(array < 0))} has {array.min()}")
    return array


def drives(
    data: Array | Mapping[str, Array],
    channels: Sequence[str],
    offsets: NDArray[np.int64],
    total: int,
) -> NDArray[np.float32]:
    """(ΣT, Qs) float32, NaN where nothing was observed; one row an episode is credited to its last step.

    `channels` are the scalar channels in the order of their columns. A dict by channel name may leave some out.
    """
    if not isinstance(data, Mapping):
        return _drives(data, channels, offsets, total)
    table = np.full((total, len(channels)), np.nan, np.float32)
    for name, column in data.items():
        if name not in channels:
            raise KeyError(f"drives: no scalar channel {name!r}, there are {list(channels)}")
        table[:, channels.index(name)] = _drives(column, [name], offsets, total)[:, 0]
    return table


def _drives(data: Array, channels: Sequence[str], offsets: NDArray[np.int64], total: int) -> NDArray[np.float32]:
    _same_order("drives", _columns(data), channels)
    array = _numbers("drives", data)
    if array.ndim == 1 and (len(channels) == 1 or array.size == 0):
        array = array.reshape(-1, len(channels))
    episodes = len(offsets) - 1
    if array.shape == (total, len(channels)):
        return _float32(array)
    if array.shape == (episodes, len(channels)):
        return _at_last_step(_float32(array), offsets, total)
    raise ValueError(
        f"drives must have shape ({total}, {len(channels)}), one row a step, or "
        f"({episodes}, {len(channels)}), one row an episode, for the scalar channels "
        f"{list(channels)}; got {array.shape}"
    )


def _at_last_step(array: NDArray[np.float32], offsets: NDArray[np.int64], total: int) -> NDArray[np.float32]:
    """Rows of episodes become rows of their last steps. Offsets that do not fit are left for the core to name."""
    table = np.full((total, array.shape[1]), np.nan, np.float32)
    for episode, row in enumerate(array):
        first, end = offsets[episode], offsets[episode + 1]
        if first >= end:
            if not np.isnan(row).all():
                raise ValueError(f"drives: episode {episode} has no step to credit")
        elif 0 < end <= total:
            table[end - 1] = row
    return table


def weights(data: Array | Mapping[str, float], channels: Sequence[str]) -> NDArray[np.float64]:
    """(Q,) float64. In a dict by channel name, channels left out weigh 0."""
    if isinstance(data, Mapping):
        table = np.zeros(len(channels))
        for name, weight in data.items():
            if name not in channels:
                raise KeyError(f"weights: no channel {name!r}, there are {list(channels)}")
            table[channels.index(name)] = number("weights", weight)
        return table
    _same_order("weights", getattr(data, "index", None), channels)
    array = _numbers("weights", data)
    if array.ndim == 0:
        array = array.reshape(1)
    if array.shape != (len(channels),):
        raise ValueError(
            f"weights must have shape ({len(channels)},) for the channels {list(channels)}, got {array.shape}"
        )
    return np.asarray(array, np.float64, order="C")


def _columns(data: Any) -> Any:
    """The names of a table's columns (pandas, polars, Arrow), or None."""
    return next((getattr(data, name) for name in ("column_names", "columns") if hasattr(type(data), name)), None)


def _same_order(name: str, labels: Any, channels: Sequence[str]) -> None:
    """Numbers are taken by position: labels that name the channels in another order are refused."""
    if labels is None or not isinstance(labels, Iterable):
        return
    labels = list(labels)
    if labels != list(channels) and any(isinstance(label, str) and label in channels for label in labels):
        raise ValueError(
            f"{name} is labelled {labels}, and the channels are {list(channels)}: give it in their order, "
            f"or as a dict by channel name"
        )


def numbers(name: str, data: Array) -> NDArray[np.float64]:
    """A float64 array of any shape; booleans are 0 and 1."""
    array = _array(name, data)
    return _numbers(name, array.astype(np.uint8) if array.dtype.kind == "b" else array).astype(np.float64)


def table(name: str, data: Array | None, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """A float32 array of exactly this shape, or None."""
    if data is None:
        return None
    array = _numbers(name, data)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return _float32(array)


# Sequences and strings


def sequence(name: str, data: Any) -> list[Any]:
    """The items of a sequence, by position.

    Lists, tuples, iterators, NumPy arrays, torch tensors, a pandas or polars Series, a pandas Index or Categorical, an
    Arrow array or chunked array. A text, a dict, a set and a table are none.

    Raises:
        TypeError: ``data`` is no sequence.
    """
    if hasattr(type(data), "column_names") or hasattr(type(data), "columns"):
        raise TypeError(f"{name} must be a sequence, got a table ({type(data).__name__}): pass one of its columns")
    if isinstance(data, str | bytes | Mapping | Set) or not isinstance(data, Iterable):
        raise TypeError(f"{name} must be a sequence, got {type(data).__name__}")
    if getattr(data, "shape", None) == ():
        raise TypeError(f"{name} must be a sequence, got a single value")
    for method in ("to_pylist", "to_list", "tolist"):  # Arrow; pandas and polars; NumPy and torch
        if hasattr(data, method):
            return getattr(data, method)()
    return list(data)


def missing(value: Any) -> bool:
    """Whether a value stands for none: None, NaN, or the NA and NaT of pandas."""
    if isinstance(value, float):
        return value != value
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def texts(name: str, data: Iterable[str | None] | None, count: int) -> list[str | None] | None:
    """One string (or None) for each of `count` rows."""
    if data is None:
        return None
    strings = [None if missing(item) else item for item in sequence(name, data)]
    if len(strings) != count:
        raise ValueError(f"{name} must be {count} strings, one a row, got {len(strings)}")
    for row, item in enumerate(strings):
        if item is not None:
            string(f"{name} row {row}", item)
    return strings


def string(name: str, value: Any) -> str:
    """A str that UTF-8 can hold, and nothing else."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {type(value).__name__}")
    if not value.isascii() and (found := SURROGATE.search(value)):
        raise ValueError(f"{name} holds half a surrogate pair at character {found.start()}, which UTF-8 cannot hold")
    return value


# Scalars


def flag(name: str, value: Any) -> bool:
    """A bool, and nothing else."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise TypeError(f"{name} must be a bool, got {type(value).__name__}")


def whole(name: str, value: Any) -> int:
    """An int, a NumPy integer, or a float without a fraction."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be a whole number, got bool")
    try:
        integer = operator.index(value)
    except TypeError:
        real = number(name, value)
        if not real.is_integer():
            raise ValueError(f"{name} must be a whole number, got {real}") from None
        integer = int(real)
    if not -sys.maxsize <= integer <= sys.maxsize:
        raise ValueError(f"{name}: {integer} is beyond 64 bits")
    return integer


def count(name: str, value: Any) -> int:
    """A whole number from 0."""
    integer = whole(name, value)
    if integer < 0:
        raise ValueError(f"{name} must not be negative, got {integer}")
    return integer


def threads(value: Any) -> int | None:
    """A number of threads from 1, or None for the default number."""
    if value is None:
        return None
    integer = count("num_threads", value)
    if integer < 1:
        raise ValueError("num_threads must be at least 1")
    return integer


def number(name: str, value: Any) -> float:
    """A float, an int, a NumPy or torch scalar."""
    if isinstance(value, bool | np.bool_ | str | bytes | bytearray):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if getattr(value, "shape", ()) != ():
        raise TypeError(f"{name} must be a number, got an array of shape {tuple(value.shape)}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}") from None
    except OverflowError:
        raise ValueError(f"{name} is too large") from None


# What the rest stands on


def _float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """A number beyond float32 becomes an infinity, which the core refuses by its row."""
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32, order="C")


def _numbers(name: str, data: Array) -> NDArray[Any]:
    """A NumPy array of real numbers, borrowed where that is possible."""
    array = _unboxed(name, _array(name, data))
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array


def _array(name: str, data: Array) -> NDArray[Any]:
    if isinstance(data, np.ndarray):
        return np.asarray(data)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(data, torch.Tensor):
        return _from_torch(name, data, torch)
    if data is None or isinstance(data, str | bytes | Mapping | Set | Iterator):
        raise TypeError(f"{name} must be an array of numbers, got {type(data).__name__}")
    if isinstance(data, Sequence):  # perhaps of tensors
        data = [_array(name, item) if hasattr(item, "__dlpack__") else item for item in data]
    try:
        # Arrow has both, and its DLPack knows neither lists nor nulls.
        only_dlpack = hasattr(data, "__dlpack__") and not hasattr(data, "__array__")
        return np.from_dlpack(cast("Any", data)) if only_dlpack else np.asarray(data)
    except ValueError as error:
        raise ValueError(f"{name} is no rectangular array of numbers: {error}") from None
    except (TypeError, BufferError, RuntimeError) as error:
        raise TypeError(f"{name} cannot be read as an array: {error}") from None


def _unboxed(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """An array of objects (a nullable column, a column of lists) as the numbers it holds; missing ones are NaN."""
    if array.dtype.kind != "O" or array.ndim == 0:
        return array
    items = [np.nan if missing(item) else item for item in array.ravel()]
    if any(isinstance(item, bool | str) for item in items):
        return array
    try:
        numbers = np.asarray(items)
    except ValueError as error:
        raise ValueError(f"{name} is no rectangular array of numbers: {error}") from None
    numbers = numbers.reshape(array.shape + numbers.shape[1:])
    return _unboxed(name, numbers) if numbers.ndim > array.ndim else numbers


def _from_torch(name: str, tensor: Any, torch: Any) -> NDArray[Any]:
    if tensor.is_sparse or tensor.is_quantized or tensor.device.type == "meta":
        raise TypeError(f"{name} must be a dense tensor, got {tensor.layout} on {tensor.device}")
    tensor = tensor.detach()
    if tensor.device.type == "cuda":
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        pinned.copy_(tensor, non_blocking=True)
        torch.cuda.current_stream(tensor.device).synchronize()
        tensor = pinned
    elif tensor.device.type != "cpu":
        tensor = tensor.cpu()
    if tensor.dtype == torch.bfloat16:  # unknown to NumPy
        tensor = tensor.float()
    return np.from_dlpack(tensor.resolve_conj().resolve_neg())
