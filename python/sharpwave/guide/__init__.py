"""Guidance: a store of values steers the sampling of a language model (docs/guidance.md).

guide.py      `Guide`: the settings, `generate`, and the callable that transformers takes as ``custom_generate``
sampling.py   tokens of many particles in one forward pass; a key-value cache that is branched
swarm.py      the particles of one prompt: when they are weighed, their weights, resampling
payment.py    what the store pays for the steps so far, and what can still be reached from the newest one
result.py     `Guided`: texts, what they cost, and why each step was chosen
strength.py   `tune_strength`: the greatest strength within limits of drift
"""

from __future__ import annotations

from sharpwave.guide.guide import Guide
from sharpwave.guide.result import ChosenStep, Guided, Weighing
from sharpwave.guide.strength import TunedStrength, tune_strength

__all__ = ["ChosenStep", "Guide", "Guided", "TunedStrength", "Weighing", "tune_strength"]
