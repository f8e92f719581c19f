"""Episodes from files: JSON lines, a JSON array or Parquet, one episode a row.

A row has ``completion`` (or ``text``, or ``messages``), perhaps ``prompt``, perhaps ready
``steps`` (a list of texts), and any number of numeric fields, which may feed scalar channels.
``messages`` are a whole conversation: its prompt ends with the last turn of a user or the system.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave._lazy import require
from sharpwave.text.chunkers import Batch, Chunker, Text, Unreadable, chunk_batch
from sharpwave.text.messages import OWN_ROLES, own_from, split_turns, turns

TEXT_FIELDS = ("completion", "text", "messages", "response")
_TEXTS = ("prompt", "steps", *TEXT_FIELDS)
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}


@dataclass(frozen=True)
class Row:
    """One episode of a file. ``steps`` is not None where the file had them ready; ``place`` is its file and row.

    ``whole``: prompt and completion are one conversation, cut after the last turn of a user or the system.
    ``labels`` are the fields that are texts.
    """

    prompt: Text | None
    completion: Text
    steps: list[str] | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    place: str = ""
    whole: bool = False
    labels: dict[str, str] = field(default_factory=dict[str, str])


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """The episodes of a ``.jsonl`` (``.ndjson``, ``.json``) file, packed (``.gz``, ``.bz2``, ``.xz``) or not, or of a
    ``.parquet`` file. A JSON file may be one array of rows. Suffixes may be in capitals.

    Raises:
        OSError: it cannot be read.
        ValueError: another suffix, or a row that is no episode; the row is named.
    """
    return [_row(place, data) for place, data in _table(Path(path))]


def read_fields(path: str | os.PathLike[str], fields: Sequence[str], numbers: Sequence[str]) -> dict[str, list[Any]]:
    """Some fields of every row of a file that `read_rows` could open, whatever else the rows hold.

    Raises:
        OSError: it cannot be read.
        ValueError: no row, or one without a field, or without a finite number in one of ``numbers``; it is named.
    """
    columns: dict[str, list[Any]] = {name: [] for name in (*fields, *numbers)}
    place = ""
    for place, data in _table(Path(path)):
        if not isinstance(data, Mapping):
            raise ValueError(f"{place}: expected an object, got {type(data).__name__}")
        known = _numbers(data)
        for name in fields:
            if name not in data:
                raise ValueError(f"{place}: has no field {name!r}")
            columns[name].append(data[name])
        for name in numbers:
            if not math.isfinite(known.get(name, math.nan)):
                raise ValueError(f"{place}: has no number {name!r}")
            columns[name].append(known[name])
    if not place:
        raise ValueError(f"{path} holds no row")
    return columns


def _table(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a file, each with its place."""
    suffix = suffix_of(path)
    if suffix == ".parquet":
        path.stat()  # the right OSError where there is none
        found = enumerate(_parquet(path), 1)
    elif suffix in JSON_SUFFIXES:
        found = _json_rows(path)
    else:
        raise ValueError(f"{path}: expected a .jsonl, .json or .parquet file")
    for number, data in found:
        yield f"{path}, row {number}", data


def suffix_of(path: Path) -> str:
    """What kind of file it is, by its name: in small letters, and without what it is packed with."""
    named = Path(path.stem) if path.suffix.lower() in PACKED else path
    return named.suffix.lower()


def _parquet(path: Path) -> list[dict[str, Any]]:
    parquet = require("pyarrow.parquet", "parquet")
    arrow = require("pyarrow", "parquet")
    if path.suffix.lower() != ".parquet":
        raise ValueError(f"{path}: a Parquet file is packed in itself: unpack it")
    try:
        return parquet.read_table(path).to_pylist()
    except arrow.ArrowException as error:
        raise ValueError(f"{path} is not a Parquet file: {error}") from None


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a file of JSON lines by their line, or of one array by their place in it."""
    text = _text(path)
    if text.lstrip().startswith("["):  # else a list would be a row
        whole = _parsed(f"{path}", text)
        if isinstance(whole, list):
            yield from enumerate(whole, 1)
            return
    lines = text.split("\n")
    if suffix_of(path) == ".json" and text.strip() and not _is_json(next(line for line in lines if line.strip())):
        yield 1, _parsed(f"{path}", text)  # one object over several lines
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            data = _parsed(f"{path}, line {number}", line)
            if isinstance(data, dict) and set(data) == {"key"}:
                continue  # the header of the demo's own file
            yield number, data


def _text(path: Path) -> str:
    """The text of a file, unpacked; a byte order mark is left out."""
    data = path.read_bytes()
    unpack = PACKED.get(path.suffix.lower())
    try:
        return (data if unpack is None else unpack(data)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}") from None


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: {_in_words(error)}") from None
    except RecursionError:
        raise ValueError(f"{place}: nested too deeply") from None
    except ValueError:  # the interpreter's limit
        raise ValueError(f"{place}: a number has more than {sys.get_int_max_str_digits()} digits") from None


def _in_words(error: json.JSONDecodeError) -> str:
    """What looks wrong where a parser gave up, with the text around it."""
    text, at = error.doc, error.pos
    line = text.count("\n", 0, at) + 1
    where = f"column {error.colno}" if "\n" not in text.strip() else f"line {line}, column {error.colno}"
    if not text[at:].strip():
        return f"not JSON: it ends before it is complete, at {where}. Is it one object on one line?"
    if error.msg.startswith("Extra data"):
        return (
            f"not JSON: more follows after its end, at {where}: {text[at : at + 20]!r}. A row is one object on one line"
        )
    if text[at] in "'‘’“”":
        return f"not JSON: names and texts must be in straight double quotes, not {text[at]} as at {where}"
    if error.msg.startswith("Unterminated string"):
        return f"not JSON: a text has no closing quote; it begins at {where}"
    return f"not JSON: {error.msg[0].lower()}{error.msg[1:]} at {where}: {text[at : at + 20]!r}"


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _row(place: str, data: Any) -> Row:
    if isinstance(data, str):
        return Row(None, data, place=place)
    if not isinstance(data, Mapping):
        raise ValueError(f"{place}: expected an object, got {type(data).__name__}")
    steps = _steps(place, data.get("steps"))
    name = next((f for f in TEXT_FIELDS if not _coerce.missing(data.get(f))), None)
    if name is None and steps is None:
        raise ValueError(f"{place}: has none of {', '.join(TEXT_FIELDS)}, steps")
    prompt = None if _coerce.missing(data.get("prompt")) else _read(place, "prompt", data["prompt"])
    completion: Text = "" if name is None else _read(place, name, data[name])
    whole = False
    if name is not None and not isinstance(completion, str) and (name == "messages" or own_from(turns(completion))):
        try:
            asked, completion = split_turns(completion)
        except Unreadable as error:
            raise ValueError(f"{place}: {name}: {error}") from None
        prompt, whole = asked or prompt, True
    labels = {name: value for name, value in data.items() if isinstance(value, str) and name not in _TEXTS}
    return Row(prompt, completion, steps, _numbers(data), place, whole, labels)


def _read(place: str, name: str, text: Any) -> Any:
    """A text or chat messages; a ValueError says where there are none."""
    try:
        turns(text)
    except Unreadable as error:
        raise ValueError(f"{place}: {name}: {error}") from None
    return text.decode("utf-8") if isinstance(text, bytes) else text


def _steps(place: str, steps: Any) -> list[str] | None:
    if _coerce.missing(steps):
        return None
    if not isinstance(steps, Sequence) or isinstance(steps, str) or not all(isinstance(s, str) for s in steps):
        raise ValueError(f"{place}: steps must be a list of texts")
    return [_coerce.SURROGATE.sub("\ufffd", step) for step in steps]


def _numbers(data: Mapping[str, Any]) -> dict[str, float]:
    """The numeric fields, false as 0 and true as 1; what is beyond a float is an infinity, which `number_columns`
    refuses if it is asked for."""
    found: dict[str, float] = {}
    for name, value in data.items():
        if isinstance(value, int | float):
            try:
                found[name] = float(value)
            except OverflowError:
                found[name] = float("inf") if value > 0 else float("-inf")
    return found


def chunk_rows(rows: Sequence[Row], chunker: Chunker) -> Batch:
    """The rows as episodes; a row with ready steps keeps them, its prompt is one context step."""
    parts = [_chunked(row, chunker) if row.steps is None else _ready(row, chunker) for row in rows]
    lengths = [len(p.steps) for p in parts]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Batch(
        [s for p in parts for s in p.steps],
        offsets,
        np.array([p.context[0] for p in parts], np.int64),
        [s for p in parts for s in p.spans],
        np.concatenate([np.empty(0, np.int64), *(first + p.others for first, p in zip(offsets, parts, strict=False))]),
    )


def roles_of(rows: Sequence[Row]) -> tuple[str, ...] | None:
    """The roles of the policy in conversations in which it speaks more than once; None where there are none such."""
    found: set[str] = set()
    for row in rows:
        if row.whole and row.prompt is not None and not isinstance(row.prompt, str):
            found |= {turn.role for turn in turns(row.prompt) if turn.role} & OWN_ROLES
    return tuple(sorted(found)) or None


def roles_in(rows: Sequence[Row]) -> list[str]:
    """Every role that a file's messages name, by name."""
    texts = [text for row in rows for text in (row.prompt, row.completion) if text is not None]
    return sorted({turn.role for text in texts if not isinstance(text, str) for turn in turns(text) if turn.role})


def _chunked(row: Row, chunker: Chunker) -> Batch:
    """A row as one episode; a conversation that was cut is whole again for a chunker that scores every turn."""
    prompt, completion = row.prompt, row.completion
    cut = row.whole and prompt is not None and not isinstance(prompt, str) and not isinstance(completion, str)
    if cut and getattr(chunker, "roles", None) is not None:
        assert prompt is not None
        return chunk_batch(chunker, [None], [list[Any]([*prompt, *completion])])
    return chunk_batch(chunker, [prompt], [completion])


def _ready(row: Row, chunker: Chunker) -> Batch:
    prompt = chunk_batch(chunker, [row.prompt], [""])
    steps = prompt.steps + list(row.steps or ())
    spans = prompt.spans + [(-1, -1)] * len(row.steps or ())
    return Batch(steps, np.array([0, len(steps)], np.int64), prompt.context, spans)


def number_columns(rows: Sequence[Row], names: Sequence[str]) -> NDArray[np.float64]:
    """``(E, len(names))``: numeric fields of the rows, NaN (not observed) where one is missing.

    Raises:
        ValueError: a field that no row has, or that is infinite or beyond a float in one.
    """
    for name in names:
        for row in rows:
            if np.isinf(row.numbers.get(name, 0.0)):
                raise ValueError(f"{row.place}: {name} is infinite, or too large for a number")
        if not any(np.isfinite(row.numbers.get(name, np.nan)) for row in rows):
            raise ValueError(f"no row has a number {name!r}")
    return np.array([[row.numbers.get(name, float("nan")) for name in names] for row in rows], np.float64).reshape(
        len(rows), len(names)
    )
