"""What a reward warns of, once each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._advice import POTENTIAL, unknown
from sharpwave.reward.base import BaseSamples, groups
from sharpwave.reward.scale import Scale
from sharpwave.store import ValueStore
from sharpwave.text.checks import joined_warnings, short_warnings
from sharpwave.text.chunkers import Batch, Text

ENOUGH = 8
"""Completions below which nothing is said of their share."""


class Once:
    """Warnings in the name of one reward, each kind of them once in a process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.said: set[str] = set()

    def say(self, kind: str, message: str) -> None:
        """A RuntimeWarning, unless this kind was said before."""
        if kind not in self.said:
            self.said.add(kind)
            warnings.warn(f"{self.name}: {message}", RuntimeWarning, stacklevel=2)

    def mode(self) -> None:
        """Training or evaluation?"""
        self.say(
            "mode",
            "cannot tell training from evaluation, so nothing is learned: add SharpwaveCallback(reward) to the "
            "trainer, or call reward.train()",
        )

    def store(self, store: ValueStore) -> None:
        """A store that knows nothing but its terminals pays nothing."""
        if len(store) <= len(store.channels) - len(store.scalar_channels):
            self.say("empty", "the store is empty: every completion is unknown to it and earns nothing")

    def scale(self, scale: Scale, terms: Sequence[str]) -> None:
        """Terms that are added up need one scale."""
        unscaled = [term for term in terms if not scale.fitted(term)]
        if len(terms) > 1 and unscaled and scale.normalise == "base":
            self.say(
                "scale",
                f"the terms {unscaled} have no common scale, so weights mean little: pass base=(prompts, completions)",
            )

    def flat(self, scale: Scale, terms: Sequence[str]) -> None:
        """A term that does not vary over the base samples has no unit."""
        if scale.normalise != "base":
            return
        for term in terms:
            if scale.fitted(term) and scale.constants[term].flat:
                self.say(
                    f"flat {term}",
                    f"{term!r} is the same for all base samples, so it has no standard deviation to be measured in and "
                    "is only centred: give more base samples, drawn at a temperature above 0",
                )

    def texts(self, completions: Sequence[Text], batch: Batch) -> None:
        """Base samples that are cut wrong, or are no completions."""
        for message in (*joined_warnings(completions), *short_warnings(batch)):
            self.say(message, f"base samples: {message}")

    def potential(self) -> None:
        """One number where a number a step is meant."""
        self.say("potential", POTENTIAL)

    def unknown(self, share: float, completions: int) -> None:
        """A store that knows little of what the policy writes."""
        message = unknown(share, "the completions of a batch")
        if message is not None and completions >= ENOUGH and "empty" not in self.said:
            self.say("unknown", message)

    def reach(self, term: str) -> None:
        """Demonstrations should show more than the base has anyway."""
        self.say(
            f"reach {term}",
            f"three quarters of the demonstrations have no more of {term!r} than a quarter of the base samples have "
            f"anyway: there is little to gain before it saturates",
        )

    def spread(self, base: BaseSamples) -> None:
        """What divergence is measured against must vary."""
        if base.alike:
            self.say(
                "spread",
                f"the base samples of {base.alike:.0%} of the prompts are all alike, so there is no spread to measure "
                f"divergence from them in: draw base samples at a temperature above 0",
            )

    def variance(self, prompts: Sequence[Any], reward: NDArray[np.float64]) -> None:
        """A group whose completions all earn the same teaches nothing."""
        if "flat" in self.said:
            return
        for members in groups(prompts).values():
            scored = reward[members][np.isfinite(reward[members])]
            if len(scored) > 1 and np.ptp(scored) == 0.0:
                self.say("flat", f"{len(scored)} completions of one prompt all earn {scored[0]:.4g}: no signal")
                return
