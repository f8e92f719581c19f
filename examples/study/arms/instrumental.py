"""The fix: the reward is what a value store pays for the path, alone or beside a judge.

``reward = w_inst·R + w_term·terminal·σ̄ − w_kl·D``: R is coverage, the terminal a judge saturated at its range over base
completions and discounted by the mean support, D each sample's share of the squared MMD from base completions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sharpwave as sw
from numpy.typing import NDArray
from sharpwave.habituation import shared
from sharpwave.probe.columns import Bench

from examples.study.divergence import FromBase
from examples.study.judges import BaseJudge
from examples.study.setting import Batch, Setting

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """What an arm's configuration may say.

    Attributes:
        online: propose every batch; every ``sleep_every`` steps consolidate what was proposed, unless the store would
            drift by more than ``max_drift``.
        habituation: episodes that a habituation table remembers; 0 for none.
        sharing: a memory's value is also shared between the samples of a batch that use it.
        ablation: "" or "ones" (every memory is worth the same), "constant" (every memory leads where the average one
            leads) or "drives" (nothing was replayed).
        functional: what R is.
        terminals: how many of the store's channels are paid; 0 for all.
        store: numbers of `sw.Config` that differ in this arm's store.
        judge, divergence: weights of the other two terms; 0 leaves a term out.
        format: of the judge.
    """

    online: bool = False
    sleep_every: int = 5
    max_drift: float = 0.05
    habituation: int = 0
    eta: float = 1.0
    sharing: bool = False
    ablation: str = ""
    functional: str = "coverage"
    terminals: int = 0
    store: Mapping[str, Any] = field(default_factory=dict)
    judge: float = 0.0
    divergence: float = 0.0
    format: str = "dialogue"


class InstrumentalArm:
    """Coverage of a frozen or an online store."""

    scores_steps = True

    def __init__(self, setting: Setting, options: Options) -> None:
        self.setting, self.options = setting, options
        self.table = sw.Habituation(options.habituation, options.eta) if options.habituation else None
        self.store = setting.store(**options.store)
        self.view = self._frozen()
        self.weights = {"coverage": 1.0}
        if options.judge:
            self.weights["judge"] = options.judge
            self.judge = BaseJudge(setting.policy, options.format)
            base = self.judge.all(setting.reference_batch.stories)
            self.range = float(np.median(base)), float(base.max())
        if options.divergence:
            self.weights["divergence"] = -options.divergence
            self.divergence = FromBase(setting)

    def parts(self, batch: Batch, learning: bool) -> dict[str, Floats]:
        """Coverage, and the terms that are switched on."""
        episodes = batch.episodes
        pay = {"weights": self._channels(), "functional": self.options.functional}
        scores = self.view.score(
            episodes.steps,
            episodes.offsets,
            context=episodes.context,
            habituation=self.table,
            details=self.table is not None,
            **pay,
        )
        out = {"coverage": np.asarray(scores.total, np.float64)}
        if self.table is not None and learning:
            if self.options.sharing:
                together = shared(self.view, episodes.steps, scores, self.table, **pay)
                out["coverage"] = np.asarray(together.total, np.float64)
            self.table.record(scores)
        if "judge" in self.weights:
            raw = self.judge.all(batch.stories)
            low, high = self.range
            support = np.array([s[c:].mean() for s, c in _by_episode(scores)])
            out["judge_raw"] = raw
            out["judge"] = np.clip((raw - low) / max(high - low, 1e-9), 0.0, 1.0) * support
        if "divergence" in self.weights:
            out["divergence"] = self.divergence(batch)
        return out

    def after(self, batch: Batch, step: int) -> dict[str, Any]:
        """An online store takes the batch as a proposal, and now and then sleeps on it."""
        if not self.options.online:
            return {}
        episodes = batch.episodes
        self.store.observe(episodes.steps, episodes.offsets, source="policy", propose=True)
        if (step + 1) % self.options.sleep_every:
            return {}
        report = self.store.replay(consolidate=True, max_drift=self.options.max_drift)
        self.view = self._frozen()
        return {
            "store": {"memories": len(self.store), "refused": bool(report.refused), "drift": float(report.drift or 0)}
        }

    def state(self) -> dict[str, Any]:
        """The habituation table, and an online store."""
        return {
            "table": None if self.table is None else self.table.to_dict(),
            "store": self.store.to_bytes() if self.options.online else None,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        if state["table"] is not None:
            self.table = sw.Habituation.from_dict(state["table"])
        if state["store"] is not None:
            self.store = sw.ValueStore.from_bytes(state["store"])
            self.view = self._frozen()

    def _channels(self) -> NDArray[np.float32] | None:
        """(Q,) equal weights of the channels that are paid; None where all are."""
        paid = self.options.terminals
        if not paid:
            return None
        return np.where(np.arange(len(self.setting.terminals)) < paid, 1.0 / paid, 0.0).astype(np.float32)

    def _frozen(self) -> Any:
        view = self.store.frozen()
        if not self.options.ablation:
            return view
        weights = np.full(len(self.setting.terminals), 1.0 / len(self.setting.terminals), np.float32)
        return Bench(view, weights, self.setting.embed_steps(self.setting.terminals)).ablation(self.options.ablation)


def _by_episode(scores: Any) -> list[tuple[Floats, int]]:
    """Supports of each episode's steps, and how many of them are context."""
    ends = scores.offsets
    return [
        (np.asarray(scores.support[a:b], np.float64), int(c))
        for a, b, c in zip(ends, ends[1:], scores.context, strict=False)
    ]


def build(setting: Setting, **options: Any) -> InstrumentalArm:
    """From the configuration."""
    return InstrumentalArm(setting, Options(**options))
