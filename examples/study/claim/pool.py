"""Completions of the base policy to select from: sampled once, kept in blocks, the same on every resume."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from examples.study.claim.evaluate import write
from examples.study.policy import Policy
from examples.study.setting import OPENINGS, chat

DIRECTORY = Path("runs/study/claim/pool")
COPIES = 64
"""Completions of each opening in a block."""

SEED = 50_000
TOKENS, TEMPERATURE = 40, 0.8


def sample(policy: Policy, blocks: int, directory: Path = DIRECTORY, tokens: int = TOKENS) -> None:
    """Sample the blocks that are missing, of ``blocks``; each draws from a generator of its own."""
    for block in range(blocks):
        path = directory / f"{block:03d}.json"
        if path.is_file():
            continue
        made: dict[str, list[str]] = {}
        for place, opening in enumerate(OPENINGS):
            generator = torch.Generator(device=policy.device).manual_seed(SEED + block * len(OPENINGS) + place)
            with policy.base():
                made[opening] = list(policy.sample([chat(opening)], COPIES, tokens, generator, TEMPERATURE).texts)
        write(path, json.dumps(made, ensure_ascii=False, indent=1) + "\n")
        print(f"{path}: {sum(map(len, made.values()))} completions", flush=True)


def read(blocks: int, directory: Path = DIRECTORY) -> tuple[list[str], list[str]]:
    """Openings and completions of the first ``blocks`` blocks.

    Raises:
        FileNotFoundError: a block was not sampled.
    """
    openings: list[str] = []
    completions: list[str] = []
    for block in range(blocks):
        kept: dict[str, list[str]] = json.loads((directory / f"{block:03d}.json").read_text("utf-8"))
        for opening, texts in kept.items():
            openings += [opening] * len(texts)
            completions += texts
    return openings, completions
