"""A snapshot as arrays, and arrays as a snapshot: what experiments need that no store would do to itself.

A snapshot is a plain safetensors file with the state that is no array, and checksums, in its metadata
(`docs/format.md`).
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = {"U8": "<u1", "U32": "<u4", "I64": "<i8", "U64": "<u8", "F32": "<f4", "F64": "<f8"}
NAMES = {np.dtype(code): name for name, code in DTYPES.items()}


def read(snapshot: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays and the state of a snapshot."""
    (length,) = struct.unpack_from("<Q", snapshot)
    header = json.loads(snapshot[8 : 8 + length])
    state = json.loads(header.pop("__metadata__")["state"])
    parts = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        parts[name] = np.frombuffer(snapshot[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return parts, state


def written(parts: dict[str, NDArray[Any]], state: dict[str, Any]) -> bytes:
    """The inverse of `read`."""
    text = json.dumps(state)
    hash_ = hashlib.sha256()

    def part(data: bytes) -> None:
        hash_.update(struct.pack("<Q", len(data)))
        hash_.update(data)

    part(b"1")
    part(text.encode())
    header: dict[str, Any] = {}
    sums = {"state": zlib.crc32(text.encode())}
    at = 0
    blobs = []
    for name in sorted(parts):
        array = np.ascontiguousarray(parts[name])
        dtype, shape, blob = NAMES[array.dtype], list(array.shape), array.tobytes()
        part(name.encode())
        part(f"{dtype} {shape}".encode())
        part(blob)
        sums[name] = zlib.crc32(blob)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    header["__metadata__"] = {
        "format": "sharpwave-snapshot",
        "version": "1",
        "checksum": hash_.hexdigest(),
        "sums": json.dumps(sums, sort_keys=True, separators=(",", ":")),
        "state": text,
    }
    encoded = json.dumps(header).encode()
    return b"".join([struct.pack("<Q", len(encoded)), encoded, *blobs])
