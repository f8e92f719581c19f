"""The setting of a real run: SmolLM2-135M, MiniLM, the committed base text and reference completions.

``python -m examples.study.prepare`` samples what is not there yet: base stories for the store, and short completions of
the study's openings, which are the ruler of every measure. Both are committed, since sampling is not the same on every
machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sharpwave.episodes import Words, chunk_batch

from examples.study import gold
from examples.study.config import Config, Train, load
from examples.study.policy import Policy
from examples.study.setting import BASE, OPENINGS, REFERENCE, Setting, chat, of_device, read_base

REFERENCES = 16
CACHE = Path("runs/study/cache")
Embed = Callable[[list[str]], NDArray[np.float32]]


def language_model(config: Config, seed: int, device: str) -> Policy:
    """SmolLM2-135M with a fresh adapter."""
    from sharpwave.text.packages import load_language_model, smollm2_path

    model, tokenizer = load_language_model(smollm2_path(), device)
    return Policy(model, tokenizer, config.lora, seed)


def encoder(device: str) -> Embed:
    """MiniLM without a cache: what a text's vector is must not depend on what was embedded before a resume."""
    from sharpwave.embed import SentenceTransformer
    from sharpwave.text.packages import minilm_path

    return SentenceTransformer(minilm_path(), device=device, cache=False)


HIDDEN_LAYER = 20
"""Not the layer of the gold objective (10): what is paid and what is gold are not to be one encoder."""


def hidden_encoder(policy: Policy, base: list[tuple[str, str]]) -> tuple[Embed, str]:
    """Another encoder of the steps, and its name: mean hidden states of the base model, centred on ``base``."""

    def raw(texts: list[str]) -> NDArray[np.float64]:
        return gold.hidden(policy, texts, HIDDEN_LAYER)

    centre = raw(chunk_batch(Words(n=8), [p for p, _ in base], [s for _, s in base]).scored_steps[::8]).mean(0)

    def embed(texts: list[str]) -> NDArray[np.float32]:
        rows = raw(texts) - centre
        return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    return embed, f"hidden states of layer {HIDDEN_LAYER} "


def fluent_encoder(
    policy: Policy, meaning: Embed, weight: float, base: list[tuple[str, str]], cache: Path
) -> tuple[Embed, str]:
    """The encoder of the store's steps, and its name: meaning beside the base model's fluency, fitted to ``base``."""
    from sharpwave.embed import Fluency, Joined

    form = Fluency(policy.core, policy.tokenizer, cache=False)
    cut = chunk_batch(Words(n=8), [p for p, _ in base], [s for _, s in base])
    said = cut.scored_steps
    kept = cache / f"fluency-{hashlib.sha256(repr(said).encode()).hexdigest()[:16]}.json"
    if kept.is_file():
        form.set_range(*json.loads(kept.read_text("utf-8")))
    else:
        with policy.base():
            low, high = form.fit(said)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps([low, high]), "utf-8")
    joined = Joined([meaning, form], [1.0, weight])

    def embed(texts: list[str]) -> NDArray[np.float32]:
        with policy.base():
            return joined(texts)

    return embed, f"fluency {weight} {form.low} {form.high}"


def setting(config: Config, seed: int, device: str = "cpu") -> Setting:
    """Everything an arm shares with the others."""
    from sharpwave.probe.probes import load_probes

    objective = next(o for o in load_probes().objectives if o.name == config.objective)
    reference = json.loads(REFERENCE.read_text("utf-8"))
    policy, meaning, base = language_model(config, seed, device), encoder(device), read_base()
    cache = of_device(CACHE, device)
    said, name = hidden_encoder(policy, base) if config.encoder == "hidden" else (meaning, "")
    steps, form = fluent_encoder(policy, said, config.fluency, base, cache) if config.fluency else (said, "")
    return Setting(
        policy=policy,
        embed=meaning,
        embed_steps=steps,
        steps_name=name + form,
        objective=config.objective,
        terminals=list(objective.terminals),
        base=base,
        reference=reference["completions"],
        base_log_likelihood=reference["log_likelihood"],
        gold_settings=gold.read(),
        cache=cache,
    )


def reference(policy: Policy, train: Train, copies: int = REFERENCES) -> dict[str, Any]:
    """Completions of the base model for each opening, and their mean log-likelihood a token."""
    generator = torch.Generator(device=policy.device).manual_seed(20_000)
    completions: dict[str, list[str]] = {}
    total = count = 0.0
    for opening in OPENINGS:
        samples = policy.sample([chat(opening)], copies, train.tokens, generator, train.temperature)
        reading = policy.read(samples, train.temperature)
        total += float((reading.pick(reading.base) * samples.mask).sum())
        count += float(samples.mask.sum())
        completions[opening] = list(samples.texts)
        print(opening, samples.texts[0].replace("\n", " / "), flush=True)
    return {"log_likelihood": total / count, "tokens": train.tokens, "completions": completions}


def main() -> None:
    """Sample what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", type=int, default=384)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if not BASE.is_file():
        from examples.demo.sample import SampleSettings, sample_stories

        sample_stories(BASE, SampleSettings(stories=options.stories, device=options.device), print)
    if not REFERENCE.is_file():
        config = load("judge")
        made = reference(language_model(config, 0, options.device), config.train)
        REFERENCE.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
