"""What ``sharpwave demo`` does with its options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from examples.demo import pipeline, second
from examples.demo.pipeline import DemoSettings
from examples.demo.train import Progress, TrainSettings, read_prompts


def run(
    progress: Progress,
    *,
    out: Path,
    quick: bool,
    seed: int,
    stories: int | None,
    splits: int | None,
    train: bool | None,
    steps: int | None,
    objective: str,
    prompts: Path | None,
    model: str | None,
    device: str,
) -> dict[str, Any]:
    """Both forms of the demo, as far as they are asked for; returns the report.

    Raises:
        ValueError: an option is out of its range, before anything takes time.
    """
    settings = DemoSettings.short(out, seed) if quick else DemoSettings.full(out, seed)
    if stories is not None:
        if stories < 16:
            raise ValueError(f"--stories must be at least 16, got {stories}")
        settings = replace(settings, sample=replace(settings.sample, stories=stories))
    if splits is not None:
        if splits < 1:
            raise ValueError(f"--splits must be at least 1, got {splits}")
        settings = replace(settings, table=replace(settings.table, splits=splits))
    settings = replace(settings, sample=replace(settings.sample, model=model, device=device))
    given: dict[str, Any] = {"objective": objective, "model": model, "seed": seed}
    if steps is not None:
        if steps < 1:
            raise ValueError(f"--steps must be at least 1, got {steps}")
        given["steps"] = steps
    if prompts is not None:
        given["prompts"] = read_prompts(prompts)
    second.find_objective(settings, objective)
    second.check_model(model, device)
    report = pipeline.run(settings, progress)
    if train or (train is None and (not quick or steps is not None)):
        report = second.run(settings, TrainSettings.on(device, **given), report, progress)
    return report
