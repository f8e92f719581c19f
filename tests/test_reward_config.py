"""A reward as plain data: round trips, files, Hydra's _target_, and what cannot be written down."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import sharpwave as sw
import tiny

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
