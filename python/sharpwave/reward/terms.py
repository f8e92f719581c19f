"""What a reward is made of, and the raw terms of a batch of completions."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sharpwave import divergence
from sharpwave.habituation import Habituation, shared
from sharpwave.results import Scores
from sharpwave.reward import ranks
from sharpwave.reward.base import BaseSamples
from sharpwave.reward.learning import Learn, open_channel
from sharpwave.reward.measure import Clock, Measured, Scorable
from sharpwave.reward.output import RewardOutput
from sharpwave.reward.protections import Demonstrations, Protections
from sharpwave.reward.scale import Scale
from sharpwave.reward.terminal import Request, Terminal
from sharpwave.reward.warn import Once
from sharpwave.reward.weights import TERMS, Weights
from sharpwave.store import ValueStore
from sharpwave.text.chunkers import Batch, Chunker, Text
from sharpwave.text.embedders import Embedder
from sharpwave.text.typicality import Typicality
from sharpwave.view import Functional

if TYPE_CHECKING:
    from sharpwave._coerce import Array

Floats = NDArray[np.float64]
Base = tuple[Sequence[Text | None], Sequence[Text]]


class Terms:
    """The settings of a reward, as `InstrumentalReward` takes them, and what measures with them."""

    name: str
    embedder: Embedder
    chunker: Chunker
    terminal: Terminal | None
    terminal_range: tuple[float, float] | None
    weights: Weights
    learn: Learn
    channel_weights: Array | Mapping[str, float] | None
    functional: Functional
    discount: float
    support_discount: bool
    divergence_estimator: divergence.Estimator
    habituation: Habituation | None
    sleep_options: dict[str, Any]
    keep_texts: bool
    scale: Scale
    protections: Protections
    typicality: Typicality | None
    demonstrations: Demonstrations | None
    base: BaseSamples | None
    base_texts: Base | None
    _store: ValueStore
    _lock: threading.RLock
    _once: Once
    _last: tuple[Any, set[str], RewardOutput] | None

    @property
    def store(self) -> ValueStore:
        """The live store. Another one can be set if the same embedder filled it."""
        return self._store

    @store.setter
    def store(self, store: ValueStore) -> None:
        store.bind_embedder(self.embedder)
        self._store = store
        self._changed()

    def _changed(self) -> None:
        """The store is another one now, and what was found in the old one does not hold."""
        self._last = None

    def _open(self) -> None:
        """Add the terminal's channel, if completions are learned. All channels share what a memory is worth, so a
        scale is fitted after that: each of several processes then fits to the same channels, whichever comes first."""
        if self.learn != "off":
            open_channel(self.store, self.terminal, self.terminal_range)

    # Measuring

    def _measure(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: dict[str, Any],
        batch: Batch,
        clock: Clock,
        learning: bool = False,
        every_rank: bool = False,
        given: Floats | None = None,
    ) -> Measured:
        """Every term in its own units, all through one frozen view. Only a batch that is learned from shares pay.

        ``given`` is what the terminal gave, if it was asked before.
        """
        # A served store is asked as it is: a moment of it would be a copy of all of it.
        view = self.store if self.store.remote else self.store.frozen()
        scorable = Scorable.of(batch, self.embedder, view.dim)
        clock.lap("embed")
        nothing = np.full(len(completions), np.nan)
        support, instrumental, apart = nothing.copy(), nothing.copy(), nothing
        terminal = nothing if given is None else given
        step = np.zeros(len(batch.steps), np.float32)
        scores: Scores | None = None
        if len(scorable.steps):
            with self._lock if self.habituation is not None else nullcontext():  # a table is no place for two at once
                options = self._score_options()
                scores = view.score(
                    scorable.steps,
                    scorable.offsets,
                    context=scorable.context,
                    habituation=self.habituation,
                    details=self.habituation is not None,
                    **options,
                )
                if learning and self.habituation is not None and self.habituation.sharing:
                    beside = scores.without(scorable.others, self.functional)
                    scores = shared(view, scorable.steps, beside, self.habituation, **options)
                scores = scores.without(scorable.others, self.functional)
            instrumental[scorable.kept] = scores.total
            support[scorable.kept] = scorable.means(scores.support)
            step[scorable.rows] = scores.step
        clock.lap("score")
        if self.terminal is not None and given is None:
            terminal = self.terminal(Request(prompts, completions, columns, scorable, view))
        clock.lap("terminal")
        if self.base is not None:
            apart = self._apart(self.base, prompts, scorable.vectors(), every_rank)
        clock.lap("divergence")
        raw = {"terminal": self._discounted(terminal, support), "instrumental": instrumental, "divergence": apart}
        return Measured(scorable, terminal, raw, support, step, scores, dict(clock.seconds))

    def _apart(
        self, base: BaseSamples, prompts: Sequence[Any], vectors: NDArray[np.float32], every_rank: bool
    ) -> Floats:
        """(E,) D. A group that straddles ranks is one group, and the order in which they have it changes nothing."""
        if not every_rank or base.draw is not None:
            return base.divergence(self.divergence_estimator, prompts, vectors)
        asked, rows, mine = ranks.gathered(prompts, vectors)
        return base.divergence(self.divergence_estimator, asked, rows)[mine]

    def _terms(self) -> list[str]:
        there = {"terminal": self.terminal is not None, "instrumental": True, "divergence": self.base is not None}
        return [term for term in TERMS if there[term]]

    def _score_options(self) -> dict[str, Any]:
        return {
            "weights": self.channel_weights,
            "functional": self.functional,
            "discount": self.discount,
        }

    def _discounted(self, terminal: Floats, support: Floats) -> Floats:
        """g(σ̄): what lies above the low end of the range counts by the mean support."""
        if not self.support_discount or self.terminal is None:
            return terminal
        low, _ = (0.0, 1.0) if self.terminal.saturates else self.terminal_range or self._channel_range()
        return np.where(terminal > low, low + (terminal - low) * support, terminal)

    def _channel_range(self) -> tuple[float, float]:
        assert self.terminal is not None
        return self.store.channel_ranges.get(self.terminal.name, (0.0, 1.0))

    # What changes

    def state_dict(self) -> dict[str, Any]:
        """What changes while a run goes on, the store aside, as plain data: the scale and the habituation table."""
        table = None if self.habituation is None else self.habituation.to_dict()
        return {
            "scale": self.scale.to_dict(),
            "habituation": table,
            "terminal_range": self.terminal_range,
            "protections": self.protections.to_dict(),
            "typicality": None if self.typicality is None else self.typicality.to_config()["fitted"],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.scale = Scale.from_dict(state["scale"])
        table = state.get("habituation")
        self.habituation = None if table is None else Habituation.from_dict(table)
        found = state.get("terminal_range")
        self.terminal_range = None if found is None else (float(found[0]), float(found[1]))
        if "protections" in state:  # not in what was saved before there were any
            self.protections = Protections.from_dict(state["protections"])
        if self.typicality is not None and state.get("typicality") is not None:
            self.typicality.restore(state["typicality"])
