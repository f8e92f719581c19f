"""A short GRPO run on one objective, with the instrumental reward: TRL's trainer, a LoRA adapter, resumable.

The reward is what a user would write: `InstrumentalReward` on the store that the first form of the demo built, with
`SharpwaveCallback` to let it sleep and to keep it with each checkpoint. A run that was stopped goes on from its last
checkpoint; more steps than before go on from the last of the old ones.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from sharpwave._lazy import require
from sharpwave.episodes import completion_text
from sharpwave.reward import InstrumentalReward
from sharpwave.text.rows import JSON_SUFFIXES, read_rows, suffix_of

from examples.demo import measures
from examples.demo.prompts import training_prompts

Progress = Callable[..., None]  # stage, done, total, note=


@dataclass(frozen=True)
class TrainSettings:
    """How the language model is trained, and how many texts are compared.

    Attributes:
        groups, copies: prompts a step, and completions of each.
        entropy: weight in the loss of the mean entropy of a token: without it the texts become alike in ten steps,
            and with many steps of it they become unlikely.
        rounds: texts of each prompt before and after.
        max_prompts: the texts that are compared answer no more prompts than these.
    """

    objective: str = "wedding"
    steps: int = 15
    groups: int = 2
    copies: int = 8
    tokens: int = 48
    temperature: float = 0.9
    learning_rate: float = 5e-4
    entropy: float = 0.02
    rank: int = 16
    alpha: int = 32
    rounds: int = 32
    max_prompts: int = 8
    save_every: int = 5
    prompts: tuple[str, ...] = tuple(training_prompts())
    model: str | None = None
    device: str = "cpu"
    seed: int = 0

    @classmethod
    def on(cls, device: str = "cpu", **given: Any) -> Self:
        """The settings for a device: five minutes on two cores, or a larger run on a GPU."""
        larger: dict[str, Any] = {"steps": 200, "groups": 8, "tokens": 96, "save_every": 20}
        values: dict[str, Any] = {} if device == "cpu" else larger
        return cls(**(values | given), device=device)

    def key(self, start: str) -> str:
        """Hash of everything that the run depends on but its length; ``start`` is the store's digest."""
        facts = asdict(self) | {"start": start}
        for name in ("steps", "rounds", "max_prompts", "save_every", "device"):
            del facts[name]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def read_prompts(path: Path) -> tuple[str, ...]:
    """Prompts of a file: of what `read_rows` reads the field ``prompt``, else a line each.

    Raises:
        ValueError: there are fewer than two different ones.
    """
    if suffix_of(path) in (*JSON_SUFFIXES, ".parquet"):
        found = [completion_text(row.prompt) for row in read_rows(path) if row.prompt is not None]
    else:
        found = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    prompts = tuple(dict.fromkeys(p for p in found if p))
    if len(prompts) < 2:
        raise ValueError(f"{path} holds {len(prompts)} prompts; at least 2 different ones are needed")
    return prompts


def checkpoints(directory: Path) -> dict[int, Path]:
    """The checkpoints of a run by their step, the first first."""
    found = {int(p.name[11:]): p for p in directory.glob("checkpoint-*") if p.name[11:].isdigit()}
    return {n: found[n] for n in sorted(found) if (found[n] / "trainer_state.json").is_file()}


def prepare(directory: Path, key: str) -> None:
    """Make the run's directory; what another run left in it is removed."""
    note = directory / "run.json"
    kept = json.loads(note.read_text("utf-8")).get("key") if note.is_file() else None
    if kept != key and directory.is_dir():
        for path in directory.glob("checkpoint-*"):
            shutil.rmtree(path)
        for name in ("steps.jsonl", "before.json"):
            (directory / name).unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"key": key}) + "\n", encoding="utf-8")


def watcher(terminals: Sequence[str]) -> Callable[..., list[float]]:
    """A reward function without weight, that logs what can be read off a batch's words."""

    def watch(completions: Sequence[Any], log_metric: Any = None, **_: Any) -> list[float]:
        texts = [completion_text(c) for c in completions]
        if log_metric is not None:
            pairs = {
                "distinct_2": measures.distinct(texts),
                "yes_share": tuple(map(sum, zip(*map(measures.answers, texts), strict=True))),
                "parrot_share": tuple(map(sum, zip(*(measures.parroted(t, terminals) for t in texts), strict=True))),
            }
            for name, (part, whole) in pairs.items():
                log_metric(f"watch/{name}", part / max(whole, 1))
        return [0.0] * len(texts)

    return watch


def train(
    settings: TrainSettings,
    reward: InstrumentalReward,
    model: Any,
    tokenizer: Any,
    terminals: Sequence[str],
    directory: Path,
    progress: Progress = lambda *_, **__: None,
) -> list[dict[str, Any]]:
    """Train ``model`` (with its adapter) to ``settings.steps``, from the last checkpoint there is.

    The adapter is trained in place, and ``reward.store`` is the store at the end. Returns the lines of
    ``steps.jsonl``, one a step.
    """
    trl, datasets = require("trl", "demo"), require("datasets", "demo")
    transformers = require("transformers", "demo")
    from sharpwave.trainers.trl import SharpwaveCallback

    last = max((n for n in checkpoints(directory) if n <= settings.steps), default=0)
    for n, path in checkpoints(directory).items():
        if n > settings.steps:
            shutil.rmtree(path)
    if last == settings.steps:
        restore(directory / f"checkpoint-{last}", reward, model)
        progress("training", last, last)
        return [line for line in read_lines(directory / "steps.jsonl") if line["step"] <= last]
    log = step_log(directory / "steps.jsonl", settings.steps, progress)
    chat = bool(tokenizer.chat_template)
    rows = [[{"role": "user", "content": p}] if chat else p for p in settings.prompts]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the trainer's own dependencies, about settings that are meant
        trainer = trl.GRPOTrainer(
            model,
            reward_funcs=[reward, watcher(terminals)],
            args=trl.GRPOConfig(**arguments(settings, directory)),
            train_dataset=datasets.Dataset.from_dict({"prompt": rows}),
            processing_class=tokenizer,
            callbacks=[SharpwaveCallback(reward), log],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train(resume_from_checkpoint=str(directory / f"checkpoint-{last}") if last else None)
    return log.lines


def restore(checkpoint: Path, reward: InstrumentalReward, model: Any) -> None:
    """The adapter and the reward of a run that is at its end: a trainer would take one step more."""
    peft = require("peft", "demo")
    weights = peft.load_peft_weights(str(checkpoint), device=str(model.device))
    peft.set_peft_model_state_dict(model, weights)
    reward.restore(checkpoint / reward.name)


def arguments(settings: TrainSettings, directory: Path) -> dict[str, Any]:
    """The trainer's arguments. The rate is constant, so that a longer run begins as a shorter one does."""
    batch = settings.groups * settings.copies
    return {
        "output_dir": str(directory),
        "max_steps": settings.steps,
        "per_device_train_batch_size": batch,
        "num_generations": settings.copies,
        "max_completion_length": settings.tokens,
        "temperature": settings.temperature,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.99,
        "max_grad_norm": 1.0,
        "beta": 0.0,
        "entropy_coef": settings.entropy,
        "reward_weights": [1.0, 0.0],
        "gradient_checkpointing": False,
        "bf16": False,  # the weights are in bfloat16 already, the adapter in float32
        "use_cpu": settings.device == "cpu",
        "logging_steps": 1,
        "save_steps": settings.save_every,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": settings.seed + 1,
    }


def step_log(path: Path, steps: int, progress: Progress) -> Any:
    """A callback that writes one line a step and moves the progress bar."""
    transformers = require("transformers", "demo")

    class StepLog(transformers.TrainerCallback):  # pyright: ignore[reportUntypedBaseClass]
        lines: list[dict[str, Any]] = []  # noqa: RUF012
        began = 0.0

        def on_train_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            self.lines = [line for line in read_lines(path) if line["step"] <= state.global_step]
            path.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
            progress("training", state.global_step, steps)

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_log(self, _: Any, state: Any, __: Any, logs: Mapping[str, Any] | None = None, **___: Any) -> None:
            if not logs or "reward" not in logs:
                return
            seconds = round(time.perf_counter() - self.began, 2)
            line = {"step": state.global_step, "seconds": seconds, **numbers(logs)}
            self.lines.append(line)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            progress("training", state.global_step, steps, note=note(line))

    return StepLog()


def note(line: Mapping[str, Any]) -> str:
    """What stands beside the progress bar."""
    return (
        f"reward {line['reward']:+.2f} sd, distinct-2 {line.get('watch/distinct_2', 0):.2f}, "
        f"“yes” {line.get('watch/yes_share', 0):.1%}"
    )


def numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among a trainer's logs."""
    return {k: float(f"{v:.6g}") for k, v in logs.items() if isinstance(v, int | float)}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``.jsonl`` file, up to a torn one."""
    out: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text("utf-8").split("\n"):
            try:
                out.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return out
