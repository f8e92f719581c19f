"""A reward in a checkpoint: ``snapshot.safetensors`` of the store and ``reward.json`` with what else changed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpwave._core import FormatError
from sharpwave._files import write_whole
from sharpwave.store import SNAPSHOT, ValueStore

if TYPE_CHECKING:
    from sharpwave.reward.terms import Terms

STATE = "reward.json"


def save(reward: Terms, directory: str | os.PathLike[str], config: Mapping[str, Any]) -> Path:
    """Write a reward into ``directory``, made if missing; each file is written beside and renamed.

    ``reward.json`` records the configuration too, so that a run says what it was rewarded by, and the checksum of the
    snapshot, so that what belongs to two moments is not taken for one.
    """
    folder = Path(directory).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    reward.store.save(folder / SNAPSHOT)
    state = {
        "version": 1,
        "snapshot": checksum(folder / SNAPSHOT),
        "state": reward.state_dict(),
        "config": config,
    }
    write_whole(folder / STATE, json.dumps(state, ensure_ascii=False, default=_plain))
    return folder


def restore(reward: Terms, directory: str | os.PathLike[str], snapshot: str | None = None) -> None:
    """Make a reward what it was when it was saved.

    The store object stays the same, and so does its directory if it lives in one: whoever holds it sees the restored
    content.

    Args:
        reward: which is changed.
        directory: where it was saved.
        snapshot: the `checksum` that its snapshot must have; None: the one that was recorded beside it.

    Raises:
        FileNotFoundError: nothing was saved there.
        ValueError: the snapshot is not the one that was saved with the rest.
        sharpwave.FormatError: the snapshot is damaged.
        sharpwave.EmbedderError: it was saved with another embedder; the reward is then as it was before.
    """
    folder = Path(directory).absolute()
    for name in (SNAPSHOT, STATE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no reward was saved in {folder}: {name} is missing")
    state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    same_snapshot(folder / SNAPSHOT, state.get("snapshot"), snapshot)
    loaded = ValueStore.load(folder / SNAPSHOT)
    loaded.bind_embedder(reward.embedder)
    reward.load_state_dict(state["state"])
    reward.store.become(loaded)


def checksum(path: Path) -> str:
    """What a snapshot's header says of its content; loading compares the two. Equal stores have equal checksums.

    Raises:
        sharpwave.FormatError: the file is no snapshot.
    """
    try:
        with path.open("rb") as file:
            size = min(int.from_bytes(file.read(8), "little"), path.stat().st_size)
            return str(json.loads(file.read(size))["__metadata__"]["checksum"])
    except (ValueError, KeyError, TypeError):
        raise FormatError(f"{path} is no snapshot of a store, or its header is damaged") from None


def same_snapshot(path: Path, *wanted: str | None) -> None:
    """Compare a snapshot's checksum with those that it must have; None is none.

    Raises:
        ValueError: it has another.
    """
    found = checksum(path)
    for checksum_wanted in wanted:
        if checksum_wanted is not None and checksum_wanted != found:
            raise ValueError(
                f"{path} is not the snapshot that was saved with the rest: its checksum is {found[:12]}…, "
                f"not {checksum_wanted[:12]}…"
            )


def _plain(value: Any) -> Any:
    """Whatever an option holds that JSON does not know."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
