"""Episodes from files: JSON lines or Parquet, one episode a row.

A row has ``completion`` (or ``text``, or ``messages``), perhaps ``prompt``, perhaps ready
``steps`` (a list of texts), and any number of numeric fields, which may feed scalar channels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._lazy import require
from sharpwave.episodes import Batch, Chunker, Text, chunk_batch

TEXT_FIELDS = ("completion", "text", "messages", "response")


@dataclass(frozen=True)
class Row:
    """One episode of a file. ``steps`` is not None where the file had them ready."""

    prompt: Text | None
    completion: Text
    steps: list[str] | None = None
    numbers: dict[str, float] = field(default_factory=dict)


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """The episodes of a ``.jsonl`` (``.json``, ``.ndjson``) or ``.parquet`` file.

    Raises:
        OSError: it cannot be read.
        ValueError: another suffix, or a row that is no episode; the row is named.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        path.stat()  # the right OSError where there is none
        table = _parquet(path)
        return [_row(path, n, data) for n, data in enumerate(table, 1)]
    if path.suffix in (".jsonl", ".ndjson", ".json"):
        return [_row(path, n, data) for n, data in _json_lines(path)]
    raise ValueError(f"{path}: expected a .jsonl or .parquet file")


def _parquet(path: Path) -> list[dict[str, Any]]:
    parquet = require("pyarrow.parquet", "demo")
    arrow = require("pyarrow", "demo")
    try:
        return parquet.read_table(path).to_pylist()
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file: {error}") from None


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                data = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            if isinstance(data, dict) and set(data) == {"key"}:
                continue  # the header of the demo's own file
            yield number, data


def _row(path: Path, number: int, data: Any) -> Row:
    if isinstance(data, str):
        return Row(None, data)
    if not isinstance(data, Mapping):
        raise ValueError(f"{path}, row {number}: expected an object, got {type(data).__name__}")
    steps = data.get("steps")
    text = next((data[f] for f in TEXT_FIELDS if data.get(f) is not None), None)
    if steps is not None and not (isinstance(steps, Sequence) and all(isinstance(s, str) for s in steps)):
        raise ValueError(f"{path}, row {number}: steps must be a list of texts")
    if text is None and steps is None:
        raise ValueError(f"{path}, row {number}: has none of {', '.join(TEXT_FIELDS)}, steps")
    if text is not None and not isinstance(text, str | Sequence):
        raise ValueError(f"{path}, row {number}: a completion is a text or a list of messages")
    numbers = {k: float(v) for k, v in data.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return Row(
        data.get("prompt"),
        "" if text is None else text,
        None if steps is None else list(steps),
        numbers,
    )


def chunk_rows(rows: Sequence[Row], chunker: Chunker) -> Batch:
    """The rows as episodes; a row with ready steps keeps them, its prompt is one context step."""
    parts = [
        chunk_batch(chunker, [row.prompt], [row.completion]) if row.steps is None else _ready(row, chunker)
        for row in rows
    ]
    lengths = [len(p.steps) for p in parts]
    return Batch(
        [s for p in parts for s in p.steps],
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([p.context[0] for p in parts], np.int64),
        [s for p in parts for s in p.spans],
    )


def _ready(row: Row, chunker: Chunker) -> Batch:
    prompt = chunk_batch(chunker, [row.prompt], [""])
    steps = prompt.steps + list(row.steps or ())
    spans = prompt.spans + [(-1, -1)] * len(row.steps or ())
    return Batch(steps, np.array([0, len(steps)], np.int64), prompt.context, spans)


def number_columns(rows: Sequence[Row], names: Sequence[str]) -> NDArray[np.float64]:
    """``(E, len(names))``: numeric fields of the rows, NaN (not observed) where one is missing.

    Raises:
        ValueError: a field that no row has.
    """
    for name in names:
        if not any(name in row.numbers for row in rows):
            raise ValueError(f"no row has a number {name!r}")
    return np.array([[row.numbers.get(name, float("nan")) for name in names] for row in rows], np.float64).reshape(
        len(rows), len(names)
    )
