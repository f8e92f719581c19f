"""``sharpwave guide``: text, pay and memories side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")

import tiny_guide as tiny
from sharpwave import cli
from sharpwave.cli import jobs
from sharpwave.embed import CallableEmbedder
from tiny_policy import embed


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny.model().save_pretrained(path)
    tiny.words().save_pretrained(path)
    return path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(jobs, "embedder_from", lambda *_: CallableEmbedder(embed))
    path = tmp_path / "store.safetensors"
    tiny.store().save(path)
    (tmp_path / jobs.NOTES).write_text(json.dumps({"chunker": tiny.CHUNKER.config}))
    return path


def run(*arguments: Any) -> None:
    cli.app([str(a) for a in arguments])


def test_guide_shows_steps_pay_and_memories(store: Path, language_model: Path, capsys: Any) -> None:
    options = ("guide", store, "--model", language_model, "--tokens", 12, "--strength", 4)
    run(*options, "--prompt", "once upon a time", "--prompt", "the old man")
    lines = capsys.readouterr().out
    run(*options, "--prompt", "once upon a time", "--json")
    found = json.loads(capsys.readouterr().out)
    assert "once upon a time …" in lines
    assert " ".join(found["texts"][0][0].split()[:4]) in lines
    assert f"score {found['scores'][0][0]:+.3f}, best of 8" in lines
    assert any(text.strip() in lines for text in tiny.store().texts if text)
    assert f"digest {found['digest']}, seed 0" in lines
    assert len(found["texts"][0]) == 8
    assert found["tokens"] <= 8 * 12


def test_a_guide_has_the_weights_that_its_store_was_built_with(store: Path, language_model: Path, capsys: Any) -> None:
    channel = tiny.store().channels[0]
    options = ("guide", store, "--model", language_model, "--tokens", 6, "--prompt", "the old man", "--json")
    run(*options, "--weight", f"{channel}=-1")
    given = json.loads(capsys.readouterr().out)
    notes = store.with_name(jobs.NOTES)
    notes.write_text(json.dumps({**json.loads(notes.read_text()), "weights": {channel: -1.0}}))
    run(*options)
    assert json.loads(capsys.readouterr().out) == given


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--model", "nowhere"), "--model nowhere: there is no such language model; a directory or 'smollm2'"),
        (("--strength", "-1"), "strength must be a finite number from 0, got -1.0"),
        (("--weight", "riches=1"), "weights: no channel 'riches', there are ['wedding']"),
        (("--memories", "-1"), "--memories must be at least 0, got -1"),
    ],
)
def test_bad_arguments_are_one_line(
    store: Path, language_model: Path, capsys: Any, more: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("guide", store, "--model", language_model, "--prompt", "once", *more)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {said}\n"
