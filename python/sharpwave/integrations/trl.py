"""TRL: the reward is itself a reward function of GRPO, RLOO and OnlineDPO; this is what goes with it.

    reward = sw.InstrumentalReward(store, embedder, learn="propose", base=(prompts, completions))
    trainer = GRPOTrainer(model, reward_funcs=reward, callbacks=[SharpwaveCallback(reward)], …)
    trainer.train(resume_from_checkpoint=True)

TRL calls one function in training and evaluation and does not say which it is: the reward looks at the mode of the
trainer's model, which the callback makes known to it where the trainer passes no ``log_metric`` (OnlineDPO).
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpwave._lazy import MissingExtra
from sharpwave.integrations.dense import DenseCreditMixin
from sharpwave.reward import InstrumentalReward

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingExtra(f"transformers is needed for this ({error}): pip install 'sharpwave[trl]'") from None

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments

__all__ = ["DenseCreditMixin", "SharpwaveCallback"]


class SharpwaveCallback(TrainerCallback):
    """Sleeps, saves and restores a reward with its trainer.

    * After an optimizer step the store sleeps: what was proposed is consolidated, values are replayed.
    * Each checkpoint gets a folder of the reward's name with the store and the reward's state; one rank writes it.
    * A resumed run gets both back, from ``output_dir/checkpoint-N``, before it goes on. A trainer does not tell a
      callback where it resumes from: pass ``resume_from`` if that is another directory.

    Args:
        reward: what the trainer was given; of `InstrumentalReward.parts`, the reward that they are of.
        sleep_every: optimizer steps from one sleep to the next; 0: never.
        resume_from: a checkpoint directory (or the reward's folder in it) to start from in any case.

    Raises:
        FileNotFoundError: (at the beginning of a resumed run) the checkpoint holds no such reward.
    """

    def __init__(
        self,
        reward: InstrumentalReward,
        *,
        sleep_every: int = 1,
        resume_from: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(reward, InstrumentalReward):
            raise TypeError(f"reward must be a sharpwave.InstrumentalReward, got {type(reward).__name__}")
        if sleep_every < 0:
            raise ValueError(f"sleep_every must not be negative, got {sleep_every}")
        self.reward = reward
        self.sleep_every = sleep_every
        self.resume_from = None if resume_from is None else Path(resume_from)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Restore a resumed run's reward."""
        model = kwargs.get("model")
        self.reward.follow(None if model is None else weakref.ref(model))
        if self.resume_from is not None:
            self._restore(self.resume_from)
        elif state.global_step > 0:
            self._restore(checkpoint(args, state))

    def on_step_end(self, _: TrainingArguments, state: TrainerState, *__: Any, **___: Any) -> None:
        """Sleep."""
        if self.sleep_every and self.reward.learn != "off" and state.global_step % self.sleep_every == 0:
            self.reward.sleep()

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Save beside the model. It is called on every rank, after the checkpoint's directory was made."""
        if state.is_world_process_zero:
            self.reward.save(checkpoint(args, state) / self.reward.name)

    def _restore(self, directory: Path) -> None:
        inside = directory / self.reward.name
        try:
            self.reward.restore(inside if inside.is_dir() else directory)
        except FileNotFoundError as missing:
            raise FileNotFoundError(
                f"{missing}; a run that is resumed from elsewhere needs "
                f"SharpwaveCallback(reward, resume_from='path/to/checkpoint-N')"
            ) from None


def checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    """Where the trainer keeps the checkpoint of this moment."""
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
