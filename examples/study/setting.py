"""What all arms of the study share: prompts, texts of the base model, objective, encoder, store, gold."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sharpwave as sw
from numpy.typing import NDArray
from sharpwave.episodes import Words, chunk_batch
from sharpwave.probe.columns import Episodes

from examples.study import gold, measures
from examples.study.policy import CHAT, Policy

Floats = NDArray[np.float64]
Embed = Callable[[list[str]], NDArray[np.float32]]

PROMPT = "Write a short story."
OPENINGS = (
    "Once upon a time, in a small village,",
    "The old man opened the door and",
    "It was early in the morning when",
    "Maria looked at her brother and",
    "On the last day of the summer,",
    "The two friends walked along the road and",
    "Nobody in the town knew that",
    "When the train arrived at the station,",
)
BASE = Path("study/base.jsonl")
REFERENCE = Path("study/reference.json")


def chat(opening: str) -> str:
    """The prompt as the policy reads it."""
    return CHAT.format(prompt=PROMPT, opening=opening)


@dataclass
class Batch:
    """Completions with what an arm may look at; embeddings are made when asked for.

    Attributes:
        embed: the encoder of meaning, for whole completions.
        embed_steps: the encoder of the store's steps.
    """

    openings: list[str]
    completions: list[str]
    copies: int
    embed: Embed
    embed_steps: Embed

    @cached_property
    def stories(self) -> list[str]:
        """Opening and completion as one text."""
        return [f"{o} {c}".strip() for o, c in zip(self.openings, self.completions, strict=True)]

    @cached_property
    def episodes(self) -> Episodes:
        """The opening is one context step, the completion is cut into windows of 8 words."""
        completions = [c if c.split() else "." for c in self.completions]
        return embedded(self.embed_steps, self.openings, completions)

    @cached_property
    def whole(self) -> NDArray[np.float32]:
        """(B, d) the completions, each as one unit vector."""
        rows = self.embed([c if c.split() else "." for c in self.completions])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def embedded(embed: Embed, prompts: Sequence[str], completions: Sequence[str]) -> Episodes:
    """Episodes of windows of 8 words, the prompt as context."""
    cut = chunk_batch(Words(n=8), prompts, completions)
    steps = embed(cut.steps)
    return Episodes(np.ascontiguousarray(steps, np.float32), cut.offsets, cut.context)


@dataclass
class Setting:
    """One objective on one base model.

    Attributes:
        embed: the encoder of meaning, MiniLM.
        embed_steps: the encoder of the store's steps: the same beside the base model's fluency.
        terminals: the sentences that the store and the cosine arm aim at.
        base: prompts and stories of the base model, the store's food.
        reference: completions of the base model by opening, as short as the policy's: the ruler of every measure.
        base_log_likelihood: nats a token of the reference under the model that drew them.
        steps_name: what ``embed_steps`` computes.
        cache: directory that keeps the store and the base's measures, under the hash of all that they depend on.
    """

    policy: Policy
    embed: Embed
    embed_steps: Embed
    objective: str
    terminals: list[str]
    base: list[tuple[str, str]]
    reference: dict[str, list[str]]
    base_log_likelihood: float
    gold_settings: dict[str, Any]
    steps_name: str = ""
    cache: Path | None = None

    @cached_property
    def reference_batch(self) -> Batch:
        """All reference completions as one batch."""
        openings = [o for o, texts in self.reference.items() for _ in texts]
        texts = [t for ts in self.reference.values() for t in ts]
        return self.batch(openings, texts, len(next(iter(self.reference.values()))))

    def batch(self, openings: list[str], completions: list[str], copies: int) -> Batch:
        """Completions as an arm sees them."""
        return Batch(openings, completions, copies, self.embed, self.embed_steps)

    @cached_property
    def terminal_keys(self) -> NDArray[np.float32]:
        """(n, d) unit vectors of the terminals."""
        rows = self.embed(self.terminals)
        return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    @cached_property
    def snapshot(self) -> bytes:
        """The store of the base stories, calibrated and slept, as bytes: each arm takes a copy."""
        return self._kept("store.safetensors", self._made_store)

    def _made_store(self, **numbers: Any) -> bytes:
        episodes = embedded(self.embed_steps, [p for p, _ in self.base], [s for _, s in self.base])
        store = sw.ValueStore(sw.Config(dim=episodes.steps.shape[1], **numbers))
        store.calibrate(episodes.steps, episodes.offsets)
        for number, key in enumerate(self.embed_steps(self.terminals)):
            store.add_terminal(f"terminal-{number}", key)
        store.observe(episodes.steps, episodes.offsets, source="base")
        store.replay()
        return store.to_bytes()

    def store(self, **numbers: Any) -> sw.ValueStore:
        """A copy of the store that an arm may write into; ``numbers`` of `sw.Config` make another one."""
        if not numbers:
            return sw.ValueStore.from_bytes(self.snapshot)
        name = "-".join(f"{k}-{v}" for k, v in sorted(numbers.items()))
        return sw.ValueStore.from_bytes(self._kept(f"{name}.safetensors", lambda: self._made_store(**numbers)))

    @cached_property
    def watch(self) -> Any:
        """The frozen store that looks at every arm's samples, whatever the arm is paid for."""
        return self.store().frozen()

    @cached_property
    def gold(self) -> gold.Gold:
        """The gold measures of this objective."""
        return gold.Gold.of(self.policy, self.gold_settings, self.objective, self.reference_batch.stories)

    def measures(self, batch: Batch, watched: bool = True) -> dict[str, Any]:
        """What is read off every batch; coverage only where it is ``watched``, since it costs an encoding."""
        exploit = self.gold_settings["exploit"]
        texts = batch.completions
        word, share = measures.top_word(texts)
        return {
            "yes_share": measures.yes_share(texts),
            "distinct_1": measures.distinct(texts, 1),
            "distinct_2": measures.distinct(texts, 2),
            "distinct_2_within": measures.distinct_within(texts, 2),
            "parrot_share": measures.parrot_share(texts, self.terminals, exploit["parrot_least"]),
            "list_share": self._list_share(texts, exploit["list_least"], exploit["parrot_least"]),
            "top_word": word,
            "top_word_share": share,
            "coverage": float(coverage(self.watch, batch.episodes).mean()) if watched else None,
            "cosine": float((batch.whole @ self.terminal_keys.T).max(1).mean()),
        }

    def _list_share(self, texts: Sequence[str], least: float, parrot: float) -> float:
        sentences = [s for t in texts for s in measures.sentences(t)]
        if not sentences:
            return 0.0
        rows = self.embed(sentences)
        near = (rows @ self.terminal_keys.T).max(1) / np.linalg.norm(rows, axis=1) >= least
        own = [all(measures.copies(s, t) < parrot for t in self.terminals) for s in sentences]
        return float((near & np.array(own)).mean())

    @cached_property
    def base_measures(self) -> dict[str, Any]:
        """The same measures of the base, over batches like a training step's; gold as means and deviations."""
        return json.loads(self._kept("measures.json", lambda: json.dumps(self._made_measures()).encode()))

    def _made_measures(self) -> dict[str, Any]:
        names = list(self.reference)
        rows: list[dict[str, Any]] = []
        copies = min(8, min(len(t) for t in self.reference.values()))
        for n in range(0, len(names) - 1, 2):
            for first in range(0, len(self.reference[names[n]]) - copies + 1, copies):
                pair = names[n : n + 2]
                texts = [t for o in pair for t in self.reference[o][first : first + copies]]
                rows.append(self.measures(self.batch([o for o in pair for _ in range(copies)], texts, copies)))
        numeric = [k for k, v in rows[0].items() if not isinstance(v, str)]
        out: dict[str, Any] = {k: float(np.mean([r[k] for r in rows])) for k in numeric}
        out["log_likelihood"] = self.base_log_likelihood
        out["gold"] = {
            k: {"mean": float(v.mean()), "sd": float(v.std())}
            for k, v in self.gold(self.reference_batch.stories).items()
        }
        return out

    def _kept(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What ``make`` makes, from the cache where it is there."""
        if self.cache is None:
            return make()
        facts = [
            self.objective,
            self.terminals,
            self.steps_name,
            self.base,
            self.reference,
            self.base_log_likelihood,
            self.gold_settings,
        ]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for source in (__file__, measures.__file__, gold.__file__, sw._core.__file__):  # pyright: ignore[reportPrivateUsage]
            digest.update(Path(str(source)).read_bytes())
        file = self.cache / f"{digest.hexdigest()[:16]}-{name}"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch = file.with_suffix(f".{os.getpid()}")
            scratch.write_bytes(make())
            scratch.replace(file)
        return file.read_bytes()


def coverage(view: Any, episodes: Episodes, **options: Any) -> Floats:
    """(E,) what the store pays with equal weights."""
    scores = view.score(episodes.steps, episodes.offsets, context=episodes.context, **options)
    return np.asarray(scores.total, np.float64)


def of_device(directory: Path, device: str) -> Path:
    """Where a device's runs keep what they make: the numbers of one are not those of another."""
    kind = device.split(":")[0]
    return directory if kind == "cpu" else directory / kind


def read_base(path: Path = BASE) -> list[tuple[str, str]]:
    """Prompts and stories of the committed base text."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [(r["prompt"], r["text"]) for r in rows if "text" in r]
