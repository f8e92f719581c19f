"""From text to a number that a trainer can use: ``reward = w_term·terminal·g(σ̄) + w_inst·R − w_kl·D``.

reward.py     `InstrumentalReward`: the terms and their sum, as a function that a trainer calls; learning and keeping it
fitting.py    what base samples and demonstrations give it: the scale, ranges, the edges of T
terms.py      its settings, and the raw terms of a batch
later.py      the thread that works beside the training, and `AsyncReward`
weights.py    `Weights` of the terms
terminal.py   terminals: any trainer-style reward function, or a channel of the store
protections.py  `Protections`: what a policy in training may not exploit: bounded, joint, typical, uncrowded pay
scale.py      `Scale`: the constants that put the terms on one scale
base.py       `BaseSamples`: what divergence is measured against
measure.py    the raw terms of a batch, and what they were measured on
output.py     `RewardOutput`: every part by name
breakdown.py  `Breakdown`: which factor took how much of one completion's reward, to read
parts.py      `Part`: one term as a reward function of its own
learning.py   what completions leave in the store
ranks.py      several ranks: one order of writes, equal replicas
warn.py       what is warned of, once
checkpoint.py save and restore
config.py     to plain data and back
"""

from __future__ import annotations

from sharpwave.reward.base import BaseSamples
from sharpwave.reward.breakdown import Breakdown, ExplainedText
from sharpwave.reward.later import AsyncReward
from sharpwave.reward.output import RewardOutput
from sharpwave.reward.parts import Part
from sharpwave.reward.protections import Crowd, Demonstrations, Protections, Saturate
from sharpwave.reward.reward import InstrumentalReward
from sharpwave.reward.scale import Constants, Scale
from sharpwave.reward.weights import TERMS, Weights

__all__ = [
    "TERMS",
    "AsyncReward",
    "BaseSamples",
    "Breakdown",
    "Constants",
    "Crowd",
    "Demonstrations",
    "ExplainedText",
    "InstrumentalReward",
    "Part",
    "Protections",
    "RewardOutput",
    "Saturate",
    "Scale",
    "Weights",
]
