"""The demo's second form: texts before, a short GRPO run, texts after, and what changed.

It begins from the store, the base stories and the embeddings that the first form (`pipeline`) left in the run's
directory, and adds the key ``train`` to its report.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sharpwave._lazy import require
from sharpwave.embed import from_config
from sharpwave.probe import report as reporting
from sharpwave.probe.probes import Objective, load_probes
from sharpwave.reward import InstrumentalReward
from sharpwave.store import ValueStore
from sharpwave.text.packages import load_language_model, smollm2_path

from examples.demo import measures, policy, train_report
from examples.demo.encoder import Encoder
from examples.demo.measures import Ruler
from examples.demo.pipeline import DemoSettings, channel_names, explain_text
from examples.demo.sample import SampleSettings
from examples.demo.train import Progress, TrainSettings, checkpoints, prepare, train


@dataclass
class Setting:
    """What the run begins from."""

    store: ValueStore
    encoder: Encoder
    objective: Objective
    model: Any
    tokenizer: Any

    @property
    def weights(self) -> dict[str, float]:
        """The objective's channels, each as much as the others."""
        names = channel_names(self.objective)
        return dict.fromkeys(names, 1.0 / len(names))


def find_objective(demo: DemoSettings, name: str) -> Objective:
    """The objective of that name.

    Raises:
        ValueError: there is none.
    """
    objectives = load_probes(demo.probes).objectives
    for objective in objectives:
        if objective.name == name:
            return objective
    raise ValueError(f"--objective must be one of {[o.name for o in objectives]}, got {name!r}")


def check_model(path: str | None, device: str) -> None:
    """Whether there is a model at ``path`` and a device of that name, before anything takes time.

    Raises:
        ValueError: there is not.
    """
    if path is not None and not (Path(path) / "config.json").is_file():
        raise ValueError(f"--model must be a directory in transformers format, got {path!r}")
    if device != "cpu":
        torch = require("torch", "demo")
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"--device {device!r} cannot be used: {str(error).splitlines()[0]}") from None


def load(demo: DemoSettings, settings: TrainSettings) -> Setting:
    """The first form's store and encoder, and the language model with a fresh adapter."""
    notes = json.loads((demo.out / "store" / "store.json").read_text("utf-8"))
    embedder = from_config(notes["embedder"])
    store = ValueStore.load(demo.out / "store" / "snapshot.safetensors")
    model, tokenizer = load_language_model(settings.model or smollm2_path(), settings.device)
    model = policy.with_adapter(model, settings.rank, settings.alpha, settings.seed)
    objective = find_objective(demo, settings.objective)
    return Setting(store, Encoder(demo.chunker, embedder), objective, model, tokenizer)


def run(
    demo: DemoSettings, settings: TrainSettings, report: dict[str, Any], progress: Progress = lambda *_, **__: None
) -> dict[str, Any]:
    """Train, compare, and write the report again; returns it with what was found under ``train``."""
    began = time.perf_counter()
    progress("loading the model", 0, 1)
    setting = load(demo, settings)
    progress("loading the model", 1, 1)
    found = compare(setting, settings, demo.out / "train", progress)
    found["seconds"]["in all"] = round(time.perf_counter() - began, 1)
    report = {**report, "train": found}
    (demo.out / "report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    reporting.write(report, demo.out, train_report.section)
    return report


def compare(
    setting: Setting, settings: TrainSettings, directory: Path, progress: Progress = lambda *_, **__: None
) -> dict[str, Any]:
    """The run and its comparison as plain data: the report's key ``train``."""
    seconds: dict[str, float] = {}
    start, view = setting.store.digest(), setting.store.frozen()
    size = len(setting.store)
    prepare(directory, settings.key(start))
    prompts = settings.prompts[: settings.max_prompts]
    before = _timed(seconds, "texts before", _before, setting, settings, prompts, directory, progress)
    reward = InstrumentalReward(
        setting.store,
        setting.encoder.embedder,
        chunker=setting.encoder.chunker,
        base=(list(prompts) * len(before), [t for row in before for t in row]),
        channel_weights=setting.weights,
        learn="propose",
    )
    done = max((n for n in checkpoints(directory) if n <= settings.steps), default=0)
    lines = _timed(
        seconds, "training", train, settings, reward, setting.model, setting.tokenizer,
        setting.objective.terminals, directory, progress,
    )  # fmt: skip
    progress("texts after", 0, 1)
    after = _timed(seconds, "texts after", _sampled, setting, settings, prompts)
    progress("texts after", 1, 1)
    progress("comparing", 0, 1)
    ruler = _ruler(setting, view)
    measured = [_timed(seconds, "comparing", ruler.measure, prompts, grid) for grid in (before, after)]
    found: dict[str, Any] = {
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items()},
        "objective": setting.objective.name,
        "terminals": list(setting.objective.terminals),
        "resumed_from": done,
        "texts": len(before) * len(prompts),
        "measures": measures.changes(*measured, seed=settings.seed),
        "steps": lines,
        "pairs": _pairs(prompts, before, after, measured),
        "explain": _explain(setting, view, prompts, after, measured[1]),
        "store": {"before": size, "after": len(reward.store), "digest": reward.store.digest()},
        "seconds": seconds,
    }
    found["claims"] = train_report.claims(found)
    progress("comparing", 1, 1)
    return found


def _timed(seconds: dict[str, float], name: str, work: Any, *arguments: Any) -> Any:
    began = time.perf_counter()
    out = work(*arguments)
    seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - began, 1)
    return out


def _before(
    setting: Setting, settings: TrainSettings, prompts: Sequence[str], directory: Path, progress: Progress
) -> list[list[str]]:
    """The base's texts: of the directory, if the run had begun, else sampled with the fresh adapter off."""
    file = directory / "before.json"
    kept = json.loads(file.read_text("utf-8")) if file.is_file() else []
    if len(kept) == settings.rounds and all(len(row) == len(prompts) for row in kept):
        return kept
    progress("texts before", 0, 1)
    with setting.model.disable_adapter():
        texts = _sampled(setting, settings, prompts)
    file.write_text(json.dumps(texts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    progress("texts before", 1, 1)
    return texts


def _sampled(setting: Setting, settings: TrainSettings, prompts: Sequence[str]) -> list[list[str]]:
    how = SampleSettings(tokens=settings.tokens, temperature=settings.temperature, top_p=1.0)
    return policy.sample(setting.model, setting.tokenizer, prompts, how, settings.seed, settings.rounds)


def _ruler(setting: Setting, view: Any) -> Ruler:
    names = view.channels
    weights = np.zeros(len(names), np.float32)
    for name, weight in setting.weights.items():
        weights[names.index(name)] = weight
    terminals = list(setting.objective.terminals)

    def log_likelihood(prompts: Sequence[str], texts: Sequence[str]) -> list[tuple[float, float]]:
        return policy.base_log_likelihood(setting.model, setting.tokenizer, prompts, texts)

    return Ruler(setting.encoder, view, weights, terminals, setting.encoder.embedder(terminals), log_likelihood)


def _pairs(
    prompts: Sequence[str], before: measures.Grid, after: measures.Grid, measured: Sequence[dict[str, measures.Ratio]]
) -> list[dict[str, Any]]:
    """The first round's texts side by side, with what the store pays each."""
    pays = [m["instrumental"].part[0] for m in measured]
    return [
        {
            "prompt": prompt,
            "before": before[0][n],
            "after": after[0][n],
            "pay_before": round(float(pays[0][n]), 4),
            "pay_after": round(float(pays[1][n]), 4),
        }
        for n, prompt in enumerate(prompts)
    ]


def _explain(
    setting: Setting, view: Any, prompts: Sequence[str], after: measures.Grid, measured: dict[str, measures.Ratio]
) -> dict[str, Any]:
    """What paid for the text that is paid most."""
    pays = measured["instrumental"].part
    row, column = np.unravel_index(int(np.argmax(pays)), pays.shape)
    prompt, text = prompts[int(column)], after[int(row)][int(column)]
    return {"prompt": prompt, "text": text, "steps": explain_text(view, setting.weights, prompt, text, setting.encoder)}
