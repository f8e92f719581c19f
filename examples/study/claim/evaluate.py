"""What both optimisers share: completions of a policy on disk, and the line of measures that is read off them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import sharpwave as sw
import torch
from numpy.typing import NDArray

from examples.study import measures
from examples.study.claim.plan import WORK, Planned
from examples.study.claim.sampling import World, sample, samples_of
from examples.study.loop import commit, rounded
from examples.study.setting import OPENINGS, of_device

Floats = NDArray[np.float64]
Gold = Callable[[list[str], list[str]], Mapping[str, Floats]]
"""Openings and completions to measures by name, (n,) each."""

CHUNK = 16
"""Completions of each opening that diversity is measured over at once: it falls with their number."""

EXACT = 8
"""Completions of each opening that the exact KL is measured on."""


class Pay(Protocol):
    """What an arm says of n completions."""

    reward: Floats
    parts: dict[str, Floats]


class Arm(Protocol):
    """A reward; ``kl`` is the weight of the token KL in the policy gradient."""

    kl: float

    def __call__(self, openings: list[str], completions: list[str]) -> Pay:
        """What the completions earn."""
        ...


@dataclass(frozen=True)
class Drawn:
    """Completions of a policy, as many of each opening: texts, and the token ids that were drawn."""

    texts: dict[str, list[str]]
    ids: dict[str, list[list[int]]]

    @property
    def openings(self) -> list[str]:
        """The opening of each completion."""
        return [o for o, texts in self.texts.items() for _ in texts]

    @property
    def completions(self) -> list[str]:
        """All texts, opening by opening."""
        return [t for texts in self.texts.values() for t in texts]

    def first(self, copies: int) -> Drawn:
        """The first of each opening."""
        return Drawn({o: t[:copies] for o, t in self.texts.items()}, {o: i[:copies] for o, i in self.ids.items()})


def draw(
    world: World, opening: str, copies: int, tokens: int, seed: Sequence[int], path: Path | None = None
) -> tuple[list[str], list[list[int]]]:
    """Completions of one opening, from ``path`` where they are there; ``seed`` alone says what is drawn."""
    if path is not None and path.is_file():
        kept = json.loads(path.read_text("utf-8"))
        return kept["texts"], kept["ids"]
    number = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])
    generator = torch.Generator(device=world.policy.device).manual_seed(number)
    texts, ids = sample(world.policy, world.prompt(opening), copies, tokens, world.temperature, generator)
    if path is not None:
        write(path, json.dumps({"texts": texts, "ids": ids}, ensure_ascii=False))
    return texts, ids


def draw_all(world: World, copies: int, tokens: int, seed: Sequence[int]) -> Drawn:
    """Completions of every opening."""
    made = {o: draw(world, o, copies, tokens, (*seed, n)) for n, o in enumerate(OPENINGS)}
    return Drawn({o: t for o, (t, _) in made.items()}, {o: i for o, (_, i) in made.items()})


def write(path: Path, text: str) -> None:
    """A file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text(text, "utf-8")
    scratch.replace(path)


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """A file of results, whole."""
    write(path, "".join(json.dumps(rounded(line), ensure_ascii=False) + "\n" for line in lines))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results; none where it is not there."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def exact_kl(world: World, drawn: Drawn) -> float:
    """The token KL(policy‖base) over the whole vocabulary, nats, on completions of the policy."""
    total = count = 0.0
    for opening, ids in drawn.first(EXACT).ids.items():
        reading = world.policy.read(samples_of(world.policy, [world.prompt(opening)], ids), world.temperature)
        with torch.no_grad():
            kl = reading.kl(world.policy.log_probs(reading))
        tokens = float(reading.samples.mask.sum())
        total, count = total + float(kl) * tokens, count + tokens
    return total / count


def diversity(drawn: Drawn) -> tuple[float, float]:
    """Distinct bigrams over chunks of `CHUNK` completions of each opening, and within a completion; means."""
    copies = len(next(iter(drawn.texts.values())))
    chunks = [
        [t for texts in drawn.texts.values() for t in texts[first : first + CHUNK]]
        for first in range(0, max(1, copies - CHUNK + 1), CHUNK)
    ]
    return float(np.mean([measures.distinct(c, 2) for c in chunks])), measures.distinct_within(drawn.completions, 2)


def gold_of(gold: Gold, openings: list[str], completions: list[str]) -> dict[str, dict[str, float]]:
    """Each measure's mean and its standard error."""
    return {
        name: {"mean": float(v.mean()), "se": float(v.std() / np.sqrt(len(v)))}
        for name, v in gold(openings, completions).items()
    }


def measured(world: World, gold: Gold, drawn: Drawn, paid: Mapping[str, Any], copies: int) -> dict[str, Any]:
    """The measures of a policy's completions; gold is read on ``copies`` of each opening.

    Args:
        paid: ``reward`` and ``parts`` of all completions, as `payment` gives them.
    """
    openings, completions = drawn.openings, drawn.completions
    table = world.table(openings, completions)
    report = world.typicality.report_of_logprobs(*table, prompts=openings, completions=completions)
    distinct_2, within = diversity(drawn)
    some = drawn.first(copies)
    reward = np.asarray(paid["reward"])
    return {
        "reward": float(reward.mean()),
        "reward_sd": float(reward.std()),
        "parts": {name: float(np.mean(values)) for name, values in paid["parts"].items()},
        "gold": gold_of(gold, some.openings, some.completions),
        "gate": float(report.gate.mean()),
        "z": float(report.z.mean()),
        "log_likelihood": float(table.logps.sum() / table.mask.sum()),
        "length": float(table.mask.sum(1).mean()),
        "distinct_2": distinct_2,
        "distinct_2_within": within,
        "kl": exact_kl(world, drawn),
        "samples": [f"{o} {texts[0]}" for o, texts in drawn.texts.items()],
    }


def payment(paid: Pay) -> dict[str, Any]:
    """What an arm said, as plain data."""
    parts = {name: np.asarray(v, np.float64).tolist() for name, v in paid.parts.items()}
    return {"reward": np.asarray(paid.reward, np.float64).tolist(), "parts": parts}


def header(
    planned: Planned, settings: Mapping[str, Any], kl: float, gold: Gold, skyline: Mapping[str, list[str]]
) -> dict[str, Any]:
    """The first line: what the run is, and the upper end of every gold scale.

    Args:
        kl: weight of the token KL that the policy gradient is trained with.
        skyline: completions by opening of the base asked for the objective.
    """
    openings = [o for o, texts in skyline.items() for _ in texts]
    completions = [t for texts in skyline.values() for t in texts]
    return {
        "run": planned.name,
        "optimiser": planned.optimiser,
        "arm": planned.arm,
        **({"attempt": planned.attempt} if planned.attempt else {}),
        "objective": planned.objective,
        "seed": planned.seed,
        "policy": planned.policy,
        "settings": dict(settings),
        "kl": kl,
        "skyline": {
            "gold": gold_of(gold, openings, completions),
            "distinct_2": diversity(Drawn(dict(skyline), {}))[0],
        },
        "versions": {"sharpwave": sw.__version__, "torch": torch.__version__, "commit": commit()},
    }


def work_of(planned: Planned, device: str, root: Path = WORK) -> Path:
    """The directory of a run's checkpoints."""
    return of_device(root, device) / planned.name
