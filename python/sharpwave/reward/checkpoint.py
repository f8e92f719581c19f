"""A reward in a checkpoint: ``snapshot.safetensors`` of the store and ``reward.json`` with what else changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpwave._files import write_whole
from sharpwave.store import SNAPSHOT, ValueStore

if TYPE_CHECKING:
    from sharpwave.reward.core import InstrumentalReward

STATE = "reward.json"


def save(reward: InstrumentalReward, directory: str | os.PathLike[str]) -> Path:
    """Write a reward into ``directory``, made if missing; each file is written beside and renamed.

    ``reward.json`` records the configuration too, so that a run says what it was rewarded by.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    reward.store.save(folder / SNAPSHOT)
    state = {"version": 1, "state": reward.state_dict(), "config": reward.to_config()}
    write_whole(folder / STATE, json.dumps(state, ensure_ascii=False, default=_plain))
    return folder


def restore(reward: InstrumentalReward, directory: str | os.PathLike[str]) -> None:
    """Make a reward what it was when it was saved.

    The store object stays the same, and so does its directory if it lives in one: whoever holds it sees the restored
    content.

    Raises:
        FileNotFoundError: nothing was saved there.
        sharpwave.FormatError: the snapshot is damaged.
        sharpwave.EmbedderError: it was saved with another embedder; the reward is then as it was before.
    """
    folder = Path(directory)
    for name in (SNAPSHOT, STATE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no reward was saved in {folder}: {name} is missing")
    loaded = ValueStore.load(folder / SNAPSHOT)
    loaded.bind_embedder(reward.embedder)
    state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    reward.load_state_dict(state["state"])
    reward.store.become(loaded)


def _plain(value: Any) -> Any:
    """Whatever an option holds that JSON does not know."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
