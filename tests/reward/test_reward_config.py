"""A reward as plain data: round trips, files, Hydra's _target_, and what cannot be written down."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sharpwave as sw
import tiny
from sharpwave.trainers.pointwise import forget, shared

NEW = ["Jane met a sailor at the harbour. They married in spring.", "The cat slept on the roof. It stole the fish."]
PROMPTS = [tiny.PROMPT] * 2


@pytest.fixture
def store(tmp_path: Path) -> sw.ValueStore:
    directory = tmp_path / "store"
    directory.mkdir()
    tiny.store().save(directory / "snapshot.safetensors")
    return sw.ValueStore.open(directory)


def test_a_reward_round_trips_through_json(store: sw.ValueStore) -> None:
    reward = sw.InstrumentalReward(
        store,
        tiny.embed,
        sw.episodes.Words(n=5),
        tiny.length,
        sw.Weights(0.5, 1.0, 0.1),
        base=tiny.base(),
        channel_weights={"wedding": 1.0},
        divergence_estimator="pairwise",
        habituation={"episodes": 7, "eta": 0.5},
        sleep={"budget": 100},
        name="mine",
    )
    expected = reward.score_texts(PROMPTS, NEW).reward
    store.close()  # one object at a time writes to a directory
    config = json.loads(json.dumps(reward.to_config()))
    again = sw.InstrumentalReward.from_config(config)
    assert again.to_config() == config
    assert again.terminal is not None
    assert again.terminal.name == "length"
    np.testing.assert_array_equal(again.score_texts(PROMPTS, NEW).reward, expected)


def test_yaml_files_and_targets(store: sw.ValueStore, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    store.close()
    base = tmp_path / "base.jsonl"
    base.write_text("".join(json.dumps({"prompt": tiny.PROMPT, "completion": text}) + "\n" for text in tiny.STORIES))
    path = tmp_path / "reward.yaml"
    path.write_text(
        f"""
_target_: sharpwave.InstrumentalReward.from_config
store: {store.path}
embedder: {{_target_: any.thing, function: "tiny:embed"}}
chunker: {{kind: sentences, max_words: 8}}
terminal: {{function: "tiny:length"}}
terminal_range: [0, 2]
weights: {{terminal: 0.5, divergence: 0.1}}
base: {base}
learn: propose
"""
    )
    reward = sw.InstrumentalReward.from_config(str(path))
    assert reward.weights == sw.Weights(0.5, 1.0, 0.1)
    assert reward.chunker == sw.episodes.Sentences(max_words=8)
    assert reward.store.channel_ranges["length"] == (0.0, 2.0)
    reward.store.close()
    assert sw.InstrumentalReward.from_config(str(path), learn="off", terminal="wedding").terminal.name == "wedding"


def test_hydra_style_keywords(store: sw.ValueStore) -> None:
    reward = sw.InstrumentalReward.from_config(store=store, embedder=tiny.embed, weights={"terminal": 2.0})
    assert reward.weights.terminal == 2.0


def test_what_cannot_be_written_down_has_to_be_given() -> None:
    reward = sw.InstrumentalReward(tiny.store(), lambda texts: tiny.embed(texts), terminal=lambda completions: [1.0])
    config = json.loads(json.dumps(reward.to_config()))
    assert config["embedder"] is None
    assert config["terminal"] is None
    with pytest.raises(ValueError, match="config has no embedder"):
        sw.InstrumentalReward.from_config(config)
    with pytest.raises(ValueError, match="lived in memory"):
        sw.InstrumentalReward.from_config(config, embedder=reward.embedder)
    again = sw.InstrumentalReward.from_config(config, embedder=reward.embedder, store=reward.store)
    assert again.store is reward.store
    with pytest.raises(sw.EmbedderError):
        sw.InstrumentalReward.from_config(config, embedder=tiny.embed, store=tiny.store())


SPY = "tests_spy"
HARMLESS = [
    "sharpwave.divergence:mmd",
    "tiny:embed",  # imported by the caller
    f"{SPY}:embed",
    f"{SPY}.inner:embed",
    f"{SPY}:PARTIAL",
    f"{SPY}:Embedder.embed",
]
HARMFUL = [
    "subprocess:check_output",  # imported already, and Python's own
    "os:system",
    "posix:system",
    "builtins:eval",
    "pickle:loads",
    "runpy:run_path",
    "sharpwave.reward.config:os.system",  # through a module that is allowed
    "sharpwave.reward.config:json.loads",
    f"{SPY}:subprocess.check_output",
    f"{SPY}:check_output",  # defined elsewhere
    f"{SPY}:PARTIAL_OF_ANOTHER",
    f"{SPY}:embed.__globals__",
    f"{SPY}:Embedder.__subclasses__",
    f"{SPY}x:embed",  # a prefix is whole names
    "antigravity:webbrowser",
]


@pytest.fixture
def spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that nobody has imported; it says so when it is."""
    body = """
import functools, pathlib, subprocess
from subprocess import check_output
from tiny import embed as _embed

def embed(texts): return _embed(texts)
def twice(texts, n): return _embed(texts)
class Embedder:
    @staticmethod
    def embed(texts): return _embed(texts)
PARTIAL = functools.partial(twice, n=2)
PARTIAL_OF_ANOTHER = functools.partial(check_output, shell=True)
pathlib.Path(__file__).with_name("imported").touch()
"""
    for name in (SPY, f"{SPY}x"):
        package = tmp_path / name
        package.mkdir()
        for file in ("__init__.py", "inner.py"):
            (package / file).write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("SHARPWAVE_ALLOW", raising=False)
    yield tmp_path / SPY / "imported"
    for name in [name for name in sys.modules if name.startswith(SPY)]:
        del sys.modules[name]


def configured(path: str) -> dict[str, object]:
    return {"store": {"config": {"dim": tiny.DIM}}, "embedder": {"function": path}}


@pytest.mark.parametrize("path", HARMLESS)
def test_a_configuration_names_functions_that_its_reader_allows(path: str, spy: Path) -> None:
    assert sw.InstrumentalReward.from_config(configured(path), allow=(SPY,)).embedder is not None


@pytest.mark.parametrize("path", HARMFUL)
@pytest.mark.parametrize("entry", ["embedder", "terminal"])
def test_a_configuration_cannot_name_any_other(path: str, entry: str, spy: Path) -> None:
    config = {**configured("tiny:embed"), entry: {"function": path}}
    before = set(sys.modules)
    with pytest.raises((PermissionError, ValueError), match=re.escape(repr(path))):
        sw.InstrumentalReward.from_config(config, allow=(SPY,))
    assert not {name.partition(".")[0] for name in set(sys.modules) - before} - {SPY}


def test_what_is_not_allowed_is_not_even_imported(
    spy: Path, store: sw.ValueStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(f"{SPY}:embed")
    with pytest.raises(
        PermissionError, match=r"nobody has allowed; pass allow=\('tests_spy',\) or set SHARPWAVE_ALLOW"
    ):
        sw.InstrumentalReward.from_config(config)
    file = tmp_path / "reward.json"
    file.write_text(json.dumps(config))
    monkeypatch.setenv("SHARPWAVE_REWARD", str(file))
    with pytest.raises(PermissionError, match="nobody has allowed"):
        shared()
    reward = sw.InstrumentalReward(store, tiny.embed)
    saved = reward.save(tmp_path / "checkpoint")
    kept = json.loads((saved / "reward.json").read_text())
    kept["config"]["embedder"] = kept["config"]["terminal"] = {"function": f"{SPY}:embed"}
    (saved / "reward.json").write_text(json.dumps(kept))
    reward.restore(saved)  # a checkpoint names functions too, and none of them is looked up
    assert not spy.exists()
    monkeypatch.setenv("SHARPWAVE_ALLOW", f"other, {SPY}.inner")
    with pytest.raises(PermissionError, match="nobody has allowed"):
        sw.InstrumentalReward.from_config(config)
    assert not spy.exists()
    monkeypatch.setenv("SHARPWAVE_ALLOW", f"other, {SPY}")
    assert len(shared().reward.embedder(["a"])) == 1
    forget()
    assert spy.exists()


def test_bad_entries_are_named(store: sw.ValueStore, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no entry 'gamma'"):
        sw.InstrumentalReward.from_config(store=store, embedder=tiny.embed, gamma=1)
    with pytest.raises(ValueError, match=r"package\.module:name"):
        sw.InstrumentalReward.from_config(store=store, embedder={"function": "tiny"})
    with pytest.raises(ValueError, match="config has no store"):
        sw.InstrumentalReward.from_config({})
    path = tmp_path / "list.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="does not hold a mapping"):
        sw.InstrumentalReward.from_config(str(path))
