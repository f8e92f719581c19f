"""Remedy 1: stop when the policy has left its base, and go back to the last checkpoint from before it did."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpwave._lazy import MissingExtra, require
from sharpwave.remedies import tensors
from sharpwave.remedies.adapters import is_adapter
from sharpwave.remedies.drift import LIMITS, LOW, MONITORS, Drift, Reading
from sharpwave.trainers.checkpoints import checkpoint, marked, of_run, resumed_from

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingExtra(f"transformers is needed for this ({error}): pip install 'sharpwave[trl]'") from None

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger("sharpwave")


@dataclass(frozen=True)
class Stop:
    """Why a run was stopped, and where it went back to.

    Attributes:
        monitor, limit, value: which monitor passed which limit, and what it read last.
        crossed: the step whose batch passed it first, of those in a row.
        step: how many steps had been made when the run was stopped.
        restored: the checkpoint whose weights the model has now; None if there was none to go back to.
    """

    monitor: str
    limit: float
    value: float
    crossed: int
    step: int
    restored: Path | None = None

    def __str__(self) -> str:
        side = "below" if self.monitor in LOW else "above"
        return (
            f"stopped at step {self.step}: {self.monitor} is {self.value:.3g}, {side} its limit of {self.limit:g} "
            f"since step {self.crossed}"
        )


class EarlyStop(TrainerCallback):
    """Stops a run when one of its drift monitors stays past its limit, and restores what was there before.

    >>> drift = Drift(base, embedder, store=store)
    >>> stop = EarlyStop(drift)
    >>> GRPOTrainer(model, reward_funcs=[reward, drift], callbacks=[SharpwaveCallback(reward), stop], …).train()
    >>> print(stop.stopped)
    stopped at step 41: distinct_2 is 0.52, below its limit of 0.6 since step 38

    The weights of the last checkpoint that is older than the first batch past the limit are put into the model when
    training ends, the adapter's or all of them. So save often, and let ``save_total_limit`` keep what ``patience``
    needs.
    Drift's state is saved with each checkpoint and restored on resume; with ``limits={}`` that is all that happens.

    The defaults are outside of what base samples read by chance (docs/remedies.md has the numbers): a mean completion
    two standard deviations out, half of the support, 60 % of the different bigrams, one part of the reward up and
    another down by a standard deviation, half of the completions empty.

    Args:
        drift: the monitors, which must be among the trainer's reward functions.
        limits: by monitor; those that are named replace `LIMITS`, and no others count then.
        patience: how many batches in a row must pass a limit. A batch without a reading neither counts nor interrupts.
        restore: whether to go back.
        resume_from: the checkpoint directory of a resumed run, if it was moved since it was saved.

    Attributes:
        stopped: why, when it was; else None.

    Raises:
        KeyError: there is no such monitor.
        ValueError: a limit that is no number, or a patience below 1.
        FileNotFoundError: (at the beginning of a resumed run) the checkpoint holds no drift.
    """

    def __init__(
        self,
        drift: Drift,
        limits: Mapping[str, float] | None = None,
        patience: int = 3,
        *,
        restore: bool = True,
        resume_from: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(drift, Drift):
            raise TypeError(f"drift must be a sharpwave.remedies.Drift, got {type(drift).__name__}")
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        self.limits = {name: float(limit) for name, limit in (LIMITS if limits is None else limits).items()}
        for name, limit in self.limits.items():
            if name not in MONITORS:
                raise KeyError(f"limits: no monitor {name!r}; there are {list(MONITORS)}")
            if limit != limit:
                raise ValueError(f"the limit of {name} is not a number")
        self.drift = drift
        self.patience = patience
        self.restore = restore
        self.resume_from = None if resume_from is None else Path(resume_from).absolute()
        self._mark: str | None = None
        self.stopped: Stop | None = None
        self._first = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Restore a resumed run's readings; a new run's begin here."""
        self.stopped = None
        self.drift.follow(kwargs["model"])
        self._first = len(self.drift.readings)
        if self.resume_from is not None or state.global_step > 0:
            found = self.resume_from or resumed_from(args, state, self.drift.name)[0]
            self.drift.restore(found / self.drift.name)
            self._first = 0

    def on_step_end(self, _: TrainingArguments, state: TrainerState, *given: Any, **__: Any) -> None:
        """Look at what was read, and stop if it is time."""
        control: TrainerControl = given[0]
        if self.stopped is None:
            found = crossing(self.drift.readings[self._first :], self.limits, self.patience)
            if found is not None:
                monitor, value, crossed = found
                self.stopped = Stop(monitor, self.limits[monitor], value, crossed, state.global_step)
                log.warning("%s", self.stopped)
        if self.stopped is not None:
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Beside the checkpoint's other files."""
        if state.is_world_process_zero:
            self.drift.save(checkpoint(args, state) / self.drift.name)
            self._mark = marked(args, state, self.drift.name, self._mark)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Go back."""
        if self.stopped is None or not self.restore:
            return
        kept = last_before(Path(str(args.output_dir)).absolute(), self.stopped.crossed, state)
        if kept is None:
            warnings.warn(
                f"{args.output_dir} holds no checkpoint from before step {self.stopped.crossed}, so the model stays as "
                f"it is: save more often, or raise save_total_limit",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        load_weights(kwargs["model"], kept)
        self.stopped = replace(self.stopped, restored=kept)
        log.warning("the model has the weights of %s again", kept)


def passed(monitor: str, value: float, limit: float) -> bool:
    """Whether a reading is past its limit."""
    return value < limit if monitor in LOW else value > limit


def crossing(readings: Sequence[Reading], limits: Mapping[str, float], patience: int) -> tuple[str, float, int] | None:
    """The monitor that is first past its limit ``patience`` times in a row, what it reads then, and the step of the
    first of them. Of several at once, the one that is listed first in `MONITORS`."""
    row: dict[str, list[int]] = {name: [] for name in limits}
    for reading in readings:
        for name in MONITORS:
            if name not in limits or name not in reading:
                continue
            if not passed(name, reading[name], limits[name]):
                row[name] = []
                continue
            row[name].append(int(reading["step"]))
            if len(row[name]) >= patience:
                return name, reading[name], row[name][0]
    return None


def last_before(directory: Path, step: int, state: TrainerState) -> Path | None:
    """The newest checkpoint of this run with fewer steps than ``step``: that step's batch was written by another model.

    Another run may have saved into the same directory: its log is not how the log of this one began.
    """
    found = {int(p.name[11:]): p for p in directory.glob("checkpoint-*") if p.name[11:].isdigit()}
    older = [n for n in found if n < step and any(found[n].rglob("*.safetensors")) and of_run(found[n], state)]
    return found[max(older)] if older else None


def load_weights(model: Any, directory: Path) -> None:
    """Put the weights of a checkpoint into a model: of one with adapters, the active adapter's.

    Raises:
        ValueError: the checkpoint lacks a parameter that was trained, or has it in another shape.
    """
    if hasattr(model, "peft_config"):
        peft = require("peft", "trl")
        name = str(model.active_adapter)
        folder = directory if name == "default" else directory / name
        if not is_adapter(folder):
            raise ValueError(f"{folder} holds no adapter")
        weights = peft.load_peft_weights(str(folder), device=str(model.device))
        peft.set_peft_model_state_dict(model, weights, adapter_name=name)
        return
    torch, safetensors = require("torch", "trl"), require("safetensors", "trl")
    found = tensors.checkpoint(directory)
    own: dict[str, Any] = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name not in found:
            raise ValueError(f"{directory} lacks the parameter {name!r}")
    for name in sorted(set(own) & set(found)):
        if tuple(own[name].shape) != found[name].shape:
            shapes = tuple(own[name].shape), found[name].shape
            raise ValueError(f"parameter {name!r} has the shape {shapes[0]}, and {shapes[1]} in {directory}")
    with torch.no_grad():
        for file in sorted({tensor.file for tensor in found.values()}):
            with safetensors.safe_open(file, "pt") as weights:
                for name in weights.keys():  # noqa: SIM118 — it is no mapping
                    if name in own:
                        own[name].copy_(weights.get_tensor(name))
