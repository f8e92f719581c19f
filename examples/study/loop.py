"""The loop that every arm shares: sample, reward, normalise in groups, update the adapter, write one line.

Group-normalised REINFORCE, or GRPO. A run can be killed at any time: it goes on from its last checkpoint (adapter,
optimiser, generator, the arm's state) and writes the very lines that it would have written.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sharpwave as sw
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from examples.study.config import Config, Train
from examples.study.policy import Policy, Reading
from examples.study.reward import Scaled, make
from examples.study.setting import OPENINGS, Setting, chat

Floats = NDArray[np.float64]


class Run:
    """One arm with one seed.

    Args:
        results: the file of lines; the checkpoint lies below ``work``.
    """

    def __init__(self, config: Config, seed: int, setting: Setting, results: Path, work: Path) -> None:
        self.config, self.seed, self.setting = config, seed, setting
        self.results, self.work, self.checkpoint = results, work, work / "checkpoint.pt"
        self.arm = make(config.reward, setting, config.options)
        self.reward = Scaled(self.arm, setting)
        policy = setting.policy
        self.optimizer = torch.optim.AdamW(
            policy.parameters(), lr=config.train.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self.generator = torch.Generator(device=policy.device).manual_seed(seed)
        self.step = 0
        self.lines: list[str] = []
        if self.checkpoint.is_file():
            self._resume()
        else:
            self._line(self._header())

    def go(self, progress: Callable[[dict[str, Any]], None] = lambda _: None, until: int | None = None) -> None:
        """Train to the end, or until step ``until``; ``progress`` is given each step's line."""
        train = self.config.train
        stop = train.steps if until is None else min(until, train.steps)
        while self.step < stop:
            line = self._one()
            self.step += 1
            self._line(line)
            if self.step % train.checkpoint_every == 0 or self.step == train.steps:
                self._save()
            progress(line)

    @property
    def finished(self) -> bool:
        """Whether every step was taken."""
        return self.step >= self.config.train.steps

    def _one(self) -> dict[str, Any]:
        train, policy = self.config.train, self.setting.policy
        began = time.perf_counter()
        first = self.step * train.groups
        openings = [OPENINGS[(first + n) % len(OPENINGS)] for n in range(train.groups)]
        samples = policy.sample(
            [chat(o) for o in openings], train.copies, train.tokens, self.generator, train.temperature
        )
        repeated = [o for o in openings for _ in range(train.copies)]
        batch = self.setting.batch(repeated, list(samples.texts), train.copies)
        reward, parts = self.reward(batch)
        advantage = normalised(reward, train.copies)
        reading = policy.read(samples, train.temperature)
        with_gold = self.step % train.gold_every == 0 or self.step == train.steps - 1
        if with_gold:
            self._keep()
        stats = update(policy, self.optimizer, reading, advantage, train)
        line: dict[str, Any] = {
            "step": self.step,
            "reward": float(reward.mean()),
            "reward_sd": float(reward.std()),
            "parts": {k: float(v.mean()) for k, v in parts.items()},
            **stats,
            "measures": self.setting.measures(batch, watched=with_gold or self.arm.scores_steps),
        }
        if with_gold:
            line["gold"] = {k: float(v.mean()) for k, v in self.setting.gold(batch.stories).items()}
        line |= self.arm.after(batch, self.step)
        line["samples"] = batch.stories if with_gold else [batch.stories[0], batch.stories[train.copies]]
        line["seconds"] = round(time.perf_counter() - began, 2)
        return rounded(line)

    def _header(self) -> dict[str, Any]:
        return rounded(
            {
                "arm": self.config.arm,
                "seed": self.seed,
                "config": self.config.to_dict(),
                "base": self.setting.base_measures,
                "scale": self.reward.constants,
                "store": self.setting.watch.digest(),
                "device": str(self.setting.policy.device),
                "versions": {"sharpwave": sw.__version__, "torch": torch.__version__, "commit": commit()},
            }
        )

    def _line(self, line: dict[str, Any]) -> None:
        text = json.dumps(line, ensure_ascii=False)
        self.lines.append(text)
        self.results.parent.mkdir(parents=True, exist_ok=True)
        with self.results.open("a" if len(self.lines) > 1 else "w", encoding="utf-8") as file:
            file.write(text + "\n")

    def _keep(self) -> None:
        """Keep the adapter that wrote this step's completions: what the remedies that come afterwards begin from."""
        kept = self.work / f"adapter-{self.step:03}.safetensors"
        kept.parent.mkdir(parents=True, exist_ok=True)
        scratch = kept.with_suffix(".part")
        save_file({n: w.cpu().contiguous() for n, w in self.setting.policy.adapter().items()}, scratch)
        scratch.replace(kept)

    def _save(self) -> None:
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "step": self.step,
                "adapter": self.setting.policy.adapter(),
                "optimizer": self.optimizer.state_dict(),
                "generator": self.generator.get_state(),
                "arm": self.arm.state(),
                "lines": self.lines,
            },
            scratch,
        )
        scratch.replace(self.checkpoint)

    def _resume(self) -> None:
        saved = torch.load(self.checkpoint, weights_only=False)
        self.step, self.lines = saved["step"], saved["lines"]
        self.setting.policy.load_adapter(saved["adapter"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.generator.set_state(saved["generator"])
        self.arm.load(saved["arm"])
        self.results.parent.mkdir(parents=True, exist_ok=True)
        self.results.write_text("".join(line + "\n" for line in self.lines), "utf-8")


def normalised(reward: Floats, copies: int) -> Floats:
    """(B,) rewards less their group's mean, over its standard deviation."""
    groups = reward.reshape(-1, copies)
    spread = groups.std(axis=1, keepdims=True)
    return ((groups - groups.mean(axis=1, keepdims=True)) / (spread + 1e-6)).ravel()


def update(
    policy: Policy, optimizer: torch.optim.Optimizer, reading: Reading, advantage: Floats, train: Train
) -> dict[str, float]:
    """One batch's updates; what is returned was measured before the first."""
    mask = reading.samples.mask
    weights = torch.as_tensor(advantage, dtype=torch.float32, device=mask.device)[:, None]
    base_picked = reading.pick(reading.base)
    old: Tensor | None = None
    stats: dict[str, float] = {}
    for _ in range(train.inner):
        log_probs = policy.log_probs(reading)
        picked = reading.pick(log_probs)
        kl = reading.kl(log_probs)
        if old is None:
            old = picked.detach()
            stats = {
                "kl": float(kl.detach()),
                "log_likelihood": float(reading.mean(old)),
                "base_log_likelihood": float(reading.mean(base_picked)),
                "length": float(mask.sum() / len(mask)),
            }
        if train.algorithm == "grpo":
            ratio = (picked - old).exp()
            clipped = ratio.clamp(1 - train.clip, 1 + train.clip)
            gain = torch.minimum(ratio * weights, clipped * weights)
        else:
            gain = picked * weights
        loss = -reading.mean(gain) + train.kl * kl
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), train.max_norm)
        stats.setdefault("gradient", float(norm))
        optimizer.step()
    return stats


def rounded(value: Any, digits: int = 6) -> Any:
    """Floats to so many significant digits, all the way down."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if np.isfinite(value) else None
    if isinstance(value, dict):
        return {k: rounded(v, digits) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v, digits) for v in value]
    return value


def commit() -> str:
    """The commit that the run was started from."""
    out = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return out.stdout.strip()
