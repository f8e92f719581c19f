"""What a reward takes from base samples and demonstrations: the scale, ranges, s_demo, the edges of T."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from sharpwave.reward import ranks
from sharpwave.reward.base import BaseSamples
from sharpwave.reward.measure import Clock, Measured, Scorable
from sharpwave.reward.protections import PAYING, Demonstrations
from sharpwave.reward.terminal import FunctionTerminal, Request, value_range
from sharpwave.reward.terms import Floats, Terms
from sharpwave.text.chunkers import Text, chunk_batch, pairs


class Fitted(Terms):
    """A reward's terms with constants that are fitted once and kept."""

    def fit(self, prompts: Sequence[Text | None], completions: Sequence[Text]) -> Self:
        """Take the constants of the scale, and what divergence is measured against, from base samples.

        Constants that the scale has already stay as they are.
        """
        prompts, completions = pairs(prompts, completions)
        batch = chunk_batch(self.chunker, prompts, completions)
        scorable = Scorable.of(batch, self.embedder, self.store.dim)
        self.base_texts = (prompts, completions)
        self.base = BaseSamples(prompts, scorable.vectors())
        given: Floats | None = None
        if isinstance(self.terminal, FunctionTerminal):  # asked first: its channel takes its range from what it gives
            given = self.terminal(Request(prompts, completions, {}, scorable, self.store))
            if self.terminal_range is None:
                self.terminal_range = value_range(given)
            self._open()
        found = self._measure(prompts, completions, {}, batch, Clock(), given=given)
        samples = {
            "terminal": self._discounted(found.terminal, found.support),
            "instrumental": found.raw["instrumental"],
            "divergence": self.base.null(self.divergence_estimator),
        }
        for term, values in samples.items():
            if np.isfinite(values).any() and not self.scale.fitted(term):
                self.scale.fit(term, values)
        self._fit_protections(found)
        if self.weights.divergence:
            self._once.spread(self.base)
        self._once.texts(completions, batch)
        self._once.flat(self.scale, [term for term in PAYING if term in self._terms() and getattr(self.weights, term)])
        return self

    def _fit_protections(self, base: Measured) -> None:
        """Ranges, s_demo and the edges of T, those that are wanted and not there yet."""
        assert self.base_texts is not None
        if self.typicality is not None and self.typicality.fitted is None and self.typicality.reads:
            self.typicality.fit(*self.base_texts)
        if not self.protections.on and self.typicality is None:
            return
        shown: Measured | None = None
        samples = [(self.base_texts[0], base.scorable.vectors())]
        if self.demonstrations is not None:
            texts = pairs(self.demonstrations.prompts, self.demonstrations.completions)
            shown = self._measure(*texts, {}, chunk_batch(self.chunker, *texts), Clock())
            samples.insert(0, (texts[0], shown.scorable.vectors()))
        for term in PAYING:
            if not self.protections.fit(term, base.raw[term], None if shown is None else shown.raw[term]):
                self._once.reach(term)
        self.protections.fit_crowd(*samples)

    def _write_demonstrations(self, shown: Demonstrations, channel: str) -> None:
        """Demonstrations into the store, with drive 1 of their channel at every step, unless the channel is there."""
        if channel in self.store.channels:
            return
        batch = chunk_batch(self.chunker, *pairs(shown.prompts, shown.completions))
        scorable = Scorable.of(batch, self.embedder, self.store.dim)
        texts = [batch.steps[row] for row in scorable.rows] if self.keep_texts else None
        drives = {channel: np.ones(len(scorable.steps), np.float32)}
        source = f"{self.name}:demonstrations"
        if ranks.first_alone(self.store):
            self.store.add_channel(channel, 0.0, 1.0)
            self.store.observe(scorable.steps, scorable.offsets, drives=drives, texts=texts, source=source)
            self.store.replay()
        ranks.exchanged(None)  # nobody fits a scale to a store that the first rank has not filled
