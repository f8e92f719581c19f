"""Checkpoints as files: where each tensor lies, and its numbers a piece at a time, in NumPy alone.

A safetensors file is eight bytes, the length of a header, the header (JSON: type, shape and place of each tensor), and
the tensors end to end. Nothing here maps a file into memory: what is in memory is what was asked for.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1),
}
"""Bytes a number."""
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""What can be computed with, and how it is read."""
WEIGHT_FILES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf"})


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies: ``count`` numbers of a type from byte ``start`` of a file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def count(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.count * SIZES[self.dtype]

    @property
    def floating(self) -> bool:
        """Whether it is of floating-point numbers, of whatever kind."""
        return self.dtype.startswith(("F", "BF"))

    def bytes(self, first: int = 0, count: int | None = None) -> bytes:
        """``count`` numbers from the ``first``, as they stand in the file."""
        each = SIZES[self.dtype]
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.start + first * each)
            wanted = (self.count - first if count is None else count) * each
            found = bytearray()
            while len(found) < wanted and (more := file.read(wanted - len(found))):
                found += more
        if len(found) < wanted:
            raise ValueError(f"{self.file} is damaged: it ends inside a tensor")
        return bytes(found)

    def numbers(self, first: int = 0, count: int | None = None) -> NDArray[Any]:
        """The same as float32; as float64 where that is the tensor's type.

        Raises:
            ValueError: a type that cannot be computed with here, such as float8.
        """
        if self.dtype not in FLOATS:
            raise ValueError(f"{self.file}: numbers of type {self.dtype} cannot be blended")
        raw = np.frombuffer(self.bytes(first, count), FLOATS[self.dtype])
        if self.dtype == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw if self.dtype == "F64" else raw.astype(np.float32)

    def matrix(self) -> NDArray[Any]:
        """All of it, in its shape."""
        return self.numbers().reshape(self.shape)


def encode(values: NDArray[Any], dtype: str) -> bytes:
    """Floats as a tensor of ``dtype``, rounded to the nearest, ties to even."""
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return values.astype(FLOATS[dtype]).tobytes()
    single = np.ascontiguousarray(values, np.float32)
    bits = single.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(single), np.uint32(0x7FC0), rounded).astype("<u2").tobytes()


def header(path: Path) -> tuple[dict[str, Tensor], bytes]:
    """The tensors of a safetensors file by name, in the order in which they lie, and all bytes before the first.

    Raises:
        ValueError: the file is no safetensors file, or is damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise ValueError(f"{path} is not a safetensors file")
        raw = file.read(length)
    found: dict[str, Tensor] = {}
    place = 8 + length
    try:
        entries: dict[str, Any] = json.loads(raw)
        entries.pop("__metadata__", None)
        for name in sorted(entries, key=lambda name: (entries[name]["data_offsets"], name)):
            facts = entries[name]
            tensor = Tensor(path, str(facts["dtype"]), tuple(map(int, facts["shape"])), place)
            if facts["data_offsets"] != [place - 8 - length, place - 8 - length + tensor.size]:
                raise ValueError(name)
            found[name] = tensor
            place += tensor.size
    except (ValueError, AttributeError, KeyError, TypeError):
        raise ValueError(f"{path} is not a safetensors file, or its header is damaged") from None
    if place != size:
        raise ValueError(f"{path} is damaged: it has {size} bytes, and its header tells of {place}")
    return found, start + raw


def write(path: Path, tensors: Mapping[str, tuple[str, NDArray[Any]]]) -> None:
    """A safetensors file of named tensors, each a type and its numbers."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, (dtype, values) in tensors.items():
        end = place + values.size * SIZES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [place, end]}
        place = end
    raw = json.dumps(entries).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for dtype, values in tensors.values():
            file.write(encode(values, dtype))


def checkpoint(directory: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint in transformers format by name, in one file or in shards.

    Raises:
        OSError: there is no such directory, or a file cannot be read.
        ValueError: there is no safetensors file of a model, a file is damaged, or a name stands in two.
    """
    found: dict[str, Tensor] = {}
    for shard in _shards(directory):
        for name, tensor in header(shard)[0].items():
            if name in found:
                raise ValueError(f"{directory}: tensor {name!r} stands in {found[name].file.name} and in {shard.name}")
            found[name] = tensor
    return found


def _shards(directory: Path) -> list[Path]:
    """A checkpoint's directory holds other safetensors too: an optimiser's, an average, an adapter."""
    there(directory)
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            names: set[str] = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{index} is damaged") from None
        return [directory / name for name in sorted(names)]
    single = directory / "model.safetensors"
    shards = [single] if single.is_file() else sorted(directory.glob("model-*.safetensors"))
    if not shards:
        raise ValueError(f"{directory} holds no model.safetensors and no shards of one")
    return shards


def there(directory: Path) -> None:
    """Whether a directory is one.

    Raises:
        OSError: it is not.
    """
    if not directory.is_dir():
        code = errno.ENOTDIR if directory.exists() else errno.ENOENT
        raise OSError(code, os.strerror(code), str(directory))


@contextlib.contextmanager
def whole(out: Path) -> Generator[Path]:
    """A scratch directory beside ``out`` that becomes ``out`` at the end; nothing is left of it if something fails.

    Raises:
        ValueError: ``out`` exists.
    """
    if out.exists():
        raise ValueError(f"{out} exists already")
    made = next((p for p in reversed([out.parent, *out.parent.parents]) if not p.exists()), None)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.rename(out)
    except BaseException:
        shutil.rmtree(made or scratch, ignore_errors=True)
        raise


def copy_others(source: Path, out: Path, but: frozenset[str] = frozenset()) -> None:
    """A checkpoint's files that hold no weights: its configuration, its tokenizer."""
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix not in WEIGHT_FILES and file.name not in but:
            shutil.copy2(file, out / file.name)
