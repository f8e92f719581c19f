"""The reward as a function that a trainer calls: what it returns, what it logs, whether it is training."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from sharpwave import coerce
from sharpwave.reports import ReplayReport
from sharpwave.reward.base import BaseSamples
from sharpwave.reward.learning import Learn
from sharpwave.reward.output import RewardOutput
from sharpwave.reward.parts import Part
from sharpwave.reward.terminal import Terminal
from sharpwave.reward.warn import Once
from sharpwave.reward.weights import TERMS
from sharpwave.store import ValueStore


class TrainerFunction:
    """What `InstrumentalReward` is to a trainer; the rest of it is in core.py."""

    name: str
    learn: Learn
    terminal: Terminal | None
    base: BaseSamples | None
    training: bool | None
    last_sleep: ReplayReport | None
    _lock: threading.RLock
    _once: Once
    _model: Callable[[], Any] | None
    _last: tuple[Any, set[str], RewardOutput] | None

    @property
    def store(self) -> ValueStore:
        """The live store."""
        raise NotImplementedError

    def _evaluate(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: dict[str, Any],
        learning: bool,
        *,
        every_rank: bool,
    ) -> RewardOutput:
        raise NotImplementedError

    def __call__(self, prompts: Any = None, completions: Any = None, **given: Any) -> list[float | None]:
        """The reward function of TRL: one number a completion, None where it cannot be scored.

        Whatever else the trainer gives (columns, ``completion_ids``, ``trainer_state``) is passed to the terminal;
        ``log_metric`` and ``log_extra`` get every part by name.
        """
        return self.call(prompts, completions, asker="", **given).rewards

    def call(
        self, prompts: Any, completions: Any, *, asker: str, log_metric: Any = None, log_extra: Any = None, **given: Any
    ) -> RewardOutput:
        """What `__call__` and the `parts` do. Several askers of one batch (the same list) share one evaluation."""
        if completions is None:
            raise TypeError("a reward function needs completions=")
        if prompts is None:
            prompts = [None] * len(coerce.sequence("completions", completions))
        with self._lock:
            if self._last is not None and self._last[0] is completions and asker not in self._last[1]:
                self._last[1].add(asker)
                return self._last[2]
            out = self._evaluate(prompts, completions, given, self._training(log_metric), every_rank=True)
            self._last = (completions, {asker}, out)
        if log_metric is not None:
            for name, value in {**out.means(), **self._state_of_store(), **out.timings()}.items():
                log_metric(f"{self.name}/{name}", value)
        if log_extra is not None:
            for name in TERMS:
                if np.isfinite(out.standardised[name]).any():
                    log_extra(f"{self.name}_{name}", [float(value) for value in out.standardised[name]])
        return out

    def output_of(self, prompts: Sequence[Any], completions: Sequence[Any]) -> RewardOutput:
        """What the last call found, if it was of this very list of completions; else they are scored, not learned."""
        with self._lock:
            if self._last is not None and self._last[0] is completions:
                return self._last[2]
            return self._evaluate(prompts, completions, {}, learning=False, every_rank=False)

    def parts(self, terms: Sequence[str] | None = None) -> list[Part]:
        """Each term as a reward function of its own, for a trainer's ``reward_weights``; those that there are."""
        terms = self._terms() if terms is None else terms
        return [Part(self, term) for term in terms]

    def _terms(self) -> list[str]:
        there = {"terminal": self.terminal is not None, "instrumental": True, "divergence": self.base is not None}
        return [term for term in TERMS if there[term]]

    # Training or not

    def train(self, mode: bool = True) -> Self:
        """Say that what follows is training (or, with False, is not); `None` in ``training``: ask the trainer."""
        self.training = mode
        return self

    def eval(self) -> Self:
        """Say that what follows is evaluation: nothing is learned."""
        return self.train(False)

    def follow(self, model: Callable[[], Any] | None) -> None:
        """Where to find the trainer's model, for trainers that pass no ``log_metric``: its mode tells training from
        evaluation. ``model()`` may return None (a weak reference)."""
        self._model = model

    def _training(self, log_metric: Any) -> bool:
        """TRL calls the same function in evaluation and says nothing: its model knows."""
        if self.training is not None:
            return self.training
        model = getattr(getattr(log_metric, "__self__", None), "model", None)
        if model is None and self._model is not None:
            model = self._model()
        mode = getattr(model, "training", None)
        if mode is None:
            if self.learn != "off":
                self._once.mode()
            return False
        return bool(mode)

    def _state_of_store(self) -> dict[str, float]:
        found = {"memories": float(len(self.store))}
        if self.last_sleep is not None:
            for name in ("backups", "residual", "seconds", "observed", "refused"):
                found[f"sleep/{name}"] = float(getattr(self.last_sleep, name))
        return found
