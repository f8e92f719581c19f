"""TRL: `InstrumentalReward` is a reward function of GRPO, RLOO and OnlineDPO; this module adds the callback.

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
from sharpwave.reward import InstrumentalReward
from sharpwave.reward.checkpoint import checksum
from sharpwave.store import SNAPSHOT
from sharpwave.trainers.checkpoints import checkpoint, marked, resumed_from
from sharpwave.trainers.dense import DenseCreditMixin
from sharpwave.trainers.reference import ReferenceLogprobsMixin

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingExtra(f"transformers is needed for this ({error}): pip install 'sharpwave[trl]'") from None

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments

__all__ = ["DenseCreditMixin", "ReferenceLogprobsMixin", "SharpwaveCallback"]


class SharpwaveCallback(TrainerCallback):
    """Sleeps, saves and restores a reward with its trainer.

    * After an optimizer step the store sleeps: it consolidates proposed episodes and replays.
    * Each checkpoint gets a folder of the reward's name with the store and the reward's state; one rank writes it. The
      trainer's own state there gets a mark of it, with the store's digest.
    * A resumed run gets both back before it goes on, from the checkpoint that the trainer has loaded. If it was moved
      since, and is neither in ``output_dir`` nor where ``args.resume_from_checkpoint`` says, pass ``resume_from``.

    Args:
        reward: that of the trainer; if the trainer was given `InstrumentalReward.parts`, their reward.
        sleep_every: the store sleeps after this many optimizer steps; 0: never.
        resume_from: a checkpoint directory (or the reward's folder in it) to start from in any case.

    Raises:
        FileNotFoundError: (at the beginning of a resumed run) the checkpoint holds no such reward, or is not found.
        ValueError: the store found there is not the one of the checkpoint; (when saving) two rewards have one name.
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
        self.resume_from = None if resume_from is None else Path(resume_from).absolute()
        self._mark: str | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Restore a resumed run's reward."""
        model = kwargs.get("model")
        self.reward.follow(None if model is None else weakref.ref(model))
        name = self.reward.name
        if self.resume_from is not None:
            inside = self.resume_from / name
            self.reward.restore(inside if inside.is_dir() else self.resume_from)
        elif state.global_step > 0:
            found, mark = resumed_from(args, state, name)
            self.reward.restore(found / name, snapshot=mark["snapshot"])

    def on_step_end(self, _: TrainingArguments, state: TrainerState, *__: Any, **___: Any) -> None:
        """Let the store sleep, if it is due."""
        if self.sleep_every and self.reward.learn != "off" and state.global_step % self.sleep_every == 0:
            self.reward.sleep()

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Save beside the model. It is called on every rank, after the checkpoint's directory was made."""
        if state.is_world_process_zero:
            saved = self.reward.save(checkpoint(args, state) / self.reward.name)
            facts = {"snapshot": checksum(saved / SNAPSHOT), "digest": self.reward.store.digest()}
            self._mark = marked(args, state, self.reward.name, self._mark, **facts)
