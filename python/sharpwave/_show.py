"""What people read: texts, names and paths come from files, and terminals differ.

What a terminal would obey is shown, not done (`shown`). What it cannot encode is written in other characters
(`plainly`): a command does its work and ends with its own code whatever the locale.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Generator
from typing import Any, TextIO

PLAIN = {"✓": "+", "✗": "x", "–": "-", "—": "-", "−": "-", "…": "...", "→": "->", "“": '"', "”": '"', "’": "'"}
"""What stands for a sign of this package's own output where it cannot be encoded."""


def shown(text: str) -> str:
    r"""The text with control characters written out (``\x1b``), except line ends and tabs."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def cell(text: str, stream: TextIO | None = None) -> str:
    """``text`` as it will stand on ``stream`` (by default stdout), so that a table knows how wide it is."""
    encoding = _encoding(sys.stdout if stream is None else stream)
    return shown(text).encode(encoding, "sharpwave.plain").decode(encoding)


def console() -> Any:
    """A rich console on stdout that takes texts as they are, and breaks no line for a width that a file has not."""
    from sharpwave._lazy import require

    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000
    return require("rich.console", "cli").Console(markup=False, emoji=False, highlight=False, width=wide)


def table_of(*heads: str, **options: Any) -> Any:
    """A rich table without lines, imported here: a command that prints none, such as ``--help``, begins sooner."""
    from sharpwave._lazy import require

    return require("rich.table", "cli").Table(*heads, box=None, **options)


def speaks_unicode(stream: TextIO) -> bool:
    """Whether every character can be written to ``stream``."""
    return _encoding(stream).lower().replace("-", "").replace("_", "").startswith("utf")


def _encoding(stream: TextIO) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def _in_plain_signs(error: UnicodeError) -> tuple[str, int]:
    r"""What cannot be encoded as a similar sign, else as ``\u2713``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    said = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in said), error.end


codecs.register_error("sharpwave.plain", _in_plain_signs)


@contextlib.contextmanager
def plainly() -> Generator[None]:
    """Within it, stdout and stderr write in other characters what they cannot encode, instead of raising."""
    changed: list[tuple[io.TextIOWrapper, str | None]] = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            changed.append((stream, stream.errors))
            stream.reconfigure(errors="sharpwave.plain")
    try:
        yield
    finally:
        for stream, errors in changed:
            with contextlib.suppress(ValueError):  # it was closed
                stream.reconfigure(errors=errors)
