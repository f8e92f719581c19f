"""An exponential moving average of what is trained: the anchor of WARP (Ramé et al. 2024).

    θ̄ ← μ·θ̄ + (1 − μ)·θ        after every step

It lags behind the policy, is smoother than it, and is what a blend can begin from or a divergence be taken to.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from sharpwave._lazy import MissingExtra, require
from sharpwave.trainers.checkpoints import checkpoint, marked, resumed_from

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingExtra(f"transformers is needed for this ({error}): pip install 'sharpwave[trl]'") from None


class Ema(TrainerCallback):
    """The average of a model's trained parameters, as a callback of transformers' or TRL's trainers.

    It is kept in float32 on the parameters' device, saved with each checkpoint (``ema.safetensors``) and restored on
    resume. Of an adapter, its A and B are averaged, which is not quite the average of their product.

    >>> ema = Ema(0.99)
    >>> GRPOTrainer(model, callbacks=[ema], …).train()
    >>> with ema.in_place(model):
    ...     model.save_pretrained("averaged")

    Args:
        decay: μ in [0, 1): 0.99 looks back about a hundred steps.
        resume_from: the checkpoint directory of a resumed run, if it was moved since it was saved.

    Raises:
        ValueError: μ outside [0, 1).
        FileNotFoundError: (at the beginning of a resumed run) the checkpoint holds no average.
    """

    FILE = "ema.safetensors"

    def __init__(self, decay: float = 0.99, *, resume_from: str | os.PathLike[str] | None = None) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self.resume_from = None if resume_from is None else Path(resume_from).absolute()
        self._mark: str | None = None
        self.average: dict[str, Any] = {}

    def start(self, model: Any) -> None:
        """Begin from the model as it is."""
        self.average = {n: p.detach().float().clone() for n, p in model.named_parameters() if p.requires_grad}

    def update(self, model: Any) -> None:
        """One step of the average."""
        if not self.average:
            self.start(model)
        for name, parameter in model.named_parameters():
            if name in self.average:
                self.average[name].lerp_(parameter.detach().float(), 1.0 - self.decay)

    def copy_to(self, model: Any) -> None:
        """Put the average in the place of the model's parameters."""
        torch = require("torch", "trl")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self.average:
                    parameter.copy_(self.average[name])

    @contextlib.contextmanager
    def in_place(self, model: Any) -> Generator[Any]:
        """The model with the average in the place of its parameters, which come back afterwards."""
        kept = {n: p.detach().clone() for n, p in model.named_parameters() if n in self.average}
        self.copy_to(model)
        try:
            yield model
        finally:
            with require("torch", "trl").no_grad():
                for name, parameter in model.named_parameters():
                    if name in kept:
                        parameter.copy_(kept[name])

    def on_train_begin(self, args: Any, state: Any, *_: Any, **kwargs: Any) -> None:
        """Begin, or go on from the checkpoint that is resumed."""
        model = kwargs["model"]
        if state.global_step:
            kept = (self.resume_from or resumed_from(args, state, self.FILE)[0]) / self.FILE
            if not kept.is_file():
                raise FileNotFoundError(f"{kept}: the checkpoint holds no average; pass Ema(…, resume_from=…)")
            device = str(next(model.parameters()).device)
            self.average = require("safetensors.torch", "trl").load_file(kept, device=device)
        elif not self.average:
            self.start(model)

    def on_step_end(self, *_: Any, **kwargs: Any) -> None:
        """After the optimiser's step."""
        self.update(kwargs["model"])

    def on_save(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Beside the checkpoint's other files."""
        if state.is_world_process_zero:
            weights = {k: v.cpu().contiguous() for k, v in self.average.items()}
            require("safetensors.torch", "trl").save_file(weights, checkpoint(args, state) / self.FILE)
            self._mark = marked(args, state, self.FILE, self._mark)
