"""Base stories: sampled once, written batch by batch, resumed where they stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sharpwave._lazy import require
from sharpwave.text.packages import load_language_model, smollm2_path

from examples.demo.prompts import base_prompts


@dataclass(frozen=True)
class SampleSettings:
    """How base stories are sampled.

    Stories go to the prompts in turn; each batch has its own seed, so that a run that was
    stopped goes on to the same stories.
    """

    stories: int = 384
    tokens: int = 112
    batch: int = 32
    temperature: float = 0.9
    top_p: float = 0.95
    seed: int = 0
    model: str | None = None  # None: SmolLM2-135M from its package
    device: str = "cpu"

    def key(self) -> str:
        """Hash of everything that changes the text of a batch (not how many batches there are)."""
        facts = asdict(self) | {"prompts": base_prompts()}
        del facts["stories"], facts["device"]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Story:
    """One sampled completion and the prompt that it answers."""

    prompt: str
    text: str


def read_stories(path: Path) -> tuple[str | None, list[Story]]:
    """The settings' key and the stories of a file; a torn last line is ignored."""
    if not path.is_file():
        return None, []
    key: str | None = None
    stories: list[Story] = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if "key" in row:
            key = row["key"]
        else:
            stories.append(Story(row["prompt"], row["text"]))
    return key, stories


def sample_stories(
    path: Path, settings: SampleSettings, progress: Callable[[int, int], None] | None = None
) -> list[Story]:
    """Stories of ``settings``, from ``path`` as far as they are there, else sampled and appended.

    ``progress(done, total)`` is called after each batch.
    """
    key, stories = read_stories(path)
    stories = stories if key == settings.key() else []
    # Whole batches only: a torn batch is sampled again with its own seed.
    if len(stories) < settings.stories:
        stories = stories[: len(stories) // settings.batch * settings.batch]
        _write(path, settings.key(), stories)
        for batch in _sample_from(settings, len(stories)):
            with path.open("a", encoding="utf-8") as file:
                for story in batch:
                    file.write(json.dumps(asdict(story), ensure_ascii=False) + "\n")
            stories += batch
            if progress is not None:
                progress(min(len(stories), settings.stories), settings.stories)
    return stories[: settings.stories]


def _write(path: Path, key: str, stories: list[Story]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = [{"key": key}, *(asdict(s) for s in stories)]
    scratch = path.with_suffix(".part")
    scratch.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    scratch.replace(path)


def _sample_from(settings: SampleSettings, start: int) -> Iterator[list[Story]]:
    """Batches of stories from number ``start`` (a multiple of the batch size) on."""
    torch = require("torch", "demo")
    model, tokenizer = load_language_model(settings.model or smollm2_path(), settings.device)
    prompts = base_prompts()
    for first in range(start, settings.stories, settings.batch):
        chosen = [prompts[n % len(prompts)] for n in range(first, first + settings.batch)]
        torch.manual_seed(settings.seed * 1_000_003 + first)
        yield [
            Story(prompt, text)
            for prompt, text in zip(chosen, complete(model, tokenizer, chosen, settings), strict=True)
        ]


def complete(model: Any, tokenizer: Any, prompts: list[str], settings: SampleSettings) -> list[str]:
    """One completion for each prompt, through the model's chat template where it has one."""
    torch = require("torch", "demo")
    if tokenizer.chat_template:
        texts = [
            tokenizer.apply_chat_template([{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True)
            for p in prompts
        ]
    else:
        texts = prompts
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    inputs = inputs.to(model.device)
    with torch.inference_mode():
        out = model.generate(
            **inputs,
            max_new_tokens=settings.tokens,
            do_sample=True,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=0,
            pad_token_id=tokenizer.pad_token_id,
        )
    new = out[:, inputs["input_ids"].shape[1] :]
    return [t.strip() for t in tokenizer.batch_decode(new, skip_special_tokens=True)]
