"""``python -m examples.study.after judge --seed 2``: the two remedies that come after a run, from the adapters it kept.

Early stopping goes back to a checkpoint; blending goes part of the way back to the base. Both need what the run was
like at each weight, so every kept adapter, and the last one weakened to ``w`` of itself, writes fresh completions of
all openings, which are measured as in training. One line a point in ``study/results/after/<arm>-<seed>.jsonl``; a run
that is stopped goes on behind the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from sharpwave import remedies
from sharpwave.episodes import Words

from examples.study.config import Config, load
from examples.study.judges import BaseJudge
from examples.study.loop import rounded
from examples.study.prepare import setting as prepared
from examples.study.run import RESULTS, WORK, finished
from examples.study.setting import OPENINGS, Batch, Setting, chat

WEIGHTS = (0.2, 0.4, 0.6, 0.8)
DRAW = 1000
"""The generator's seed is this and the run's: not the completions that were trained on."""


@dataclass(frozen=True)
class Point:
    """A policy between the base and the run's end: the adapter of ``step``, ``weight`` of it."""

    step: int
    weight: float
    adapter: Path

    def into(self, setting: Setting) -> None:
        """Make it the policy. An adapter adds B·A to a weight, so that ``weight``·B is the linear blend, exactly."""
        weights = load_file(self.adapter)
        setting.policy.load_adapter({n: w * self.weight if "lora_B" in n else w for n, w in weights.items()})


def points(work: Path) -> list[Point]:
    """The kept adapters by step, then the blends of the last.

    Raises:
        FileNotFoundError: the run kept none.
    """
    kept = sorted(work.glob("adapter-*.safetensors"))
    if not kept:
        raise FileNotFoundError(f"{work} has no adapters: run the arm first")
    all_steps = [Point(int(p.stem.removeprefix("adapter-")), 1.0, p) for p in kept]
    return all_steps + [Point(all_steps[-1].step, w, all_steps[-1].adapter) for w in WEIGHTS]


class Evaluation:
    """Measures a policy on fresh completions: two openings a batch, so that a batch is like a training step's."""

    def __init__(self, config: Config, setting: Setting, seed: int) -> None:
        self.config, self.setting, self.seed = config, setting, seed
        self.judge = BaseJudge(setting.policy, config.options.get("format", "dialogue"))
        openings = [o for o, texts in setting.reference.items() for _ in texts]
        told = [t for texts in setting.reference.values() for t in texts]
        self.drift = remedies.Drift((openings, told), setting.embed_steps, Words(n=8), store=setting.watch, start=1)
        self.drift.read(openings, told, keep=True)

    def __call__(self) -> dict[str, Any]:
        """The means over the openings, and the drift that all completions together read."""
        generator = torch.Generator(device=self.setting.policy.device).manual_seed(DRAW + self.seed)
        batches: list[Batch] = []
        rows: list[dict[str, Any]] = []
        for first in range(0, len(OPENINGS), self.config.train.groups):
            batch, stats = self._drawn(list(OPENINGS[first : first + self.config.train.groups]), generator)
            gold = {k: float(v.mean()) for k, v in self.setting.gold(batch.stories).items()}
            proxy = float(self.judge.all(batch.stories).mean())
            row = {"proxy": proxy, **stats, **_numbers(self.setting.measures(batch))}
            rows.append(row | {f"gold_{k}": v for k, v in gold.items()})
            batches.append(batch)
        out = {k: float(np.mean([r[k] for r in rows])) for k in rows[0]}
        out["drift"] = self.drift.read(
            [o for b in batches for o in b.openings], [c if c.split() else "." for b in batches for c in b.completions]
        )
        out["samples"] = [b.stories[0] for b in batches]
        return out

    def _drawn(self, openings: list[str], generator: torch.Generator) -> tuple[Batch, dict[str, float]]:
        train, policy = self.config.train, self.setting.policy
        drawn = policy.sample([chat(o) for o in openings], train.copies, train.tokens, generator, train.temperature)
        batch = self.setting.batch([o for o in openings for _ in range(train.copies)], list(drawn.texts), train.copies)
        reading = policy.read(drawn, train.temperature)
        with torch.no_grad():
            kl = reading.kl(policy.log_probs(reading))
        return batch, {"kl": float(kl), "base_log_likelihood": float(reading.mean(reading.pick(reading.base)))}


def _numbers(measures: dict[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in measures.items() if isinstance(v, int | float)}


def evaluate(
    config: Config, setting: Setting, seed: int, work: Path, out: Path, show: Callable[[dict[str, Any]], None] = print
) -> None:
    """Every point that ``out`` does not have yet."""
    out.parent.mkdir(parents=True, exist_ok=True)
    all_points = points(work)
    done = finished(out)
    if not out.is_file() or not out.read_text("utf-8"):
        header = {"arm": config.arm, "seed": seed, "config": config.to_dict(), "base": setting.base_measures}
        out.write_text(json.dumps(rounded(header), ensure_ascii=False) + "\n", "utf-8")
    measured = Evaluation(config, setting, seed)
    for point in all_points[done:]:
        point.into(setting)
        line = rounded({"step": point.step, "weight": point.weight, **measured()})
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        show(line)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers, about its own arguments
    torch.set_num_threads(options.threads)
    config, name = load(options.arm), f"{options.arm}-{options.seed}"
    setting = prepared(config, options.seed)
    evaluate(
        config,
        setting,
        options.seed,
        WORK / name,
        RESULTS / "after" / f"{name}.jsonl",
        lambda line: print(
            f"{name} step {line['step']} weight {line['weight']}: proxy {line['proxy']:+.2f}  KL {line['kl']:.2f}",
            flush=True,
        ),
    )


if __name__ == "__main__":
    main()
