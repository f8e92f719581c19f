"""``python -m examples.study.run ARM --seed 0``: one arm, from where it was stopped; ``plan``: all, in order."""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from examples.study.config import load
from examples.study.loop import Run
from examples.study.prepare import setting
from examples.study.setting import of_device

RESULTS = Path("study/results")
WORK = Path("runs/study")

# The order of `make study`: what the claims stand on first, three seeds each; the rest once.
HEADLINE = (
    "judge",
    "instrumental",
    "instrumental-habituation",
    "instrumental-sharing",
    "instrumental-sharing-kl",
    "judge-kl",
    "instrumental-judge",
    "cosine",
)
OTHERS = (
    "instrumental-full",
    "instrumental-kl",
    "instrumental-meaning",
    "instrumental-ones",
    "instrumental-constant",
    "instrumental-online",
    "instrumental-divergence",
    "judge-fewshot",
    "judge-trained",
    "judge-trained-kl",
    "instrumental-storm",
    "instrumental-storm-ones",
    "instrumental-hidden",
    "cosine-storm",
    "instrumental-sharing-kl-storm",
    "judge-grpo",
    "instrumental-grpo",
    "instrumental-long",
    "judge-long",
    "instrumental-sharing-kl-long",
    "judge-kl-long",
)
# The second half: the remedies compared, and what of the instrumental reward does the work.
REMEDIES = ("judge-divergence", "instrumental-sharing-divergence", "instrumental-all")
ABLATIONS = (
    "instrumental-drives",
    "instrumental-no-edges",
    "instrumental-no-support",
    "instrumental-no-gate",
    "instrumental-one-terminal",
    "instrumental-progress",
    "instrumental-mean",
)
# All arms that lack a part of the store's reward, and read beside it.
KNOCKED_OUT = (
    "instrumental-ones",
    "instrumental-constant",
    *ABLATIONS,
    "instrumental-storm",
    "instrumental-storm-ones",
)
# Value and associations are what the claim rests on: their ablations have the seeds of the headline arms.
SEEDED = (*HEADLINE, "judge-divergence", "instrumental-ones", "instrumental-constant")


def plan() -> list[tuple[str, int]]:
    """Arms and seeds in order: seed 0 of everything before the other seeds of the headline arms."""
    first = [(arm, 0) for arm in HEADLINE + OTHERS[:4]]
    rest = [(arm, 0) for arm in OTHERS[4:] + REMEDIES + ABLATIONS]
    return first + [(arm, seed) for seed in (1, 2) for arm in SEEDED] + rest


def one(arm: str, seed: int, device: str = "cpu", results: Path = RESULTS) -> None:
    """Train one arm to its end, with a progress bar."""
    config = load(arm)
    done, steps = finished(results / f"{arm}-{seed}.jsonl"), config.train.steps
    if done >= steps:
        print(f"{arm} seed {seed}: finished", flush=True)
        return
    work = of_device(WORK, device) / f"{arm}-{seed}"
    run = Run(config, seed, setting(config, seed, device), results / f"{arm}-{seed}.jsonl", work)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with Progress(*columns, refresh_per_second=1) as bar:
        task = bar.add_task(f"{arm} {seed}", total=steps, completed=run.step, last="")

        def show(line: dict[str, Any]) -> None:
            text = f"reward {line['reward']:+.2f}  KL {line['kl']:.2f}  yes {line['measures']['yes_share']:.0%}"
            bar.update(task, completed=line["step"] + 1, last=text)
            if not bar.console.is_terminal:
                print(f"{arm} {seed} {line['step']}: {text} ({line['seconds']} s)", flush=True)

        run.go(show)


def finished(path: Path) -> int:
    """How many steps a file of results has."""
    return max(0, len(path.read_text("utf-8").splitlines()) - 1) if path.is_file() else 0


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arm", help="an arm of study/config, or 'plan'")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers, about its own arguments
    torch.set_num_threads(options.threads)
    results = of_device(RESULTS, options.device)
    for arm, seed in plan() if options.arm == "plan" else [(options.arm, options.seed)]:
        one(arm, seed, options.device, results)


if __name__ == "__main__":
    main()
