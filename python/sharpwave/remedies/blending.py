"""Remedy 2: a checkpoint between the base and the tuned one, piece by piece, never with a whole model in memory.

    linear     (1 − w)·base + w·tuned                                                (Wortsman et al. 2022, WiSE-FT)
    spherical  sin((1 − w)Ω)/sin Ω · base + sin(wΩ)/sin Ω · tuned,  Ω the angle      (Shoemake 1985)

Both are sums of the two, so a method is two coefficients a tensor. w = 0 is the base and w = 1 the tuned checkpoint,
bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from sharpwave.remedies import tensors
from sharpwave.remedies.tensors import Tensor

Method = Literal["linear", "spherical"]
METHODS: tuple[str, ...] = get_args(Method)
Progress = Callable[[int, int], None]

PIECE = 1 << 20
"""How many numbers of a tensor are in memory at once."""
PARALLEL = 1e-4
"""Below this angle, in radians, the spherical coefficients are the linear ones."""


def check(weight: float, method: str) -> None:
    """Whether the two can be meant.

    Raises:
        ValueError: an unknown method, or a weight outside [0, 1].
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight must lie in [0, 1], got {weight}")


def spherical(product: float, base: float, tuned: float, weight: float) -> tuple[float, float]:
    """What base and tuned count on the great circle through both; linear where they are parallel, opposed or zero.

    Args:
        product: their inner product ⟨base, tuned⟩.
        base, tuned: their squared lengths.
        weight: w.
    """
    size = math.sqrt(base) * math.sqrt(tuned)
    angle = math.acos(max(-1.0, min(1.0, product / size))) if 0.0 < size < math.inf else 0.0
    if not PARALLEL < angle < math.pi - PARALLEL:
        return 1.0 - weight, weight
    return math.sin((1.0 - weight) * angle) / math.sin(angle), math.sin(weight * angle) / math.sin(angle)


def blend(
    base: Path | str,
    tuned: Path | str,
    out: Path | str,
    weight: float = 0.5,
    method: Method = "linear",
    progress: Progress = lambda *_: None,
) -> Path:
    """Write the blend of two checkpoints to the directory ``out``, with the base's other files; returns ``out``.

    The safetensors files of ``out`` have the base's names and headers, and each number the base's type. They are
    written in pieces of a million numbers, whatever the size of the models, and appear at once, when all is written.
    Tensors of whole numbers are the base's.

    Args:
        base, tuned: directories in transformers format with safetensors files, in one file or in shards, which need
            not be cut alike.
        weight: w in [0, 1], how much of the tuned one.
        method: ``"linear"``, or ``"spherical"``, each tensor as one vector.
        progress: called with the number of tensors that are written, and of all.

    Raises:
        ValueError: an unknown method, a weight outside [0, 1], checkpoints of different tensors, numbers of a type that
            cannot be computed with (float8), a damaged file, or ``out`` exists.
        OSError: a file cannot be read or written.
    """
    check(weight, method)
    base, tuned, out = Path(base), Path(tuned), Path(out)
    mine, others = tensors.checkpoint(base), tensors.checkpoint(tuned)
    compare(mine, others, base, tuned)
    with tensors.whole(out) as scratch:
        tensors.copy_others(base, scratch)
        done = 0
        for shard in sorted({tensor.file for tensor in mine.values()}):
            entries, head = tensors.header(shard)
            with (scratch / shard.name).open("wb") as file:
                file.write(head)
                for name, tensor in entries.items():
                    for piece in mixed(tensor, others[name], weight, method):
                        file.write(piece)
                    done += 1
                    progress(done, len(mine))
    return out


def mixed(base: Tensor, tuned: Tensor, weight: float, method: Method) -> Iterator[bytes]:
    """One blended tensor in pieces, computed in float32 (of float64, in float64) and kept in the base's type."""
    pieces = [(first, min(PIECE, base.count - first)) for first in range(0, base.count, PIECE)]
    alike = base.dtype == tuned.dtype
    if weight == 0.0 or not base.floating or (weight == 1.0 and alike):
        source = tuned if weight == 1.0 and alike else base
        yield from (source.bytes(*piece) for piece in pieces)
        return
    of_base, of_tuned = 1.0 - weight, weight
    if method == "spherical":
        product = base_squared = tuned_squared = 0.0
        for piece in pieces:
            a, b = (t.numbers(*piece).astype(np.float64) for t in (base, tuned))
            product, base_squared = product + float(np.sum(a * b)), base_squared + float(np.sum(a * a))
            tuned_squared += float(np.sum(b * b))
        of_base, of_tuned = spherical(product, base_squared, tuned_squared, weight)
    for piece in pieces:
        if weight == 1.0:
            yield tensors.encode(tuned.numbers(*piece), base.dtype)
        else:
            a, b = base.numbers(*piece), tuned.numbers(*piece)
            yield tensors.encode(of_base * a + of_tuned * b, base.dtype)


def compare(base: dict[str, Tensor], tuned: dict[str, Tensor], base_path: Path, tuned_path: Path) -> None:
    """Whether two checkpoints have the same tensors.

    Raises:
        ValueError: they have not; the first that differs is named.
    """
    for one, other, where in ((base, tuned, tuned_path), (tuned, base, base_path)):
        missing = sorted(set(one) - set(other))
        if missing:
            raise ValueError(f"{where} lacks the tensor {missing[0]!r}")
    for name in sorted(base):
        a, b = base[name], tuned[name]
        if a.shape != b.shape:
            raise ValueError(f"tensor {name!r} has the shape {a.shape} in {base_path} and {b.shape} in {tuned_path}")
        if a.floating != b.floating:
            raise ValueError(f"tensor {name!r} is {a.dtype} in {base_path} and {b.dtype} in {tuned_path}")
