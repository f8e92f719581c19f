"""Output on terminals that are not everybody's: their encodings, pipes that close, full disks, no terminal at all."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw

pytest.importorskip("typer")

from sharpwave import cli
from sharpwave._progress import Lines, stages
from sharpwave._show import cell
from sharpwave.cli.commands import commands

TEXT = "é✓ [red] [/b] :smile: 日本 “said”"
NAMES = [str(c.name or c.callback.__name__) for c in commands.registered_commands]
ENCODINGS = "ascii", "latin-1", "cp1252", "utf-8"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = sw.ValueStore(sw.Config(dim=8))
    made.observe(np.random.default_rng(0).normal(size=(8, 8)), np.array([0, 4, 8]), texts=[TEXT] * 8)
    path = tmp_path_factory.mktemp("terminals") / "snapshot.safetensors"
    made.save(path)
    return path


def said(encoding: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> bytes:
    """What a command writes to a stdout that is strict about its encoding."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding, "strict")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        cli.app(list(arguments))
    assert stream.errors == "strict"
    return written.getvalue()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_output_degrades_and_data_do_not(store: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = said(encoding, monkeypatch, "inspect", str(store)).decode(encoding).splitlines()[-1]
    e_acute = r"\xe9" if encoding == "ascii" else "é"
    quoted = "“said”" if encoding == "cp1252" else '"said"'
    plain = e_acute + r"+ [red] [/b] :smile: \u65e5\u672c " + quoted
    assert (TEXT if encoding == "utf-8" else plain) in line
    facts = json.loads(said(encoding, monkeypatch, "inspect", str(store), "--json").decode("ascii"))
    assert facts["ways"][0]["texts"] == [TEXT, TEXT]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("command", NAMES)
def test_every_help_is_shown(command: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--help" in said(encoding, monkeypatch, command, "--help").decode(encoding)


def test_errors_degrade_too() -> None:
    done = run("ascii", "inspect", "/nowhere/✓ü")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == rb"error: /nowhere/+\xfc: there is no store" + b"\n"


def run(encoding: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([sys.executable, "-m", "sharpwave.cli", *arguments], env=environment, check=False, **options)


def test_a_table_is_as_wide_as_what_it_shows() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    assert cell("a\x1b…日", stream) == r"a\x1b...\u65e5"


def test_a_full_disk_is_one_line(store: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run("utf-8", "inspect", str(store), stdout=full)
    assert (done.returncode, done.stderr) == (2, b"error: [Errno 28] No space left on device\n")


def test_a_reader_that_has_enough_is_no_error(store: Path) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    done = run("utf-8", "inspect", str(store), stdout=writes)
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, b"")


class Told(io.StringIO):
    """A stream that tells when so many lines were written."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.left, self.done = lines, threading.Event()

    def write(self, text: str) -> int:
        self.left -= text.count("\n")
        if self.left <= 0:
            self.done.set()
        return super().write(text)


def test_progress_in_a_file_is_lines() -> None:
    stream = io.StringIO()
    with stages(stream) as progress:
        for done in range(4):
            progress("sampling", done, 4, note=f"loss {done}")
        progress("sampling", 4, 4)
        progress("sampling", 4, 4)  # said once
        progress("stop\x1b[2J", 0, 1)
    lines = stream.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["sampling: 0/4", "sampling: 4/4", r"stop\x1b[2J: 0/1"]
    assert lines[0] == "sampling: 0/4, 0 s, loss 0"


def test_a_stage_that_is_silent_is_heard_of() -> None:
    stream = Told(4)
    lines = Lines(stream, every=0.001)
    lines.report("training", 3, 12)
    assert stream.done.wait(60)
    lines.close()
    assert {line.split(",")[0] for line in stream.getvalue().splitlines()} == {"training: 3/12"}


def test_a_closed_stream_stops_no_run() -> None:
    stream = io.StringIO()
    with stages(stream) as progress:
        stream.close()
        progress("training", 0, 2)
        progress("training", 2, 2)


def everything_shown(terminal: int) -> bytes:
    """What was written to the other side, which is closed; one read may give a part of it."""
    shown = b""
    with suppress(OSError):  # EIO is the end
        while part := os.read(terminal, 1 << 16):
            shown += part
    os.close(terminal)
    return shown


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_progress_on_a_terminal_is_a_bar(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w", encoding=encoding) as terminal, stages(terminal) as progress:
        progress("[sampling]", 1, 2, note="[n]")
        progress("[sampling]", 2, 2, note="[n]")
    shown = everything_shown(ours).decode(encoding)
    assert "\x1b[" in shown  # it is written over
    assert "[sampling]" in shown
    assert "[n]" in shown
    assert "2/2" in shown
    monkeypatch.setenv("TERM", "dumb")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding=encoding) as terminal, stages(terminal) as progress:
        progress("sampling", 2, 2)
    assert everything_shown(ours) == b"sampling: 2/2, 0 s\r\n"
