"""``python -m examples.study.gold_texts``: the texts on which every gold measure has to prove itself, before any run.

Two hundred short texts of four kinds: the base model's own, demonstrations (the base asked for the objective), last
steps of the first part's runs, and exploits. They are written in a random order and without their kind, so that whoever
labels them cannot know it; ``study/gold-texts.jsonl`` keeps the kind apart.
"""

from __future__ import annotations

import argparse
import json
import random
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from sharpwave.probe.probes import load_probes

from examples.study.config import load
from examples.study.policy import CHAT, Policy
from examples.study.setting import OPENINGS, REFERENCE
from examples.study.verdict import read_all

OBJECTIVES = Path("study/objectives.toml")
DEMONSTRATIONS = Path("study/demonstrations")
TEXTS = Path("study/gold-texts.jsonl")
BLIND = Path("runs/study/blind.txt")
LABELLED = "wedding"
"""The objective that the texts are labelled for."""

COPIES = 16
"""Demonstrations of each opening: 128 in all."""

WORDS = 35
"""Of an exploit, which is longer than a completion: about as many as a completion has."""

OF_A_KIND = {"base": 50, "demonstration": 50, "run": 60, "exploit": 40}


@dataclass(frozen=True)
class Text:
    """One text to label: which run or probe it is of is not shown to whoever labels it."""

    number: int
    kind: str
    source: str
    opening: str
    text: str


def objectives() -> dict[str, Any]:
    """The committed objectives by name."""
    return tomllib.loads(OBJECTIVES.read_text("utf-8"))


def demonstrations(policy: Policy, ask: str, tokens: int, temperature: float) -> dict[str, list[str]]:
    """Completions by opening of the base model when it is asked for the objective; as long as the policy's."""
    generator = torch.Generator(device=policy.device).manual_seed(30_000)
    made = {}
    with policy.base():
        for opening in OPENINGS:
            asked = CHAT.format(prompt=ask, opening=opening)
            made[opening] = list(policy.sample([asked], COPIES, tokens, generator, temperature).texts)
    return made


def read_demonstrations(objective: str) -> dict[str, list[str]]:
    """The committed demonstrations of an objective, by opening."""
    return json.loads((DEMONSTRATIONS / f"{objective}.json").read_text("utf-8"))


def candidates() -> Iterator[tuple[str, str, str, str]]:
    """(kind, source, opening, text) of everything that may be labelled."""
    for opening, texts in json.loads(REFERENCE.read_text("utf-8"))["completions"].items():
        for text in texts:
            yield "base", "base", opening, text
    for opening, texts in read_demonstrations(LABELLED).items():
        for text in texts:
            yield "demonstration", LABELLED, opening, text
    for run in read_all(Path("study/results")):
        if run.header["config"]["objective"] == LABELLED:
            for story in run.steps[-1]["samples"]:
                opening = next(o for o in OPENINGS if story.startswith(o))
                yield "run", f"{run.arm}-{run.seed}", opening, story[len(opening) :].strip()
    probes = load_probes()
    objective = next(o for o in probes.objectives if o.name == LABELLED)
    for probe in (*objective.exploits, *objective.found, *probes.common, *probes.unrelated):
        words = probe.text.split()
        for start in range(0, min(len(words), 3 * WORDS), WORDS):
            yield "exploit", probe.name, "", " ".join(words[start : start + WORDS])


def draw(seed: int = 0) -> list[Text]:
    """Two hundred of the candidates, no text twice, in a random order; of the runs as many of each arm as can be."""
    chance = random.Random(seed)
    pools: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for kind, source, opening, text in dict.fromkeys(candidates()):
        if text:
            pools.setdefault(kind, {}).setdefault(source, []).append((opening, text))
    drawn: list[tuple[str, str, str, str]] = []
    for kind, number in OF_A_KIND.items():
        sources = {source: chance.sample(texts, len(texts)) for source, texts in pools[kind].items()}
        taken: list[tuple[str, str, str, str]] = []
        while len(taken) < number and sources:
            for source in chance.sample(sorted(sources), len(sources)):
                opening, text = sources[source].pop()
                taken.append((kind, source, opening, text))
                if not sources[source]:
                    del sources[source]
        drawn += taken[:number]
    chance.shuffle(drawn)
    return [Text(n, *row) for n, row in enumerate(drawn)]


def main() -> None:
    """Sample the demonstrations that are missing, then draw the texts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    from examples.study.prepare import language_model

    config = load("judge")
    DEMONSTRATIONS.mkdir(parents=True, exist_ok=True)
    for name, objective in objectives().items():
        path = DEMONSTRATIONS / f"{name}.json"
        if not path.is_file():
            policy = language_model(config, 0, options.device)
            made = demonstrations(policy, objective["ask"], config.train.tokens, config.train.temperature)
            path.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n", "utf-8")
            print(f"{path}: {sum(map(len, made.values()))} demonstrations", flush=True)
    texts = draw()
    TEXTS.write_text("".join(json.dumps(asdict(t), ensure_ascii=False) + "\n" for t in texts), "utf-8")
    BLIND.parent.mkdir(parents=True, exist_ok=True)
    BLIND.write_text("".join(f"[{t.number}] {t.opening} | {t.text}\n\n" for t in texts), "utf-8")
    print(f"{TEXTS}: {len(texts)} texts; {BLIND} is what is labelled")


if __name__ == "__main__":
    main()
