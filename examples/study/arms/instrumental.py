"""The fix: the reward is what a value store pays for the path, alone or beside a judge.

``reward = w_inst·R + w_term·terminal·σ̄ − w_kl·D``: R is coverage, the terminal a judge saturated at its range over base
completions and discounted by the mean support, D each sample's share of the squared MMD from base completions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import sharpwave as sw
from numpy.typing import NDArray
from sharpwave.demo.columns import Bench
from sharpwave.divergence import Reference, mmd
from sharpwave.habituation import shared

from examples.study.judges import BaseJudge
from examples.study.setting import Batch, Setting

Floats = NDArray[np.float64]


class InstrumentalArm:
    """Coverage of a frozen or an online store.

    Args:
        online: propose every batch; every ``sleep_every`` steps consolidate what was proposed, unless the store would
            drift by more than ``max_drift``.
        habituation: episodes that a habituation table remembers; 0 for none.
        sharing: a memory's value is also shared between the samples of a batch that use it.
        ablation: "" or "ones" (every memory is worth the same) or "constant" (every memory leads where the average
            one leads).
        judge, divergence: weights of the other two terms; 0 leaves a term out.
        format: of the judge.
    """

    scores_steps = True

    def __init__(
        self,
        setting: Setting,
        online: bool,
        sleep_every: int,
        max_drift: float,
        habituation: int,
        eta: float,
        sharing: bool,
        ablation: str,
        judge: float,
        divergence: float,
        format: str,
    ) -> None:
        self.setting = setting
        self.online, self.sleep_every, self.max_drift = online, sleep_every, max_drift
        self.ablation, self.sharing = ablation, sharing
        self.table = sw.Habituation(habituation, eta) if habituation else None
        self.judge = BaseJudge(setting.policy, format) if judge else None
        self.store = setting.store()
        self.view = self._frozen()
        self.weights = {"coverage": 1.0}
        if self.judge is not None:
            self.weights["judge"] = judge
            base = self._judged(setting.reference_batch.stories)
            self.range = float(np.median(base)), float(base.max())
        if divergence:
            self.weights["divergence"] = -divergence
            self.references = {o: Reference(self._whole(o, texts)) for o, texts in setting.reference.items()}

    def parts(self, batch: Batch, learning: bool) -> dict[str, Floats]:
        """Coverage, and the terms that are switched on."""
        episodes = batch.episodes
        scores = self.view.score(
            episodes.steps,
            episodes.offsets,
            context=episodes.context,
            habituation=self.table,
            details=self.table is not None,
        )
        out = {"coverage": np.asarray(scores.total, np.float64)}
        if self.table is not None and learning:
            if self.sharing:
                out["coverage"] = np.asarray(shared(self.view, episodes.steps, scores, self.table).total, np.float64)
            self.table.record(scores)
        if self.judge is not None:
            raw = self._judged(batch.stories)
            low, high = self.range
            support = np.array([s[c:].mean() for s, c in _by_episode(scores)])
            out["judge_raw"] = raw
            out["judge"] = np.clip((raw - low) / max(high - low, 1e-9), 0.0, 1.0) * support
        if "divergence" in self.weights:
            out["divergence"] = self._divergence(batch)
        return out

    def after(self, batch: Batch, step: int) -> dict[str, Any]:
        """An online store takes the batch as a proposal, and now and then sleeps on it."""
        if not self.online:
            return {}
        episodes = batch.episodes
        self.store.observe(episodes.steps, episodes.offsets, source="policy", propose=True)
        if (step + 1) % self.sleep_every:
            return {}
        report = self.store.replay(consolidate=True, max_drift=self.max_drift)
        self.view = self._frozen()
        return {
            "store": {"memories": len(self.store), "refused": bool(report.refused), "drift": float(report.drift or 0)}
        }

    def state(self) -> dict[str, Any]:
        """The habituation table, and an online store."""
        return {
            "table": None if self.table is None else self.table.to_dict(),
            "store": self.store.to_bytes() if self.online else None,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        if state["table"] is not None:
            self.table = sw.Habituation.from_dict(state["table"])
        if state["store"] is not None:
            self.store = sw.ValueStore.from_bytes(state["store"])
            self.view = self._frozen()

    def _frozen(self) -> Any:
        view = self.store.frozen()
        if not self.ablation:
            return view
        weights = np.full(len(self.setting.terminals), 1.0 / len(self.setting.terminals), np.float32)
        return Bench(view, weights, self.setting.embed_steps(self.setting.terminals)).ablation(self.ablation)

    def _judged(self, stories: list[str]) -> Floats:
        assert self.judge is not None
        return np.concatenate([self.judge(stories[n : n + 16]) for n in range(0, len(stories), 16)])

    def _whole(self, opening: str, texts: list[str]) -> NDArray[np.float32]:
        return self.setting.batch([opening] * len(texts), texts, len(texts)).whole

    def _divergence(self, batch: Batch) -> Floats:
        out = np.zeros(len(batch.completions))
        for first in range(0, len(out), batch.copies):
            group = slice(first, first + batch.copies)
            out[group] = mmd(batch.whole[group], self.references[batch.openings[first]]).per_sample
        return out


def _by_episode(scores: Any) -> list[tuple[Floats, int]]:
    """Supports of each episode's steps, and how many of them are context."""
    ends = scores.offsets
    return [
        (np.asarray(scores.support[a:b], np.float64), int(c))
        for a, b, c in zip(ends, ends[1:], scores.context, strict=False)
    ]


def build(
    setting: Setting,
    online: bool = False,
    sleep_every: int = 5,
    max_drift: float = 0.05,
    habituation: int = 0,
    eta: float = 1.0,
    sharing: bool = False,
    ablation: str = "",
    judge: float = 0.0,
    divergence: float = 0.0,
    format: str = "dialogue",
) -> InstrumentalArm:
    """From the configuration."""
    return InstrumentalArm(
        setting, online, sleep_every, max_drift, habituation, eta, sharing, ablation, judge, divergence, format
    )
