"""Bodies: a structure of plain data and arrays as bytes and back, as safetensors or as JSON.

In the binary form every array is a tensor, named by its place (`steps`, `habituation.ids`, `paths.0.ids`), and what is
left goes as JSON into the header's metadata, under ``data``, with null where an array was. A tensor without dimensions
is one number, such as NaN, which JSON does not have. Any safetensors reader can
read it. What comes in is not trusted: shapes, types and sizes are checked against the bytes that are there before
anything is made of them, and arrays are views of those bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

BINARY = "application/vnd.safetensors"
JSON = "application/json"

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

_DEEPEST = 8
_HEADER = 64 << 20

Data = dict[str, Any]
Tensors = dict[str, NDArray[Any]]


class WireError(ValueError):
    """The bytes are not a valid body."""


# Binary


def pack(data: Data) -> bytes:
    """The binary form. Arrays stand anywhere in `data`; keys have no dots."""
    tensors: Tensors = {}
    rest = _without_arrays(data, "", tensors)
    header: dict[str, Any] = {"__metadata__": {"data": json.dumps(rest, separators=(",", ":"), allow_nan=False)}}
    end = 0
    # Wide elements first, so that each tensor lies at a multiple of its own width.
    order = sorted(tensors, key=lambda name: -tensors[name].itemsize)
    for name in order:
        array = tensors[name]
        header[name] = {
            "dtype": NAMES[array.dtype],
            "shape": array.shape,
            "data_offsets": (end, end + array.nbytes),
        }
        end += array.nbytes
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return b"".join([len(head).to_bytes(8, "little"), head, *(tensors[name].tobytes() for name in order)])


def unpack(body: bytes | bytearray | memoryview) -> Data:
    """The inverse of `pack`; arrays are views of `body`, and can be written to if it can.

    Raises:
        WireError: one line that says what is wrong.
    """
    view = memoryview(body)
    if len(view) < 8:
        raise WireError("the body is no safetensors file: it ends before the header")
    length = int.from_bytes(view[:8], "little")
    if length > min(_HEADER, len(view) - 8):
        raise WireError(f"the body is no safetensors file: a header of {length} bytes is not there")
    header = _object("the header", bytes(view[8 : 8 + length]))
    metadata = header.pop("__metadata__", {})
    written = metadata.get("data", "{}") if isinstance(metadata, dict) else None
    if not isinstance(written, str):
        raise WireError("the header's metadata must map strings to strings")
    data = _object("data", written)
    for name, entry in header.items():
        array = _tensor(name, entry, view[8 + length :])
        _place(data, name, array if array.ndim else array.item())
    return data


def _tensor(name: str, entry: Any, room: memoryview) -> NDArray[Any]:
    try:
        dtype, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    except KeyError as missing:
        raise WireError(f"tensor {name!r}: {missing} is no entry or no type that is known") from None
    except (TypeError, ValueError):
        raise WireError(f"tensor {name!r} must have a dtype, a shape and two data_offsets") from None
    if not isinstance(shape, list) or len(cast("list[Any]", shape)) > _DEEPEST:
        raise WireError(f"tensor {name!r} must have a shape of at most {_DEEPEST} numbers")
    sizes = cast("list[Any]", shape)
    if not all(type(size) is int and size >= 0 for size in (*sizes, begin, end)):
        raise WireError(f"tensor {name!r} must have a shape and offsets of whole numbers from 0")
    if not begin <= end <= len(room) or math.prod(sizes) * dtype.itemsize != end - begin:
        raise WireError(f"tensor {name!r} of shape {sizes} does not fit its bytes {begin} to {end} of {len(room)}")
    return np.frombuffer(room[begin:end], dtype).reshape(sizes)


def _without_arrays(value: Any, path: str, tensors: Tensors) -> Any:
    if isinstance(value, np.ndarray):
        array = np.asarray(value, order="C")
        if array.dtype.kind == "U":
            return array.tolist()
        tensors[path] = array.astype(array.dtype.newbyteorder("<"), copy=False)
        return None
    if isinstance(value, dict):
        return {key: _without_arrays(item, f"{path}.{key}" if path else key, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(item, f"{path}.{n}", tensors) for n, item in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):  # JSON has no such number
        tensors[path] = np.array(value, "<f8")
        return None
    return value


def _place(data: Data, name: str, array: Any) -> None:
    """Put an array at the place that its name gives. What holds the place must exist."""
    *path, last = name.split(".")
    where: Any = data
    try:
        for part in path:
            where = where[int(part)] if isinstance(where, list) else where[part]
        if isinstance(where, list):
            where[int(last)] = array
        elif where is data or isinstance(where, dict):
            where[last] = array
        else:
            raise TypeError
    except (KeyError, IndexError, TypeError, ValueError):
        raise WireError(f"tensor {name!r} has no place in data") from None


# JSON


def to_json(data: Data) -> bytes:
    """The JSON form: arrays are nested lists, and what JSON has no number for (NaN, infinities) is null."""
    return json.dumps(_plain(data), separators=(",", ":"), allow_nan=False).encode()


def from_json(body: bytes | bytearray | memoryview) -> Data:
    """Plain data of a JSON object; lists stay lists.

    Raises:
        WireError: it is not a JSON object.
    """
    return _object("the body", bytes(body)) if len(body) else {}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _finite(value.tolist()) if value.dtype.kind == "f" and not np.isfinite(value).all() else value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in cast("list[Any]", value)]
    return value if math.isfinite(value) else None


def _object(what: str, text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"{what} is no JSON: {error or 'it is nested too deeply'}") from None
    if not isinstance(found, dict):
        raise WireError(f"{what} must be a JSON object, got {type(found).__name__}")
    return cast("dict[str, Any]", found)


def arrays(data: Any) -> Iterator[NDArray[Any]]:
    """Every array in a structure."""
    if isinstance(data, np.ndarray):
        yield data
    elif isinstance(data, dict | list | tuple):
        for item in cast("Any", data.values() if isinstance(data, dict) else data):
            yield from arrays(item)
