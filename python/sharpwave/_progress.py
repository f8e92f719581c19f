"""How far a long command is, on stderr: a bar a stage on a terminal, else a line now and then, for files and services.

>>> with stages() as progress:
...     for n in range(3):
...         progress("sampling", n, 3, note="of 3 prompts")
...     progress("sampling", 3, 3)
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

from sharpwave._show import shown, speaks_unicode

EVERY = 5.0
"""Seconds between two lines about a stage that goes on."""


class Progress(Protocol):
    """Told how much of a stage is done; a stage begins with its first report and ends with ``done == total``."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None: ...


@contextlib.contextmanager
def stages(stream: TextIO | None = None) -> Generator[Progress]:
    """Something to report to; what it shows, it shows on ``stream`` (by default stderr), and not before a report."""
    where: TextIO = stream or sys.stderr or io.StringIO()
    shows = Bars(where) if is_terminal(where) else Lines(where)
    try:
        yield shows.report
    finally:
        shows.close()


def is_terminal(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that can write over a line."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


class Bars:
    """A bar a stage, with rich."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}

    def report(self, stage: str, done: int, total: int, note: str = "") -> None:
        if self._bars is None:
            self._bars = _rich_bars(self._stream)
            self._bars.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, note=note)
        self._bars.update(self._tasks[stage], completed=done, total=total, note=shown(note))

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()


def _rich_bars(stream: TextIO) -> Any:
    from sharpwave._lazy import require

    require("rich", "cli")
    from rich import progress
    from rich.console import Console

    turning, ended = ("dots", "✓") if speaks_unicode(stream) else ("line", "+")
    return progress.Progress(
        progress.SpinnerColumn(turning, finished_text=ended),
        progress.TextColumn("{task.description:<20}", markup=False),
        progress.BarColumn(bar_width=32),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}", markup=False),
        console=Console(file=stream),
    )


@dataclass
class _Stage:
    name: str
    done: int
    total: int
    note: str
    began: float = field(default_factory=time.monotonic)

    def line(self) -> str:
        """``sampling: 3/12, 20 s, about 60 s left, note``."""
        took = time.monotonic() - self.began
        parts = [f"{self.name}: {self.done}/{self.total}", f"{took:.0f} s"]
        if 0 < self.done < self.total:
            parts.append(f"about {took / self.done * (self.total - self.done):.0f} s left")
        return shown(", ".join([*parts, self.note] if self.note else parts))


class Lines:
    """A line where a stage begins and where it ends, and one every few seconds between, heard of or not."""

    def __init__(self, stream: TextIO, every: float | None = None) -> None:
        self._stream = stream
        self._every = EVERY if every is None else every
        self._lock = threading.Lock()
        self._stages: dict[str, _Stage] = {}
        self._running: _Stage | None = None
        self._closed = threading.Event()
        self._clock: threading.Thread | None = None

    def report(self, stage: str, done: int, total: int, note: str = "") -> None:
        with self._lock:
            known = self._stages.get(stage)
            if known is None:
                known = self._stages[stage] = _Stage(stage, done, total, note)
            elif (known.done, known.total) == (done, total) == (total, total):
                return  # it had ended
            known.done, known.total, known.note = done, total, note
            ended = done >= total
            if ended or known is not self._running:
                self._write(known)
            self._running = None if ended else known
        if self._clock is None:
            self._clock = threading.Thread(target=self._tick, name="sharpwave-progress", daemon=True)
            self._clock.start()

    def close(self) -> None:
        self._closed.set()
        if self._clock is not None:
            self._clock.join()

    def _tick(self) -> None:
        while not self._closed.wait(self._every):
            with self._lock:
                if self._running is not None:
                    self._write(self._running)

    def _write(self, stage: _Stage) -> None:
        with contextlib.suppress(OSError, ValueError):  # a closed stream stops no run
            self._stream.write(stage.line() + "\n")
            self._stream.flush()
