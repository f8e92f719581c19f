"""State of callbacks in a trainer's checkpoint, and how a resumed run finds it.

A trainer of transformers tells its callbacks the step that it resumes from, not the directory, and another run's
checkpoint of the same step may lie where one would look. So `marked` writes into the trainer's own state
(``trainer_state.json``) what was kept beside it, and `resumed_from` takes a directory only if it bears the mark of the
state that the trainer has loaded.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments

STATE = "trainer_state.json"
MARKS = "sharpwave"
"""The key of the marks among the states of callbacks."""


def checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    """The directory of the trainer's current checkpoint."""
    return Path(str(args.output_dir)).absolute() / f"checkpoint-{state.global_step}"


def marked(args: TrainingArguments, state: TrainerState, name: str, last: str | None, **facts: str) -> str:
    """Write into the checkpoint's trainer state that something called ``name`` was kept in it; returns the mark's id.

    Args:
        args, state: as a callback's ``on_save`` has them.
        name: what was kept.
        last: the id that the previous call of this callback returned.
        facts: further facts about it, such as a digest.

    Raises:
        ValueError: another callback has kept something under this name in the same checkpoint.
        FileNotFoundError: the trainer wrote its checkpoint elsewhere, as in a search for hyperparameters.
    """
    folder = checkpoint(args, state)
    if not (folder / STATE).is_file():
        raise FileNotFoundError(f"{folder} has no {STATE}: the trainer has written no checkpoint there")
    marks: dict[str, Any] = _marks(state.stateful_callbacks)
    before = marks.get(name)
    if before is not None and before["step"] == state.global_step and before["id"] != last:
        raise ValueError(f"two callbacks keep something called {name!r} in {folder}: give one of them another name")
    mark = {"id": uuid.uuid4().hex, "step": state.global_step, "directory": str(folder), **facts}
    states: Any = state.stateful_callbacks
    states[MARKS] = {**marks, name: mark}
    scratch = folder / f".{STATE}.{mark['id']}"
    state.save_to_json(str(scratch))
    scratch.replace(folder / STATE)
    return str(mark["id"])


def resumed_from(args: TrainingArguments, state: TrainerState, name: str) -> tuple[Path, dict[str, Any]]:
    """The checkpoint directory that a run is resumed from and the mark of what is called ``name`` in it.

    It is looked for where the run saves, where ``args.resume_from_checkpoint`` says, and where it was saved; and taken
    only if it is the one that the trainer has loaded, whatever was passed to ``train``.

    Raises:
        FileNotFoundError: the checkpoint holds nothing of that name, or is in none of these places.
    """
    mark = _marks(state.stateful_callbacks).get(name)
    if mark is None or mark["step"] != state.global_step:
        raise FileNotFoundError(
            f"the checkpoint of step {state.global_step} that this run is resumed from holds no {name!r}: pass "
            f"resume_from='path/to/checkpoint-N' to the callback"
        )
    given = getattr(args, "resume_from_checkpoint", None)
    places = [checkpoint(args, state), Path(mark["directory"])]
    if isinstance(given, str):
        places.insert(1, Path(given).absolute())
    others: list[str] = []
    for place in dict.fromkeys(places):
        found = _marks_of(place).get(name)
        if found == mark:
            return place, mark
        if place.exists():
            others.append(f"{place} is another checkpoint ({_described(found)})")
    raise FileNotFoundError(
        f"{name!r} of the checkpoint that this run is resumed from ({_described(mark)}) was saved in "
        f"{mark['directory']} and is not there{''.join(f'; {other}' for other in others)}: pass "
        f"resume_from='path/to/checkpoint-N' to the callback"
    )


def of_run(directory: Path, state: TrainerState) -> bool:
    """Whether a checkpoint on disk is one that led to ``state``: the run's log begins with the checkpoint's."""
    try:
        log = json.loads((directory / STATE).read_text("utf-8"))["log_history"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return json.dumps(log, sort_keys=True) == json.dumps(state.log_history[: len(log)], sort_keys=True)


def _marks(states: Any) -> dict[str, Any]:
    """The marks among the states of callbacks."""
    found = states.get(MARKS) if isinstance(states, dict) else None
    return found if isinstance(found, dict) else {}


def _marks_of(directory: Path) -> dict[str, Any]:
    """The marks of a checkpoint on disk; empty if there is no checkpoint that can be read."""
    try:
        return _marks(json.loads((directory / STATE).read_text("utf-8"))["stateful_callbacks"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _described(mark: dict[str, Any] | None) -> str:
    if mark is None:
        return "it holds nothing of that name"
    digest = mark.get("digest")
    return f"step {mark['step']}" + (f", store {digest[:12]}…" if digest else "")
