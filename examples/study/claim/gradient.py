"""``python -m examples.study.claim.gradient ARM --algorithm reinforce --steps 400``: policy gradient, the same arms.

The update is the first part's (`examples.study.loop`): rewards normalised within an opening's completions, REINFORCE or
GRPO, the arm's token KL in the loss. A run that is killed goes on from its last checkpoint and writes the very lines
that it would have written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from examples.study import measures
from examples.study.claim.evaluate import (
    Arm,
    Gold,
    draw_all,
    header,
    measured,
    payment,
    write_lines,
)
from examples.study.claim.plan import Gradient, Planned
from examples.study.claim.sampling import World, inverse, plain_attention
from examples.study.config import Train
from examples.study.loop import normalised, update
from examples.study.setting import OPENINGS

EVALUATION = 1_000_000
"""Seeds of the evaluations' completions begin here, apart from those of the steps."""


class Run:
    """One arm with one seed; the arguments are those of `examples.study.claim.distill.Run`.

    The file of results has a header, a line for each step, and in the lines of some steps ``evaluation``: the measures
    of fresh completions of the policy before that step's update. Its last line is the evaluation of the end.
    """

    def __init__(
        self,
        planned: Planned,
        settings: Gradient,
        world: World,
        arm: Arm,
        gold: Gold,
        skyline: Mapping[str, list[str]],
        results: Path,
        work: Path,
    ) -> None:
        self.planned, self.settings, self.world, self.arm = planned, settings, world, arm
        self.gold, self.skyline, self.results = gold, skyline, results
        self.checkpoint = work / "checkpoint.pt"
        grpo = planned.optimiser == "grpo"
        self.train = Train(
            groups=settings.groups,
            copies=settings.copies,
            tokens=settings.tokens,
            temperature=settings.temperature,
            algorithm=planned.optimiser,
            inner=2 if grpo else 1,
            learning_rate=settings.learning_rate,
            kl=arm.kl,
            max_norm=settings.max_norm,
        )
        policy = world.policy
        self.optimizer = torch.optim.AdamW(
            policy.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self.generator = torch.Generator(device=policy.device).manual_seed(planned.seed)
        self.lines: list[dict[str, Any]] = []
        if self.checkpoint.is_file():
            saved = torch.load(self.checkpoint, weights_only=False)
            self.lines = saved["lines"]
            policy.load_adapter(saved["adapter"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.generator.set_state(saved["generator"])
            write_lines(results, self.lines)

    @property
    def step(self) -> int:
        """The step whose line is to be written next."""
        return len(self.lines) - 1

    def stages(self, steps: int) -> Iterator[str]:
        """Run to the evaluation of step ``steps``; after each step, what it did. It may be left at any of them."""
        if not self.lines:
            self.lines.append(header(self.planned, asdict(self.settings), self.train.kl, self.gold, self.skyline))
            self._save()
            yield "skyline measured"
        while self.step < steps:
            began = time.perf_counter()
            number, line = self.step, self._one()
            self.lines.append(line)
            write_lines(self.results, self.lines)
            if self.step % self.settings.checkpoint_every == 0:
                self._save()
            told = f"reward {line['reward']:+.3f}, KL {line['kl']:.3f}"
            yield f"step {number}: {told} ({time.perf_counter() - began:.0f} s)"
        if self.step == steps:
            self.world.forget()
            self.lines.append({"step": steps, "evaluation": self._evaluation(steps)})
            write_lines(self.results, self.lines)
            self._save()
            yield f"step {steps}: evaluated"

    def _one(self) -> dict[str, Any]:
        policy, settings, number = self.world.policy, self.settings, self.step
        self.world.forget()
        openings = [OPENINGS[(number * settings.groups + n) % len(OPENINGS)] for n in range(settings.groups)]
        line: dict[str, Any] = {"step": number}
        if number % settings.gold_every == 0:
            line["evaluation"] = self._evaluation(number)
        with plain_attention(policy):
            samples = policy.sample(
                [self.world.prompt(o) for o in openings],
                settings.copies,
                settings.tokens,
                self.generator,
                settings.temperature,
                inverse,
            )
        repeated = [o for o in openings for _ in range(settings.copies)]
        texts = list(samples.texts)
        paid = self.arm(repeated, texts)
        reading = policy.read(samples, settings.temperature)
        stats = update(policy, self.optimizer, reading, normalised(paid.reward, settings.copies), self.train)
        return line | {
            "reward": float(paid.reward.mean()),
            "parts": {name: float(v.mean()) for name, v in paid.parts.items()},
            **stats,
            "distinct_2": measures.distinct(texts, 2),
            "distinct_2_within": measures.distinct_within(texts, 2),
            "samples": [f"{repeated[n]} {texts[n]}" for n in range(0, len(texts), settings.copies)],
        }

    def _evaluation(self, number: int) -> dict[str, Any]:
        settings = self.settings
        drawn = draw_all(self.world, settings.gold, settings.tokens, (self.planned.seed, EVALUATION + number))
        paid = payment(self.arm(drawn.openings, drawn.completions))
        return measured(self.world, self.gold, drawn, paid, settings.gold)

    def _save(self) -> None:
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "lines": self.lines,
                "adapter": self.world.policy.adapter(),
                "optimizer": self.optimizer.state_dict(),
                "generator": self.generator.get_state(),
            },
            scratch,
        )
        scratch.replace(self.checkpoint)


def make(planned: Planned, settings: Gradient, world: World, device: str) -> Run:
    """A real run: the arm, the gold measures and the directories as the study has them."""
    from functools import partial

    from examples.study.claim import arms, gold
    from examples.study.claim.evaluate import work_of
    from examples.study.gold_texts import read_demonstrations

    return Run(
        planned,
        settings,
        world,
        arms.build(planned.arm, planned.objective, world),
        partial(gold.measure, planned.objective),
        read_demonstrations(planned.objective),
        planned.results(device),
        work_of(planned, device),
    )


def main() -> None:
    """One run, from where it was stopped."""
    from examples.study.queue import from_command_line

    from_command_line(__doc__, "steps", 400, ("reinforce", "grpo"))


if __name__ == "__main__":
    main()
