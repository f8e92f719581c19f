"""Episodes from files: what people have is read, or one line names the file and the row."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sharpwave.episodes import Sentences
from sharpwave.text.rows import chunk_rows, number_columns, read_rows

from examples.demo.train import read_prompts

TWO = [{"prompt": "Tell me.", "completion": "The sea is wide."}, {"completion": "Über dem Meer – still.", "grade": 2}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in TWO)

READ: dict[str, tuple[str, bytes]] = {
    "lines": ("a.jsonl", LINES.encode()),
    "ndjson": ("a.ndjson", LINES.encode()),
    "lines in .json": ("a.json", LINES.encode()),
    "capitals": ("A.JSONL", LINES.encode()),
    "a byte order mark": ("a.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
    "CRLF": ("a.jsonl", LINES.replace("\n", "\r\n").encode()),
    "blank lines": ("a.jsonl", b"\n" + LINES.replace("\n", "\n \n").encode()),
    "no last newline": ("a.jsonl", LINES.rstrip().encode()),
    "an array": ("a.json", json.dumps(TWO).encode()),
    "an indented array with a mark": ("a.json", b"\xef\xbb\xbf\n" + json.dumps(TWO, indent=2).encode()),
    "an array in .jsonl": ("a.jsonl", json.dumps(TWO).encode()),
    "gzip": ("a.jsonl.gz", gzip.compress(LINES.encode())),
    "gzip of an array, in capitals": ("A.JSON.GZ", gzip.compress(json.dumps(TWO).encode())),
    "bzip2": ("a.jsonl.bz2", bz2.compress(LINES.encode())),
    "xz": ("a.jsonl.xz", lzma.compress(LINES.encode())),
    "an odd directory": ("a b\n'\"ü%s/a.jsonl", LINES.encode()),
}


@pytest.mark.parametrize("kind", READ)
def test_files_are_read_as_people_have_them(kind: str, tmp_path: Path) -> None:
    name, data = READ[kind]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    rows = read_rows(path)
    assert [(r.prompt, r.completion, r.numbers) for r in rows] == [
        ("Tell me.", "The sea is wide.", {}),
        (None, "Über dem Meer – still.", {"grade": 2.0}),
    ]
    assert all(str(path) in row.place for row in rows)


def test_parquet_in_capitals(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    path = tmp_path / "A.PARQUET"
    said = [
        {"role": "user", "content": [{"text": "Why?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "So."}]},
    ]
    pytest.importorskip("pyarrow.parquet").write_table(
        arrow.Table.from_pylist([{"messages": said, "grade": None}, {"messages": said[:1], "grade": 1}]), path
    )
    rows = read_rows(path)
    assert chunk_rows(rows, Sentences()).steps == ["Why?", "So.", "Why?"]
    assert number_columns(rows, ["grade"])[:, 0].tolist() == pytest.approx([np.nan, 1.0], nan_ok=True)


def test_one_object_over_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(TWO[0], indent=2))
    assert [r.completion for r in read_rows(path)] == ["The sea is wide."]


def test_separators_of_unicode_end_no_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"completion": "one\u2028two\u2029three\x85four"}\n', "utf-8")
    assert [r.completion for r in read_rows(path)] == ["one\u2028two\u2029three\x85four"]


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "a prompt that is a number": ("a.jsonl", b'{"text": "x"}\n{"prompt": 5, "text": "x"}', "row 2: prompt: .*int"),
    "a completion that is a number": ("a.jsonl", b'{"completion": 5}', "row 1: completion: .*int"),
    "a list of texts": ("a.json", b'[{"completion": ["x"]}]', "row 1: completion: .*message 0 .*str"),
    "messages that say nothing of who": ("a.jsonl", b'{"messages": [{"content": "x"}]}', "row 1: messages: .*no role"),
    "steps that are a text": ("a.jsonl", b'{"steps": "x"}', "row 1: steps"),
    "a row that is a number": ("a.jsonl", b"5\n", "row 1: expected an object"),
    "a row that is an array": ("a.jsonl", b'{"completion": "x"}\n[1]', "row 2: expected an object"),
    "nothing to read": ("a.json", b'[{"other": "x"}]', "row 1: has none of"),
    "no JSON": ("a.jsonl", b'{"completion": "x"}\n{oops', "line 2: "),
    "no end of the array": ("a.json", b'[{"completion": "x"},', "a.json: "),
    "no end of the object": ("a.json", b'{"completion":\n "x",', "a.json: "),
    "no UTF-8": ("a.jsonl", b'{"completion": "\xff"}', "not UTF-8"),
    "UTF-16": ("a.jsonl", LINES.encode("utf-16"), "not UTF-8"),
    "deep": ("a.jsonl", b'{"completion": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "line 1: nested too deeply"),
    "a deep array": ("a.json", b"[" * 100_000, "a.json: nested too deeply"),
    "too many digits": ("a.jsonl", b'{"completion": "x", "n": ' + b"9" * 5000 + b"}", "line 1: .*digits"),
    "no gzip": ("a.jsonl.gz", LINES.encode(), "cannot be unpacked"),
    "half a gzip": ("a.jsonl.gz", gzip.compress(LINES.encode())[:-20], "cannot be unpacked"),
    "a damaged gzip": ("a.jsonl.gz", gzip.compress(LINES.encode())[:12] + b"\xff" * 40, "cannot be unpacked"),
    "no xz": ("a.jsonl.xz", LINES.encode(), "cannot be unpacked"),
    "packed Parquet": ("a.parquet.gz", b"", "unpack it"),
    "no Parquet": ("a.parquet", b"PAR1", "Parquet"),
    "another kind": ("a.csv", b"", "expected a .jsonl"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_one_line_names_the_file_and_the_row(kind: str, tmp_path: Path) -> None:
    name, data, message = REFUSED[kind]
    if name == "a.parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_beyond_a_float_are_refused_where_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x", "id": 1, "n": %s}\n{"text": "y", "id": 2, "m": NaN}\n' % ("9" * 400))
    rows = read_rows(path)
    assert number_columns(rows, ["id"]).tolist() == [[1.0], [2.0]]
    with pytest.raises(ValueError, match=r"a\.jsonl, row 1: n is infinite, or too large"):
        number_columns(rows, ["n"])
    with pytest.raises(ValueError, match="no row has a number 'm'"):
        number_columns(rows, ["m"])


def test_half_a_surrogate_pair_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a \\ud800 b", "prompt": "\\udfff"}\n{"steps": ["\\ud83d\\ude00 \\ud83d"]}\n')
    assert chunk_rows(read_rows(path), Sentences()).steps == ["\ufffd", "a \ufffd b", "😀 \ufffd"]


SAID = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Nobody."},
    {"role": "user", "content": "Where?"},
    {"role": "assistant", "content": "At sea."},
]


@pytest.mark.parametrize(
    ("row", "steps", "context"),
    [
        ({"messages": SAID}, ["Where?", "At sea."], 1),
        ({"completion": SAID}, ["Where?", "At sea."], 1),
        ({"prompt": "Where?", "messages": SAID}, ["Where?", "At sea."], 1),
        ({"prompt": SAID[:4], "completion": SAID[4:]}, ["Where?", "At sea."], 1),
        ({"prompt": "Tell me.", "messages": SAID[4:]}, ["Tell me.", "At sea."], 1),
        ({"prompt": SAID[:2], "completion": SAID[2:]}, ["Who?", "Nobody.", "At sea."], 1),
        ({"messages": SAID[:4]}, ["Where?"], 1),
        ({"messages": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Me."}]}, ["Who?", "Me."], 1),
    ],
)
def test_conversations(row: dict[str, Any], steps: list[str], context: int, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    batch = chunk_rows(read_rows(path), Sentences(min_words=1))
    assert batch.steps == steps
    assert batch.context.tolist() == [context]


def test_prompts_of_a_file(tmp_path: Path) -> None:
    plain = tmp_path / "a.txt"
    plain.write_bytes(b"\xef\xbb\xbfOne.\r\nTwo.\r\n")
    assert read_prompts(plain) == ("One.", "Two.")
    packed = tmp_path / "A.JSON.GZ"
    packed.write_bytes(gzip.compress(json.dumps([{"prompt": p, "text": ""} for p in ("One.", "Two.")]).encode()))
    assert read_prompts(packed) == ("One.", "Two.")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"completion": "x"', "line 2: not JSON: it ends before it is complete"),
        ('{"completion": "x"} {"completion": "y"}', "more follows after its end, at column 21"),
        ("{'completion': 'x'}", "must be in straight double quotes, not ' as at column 2"),
        ('{"completion": “x”}', "must be in straight double quotes, not “ as at column 16"),
        ('{"completion": "x', "a text has no closing quote; it begins at column 16"),
        ('{"completion": tru}', "expecting value at column 16: 'tru}'"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_in_words(row: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"completion": "x"}}\n{row}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(said)):
        read_rows(path)
