"""Small files of the package are whole, private, and where they were meant to be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sharpwave._files import write_whole


def test_a_small_file_is_its_owners_alone_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    before = os.umask(0)
    try:
        write_whole(path, "one")
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o644)
        write_whole(path, "two ü")
        assert path.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)
    assert path.read_text(encoding="utf-8") == "two ü"
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_a_small_file_follows_no_link(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "state.json"
    victim.write_text("untouched")
    for name in (f".state.json.{os.getpid()}", "state.json.tmp", "state.json"):
        (tmp_path / name).symlink_to(victim)
    write_whole(path, "new")
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("untouched", "new", False)


def test_a_small_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "nowhere" / "state.json", "text")


def test_a_small_file_is_where_its_path_led(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_whole(Path("state.json"), "here")
    assert (tmp_path / "state.json").read_text() == "here"
