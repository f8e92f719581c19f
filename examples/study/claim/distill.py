"""``python -m examples.study.claim.distill ARM --objective wedding --seed 0 --rounds 5``: filtered distillation.

A round samples from the policy, keeps of all rounds so far what is paid best and is not alike, and tunes the base model
anew on it, at the sampling temperature. Every stage leaves a file, so that a run which is killed goes on from its last
stage and writes the very lines that it would have written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from examples.study.claim.evaluate import (
    Arm,
    Drawn,
    Gold,
    draw,
    gold_of,
    header,
    measured,
    payment,
    read_lines,
    write,
    write_lines,
)
from examples.study.claim.plan import Distill, Planned
from examples.study.claim.sampling import World, samples_of
from examples.study.policy import Policy
from examples.study.setting import OPENINGS

Rows = NDArray[np.float32]


class Run:
    """One arm with one seed.

    Args:
        gold: the gold measures of the objective.
        skyline: completions by opening of the base asked for the objective.
        results: the file of lines: a header, then a line for each round; round 0 is the base.
        work: the directory of its stages.
        shared: the directory of the base's completions, which all arms of a seed begin from.
    """

    def __init__(
        self,
        planned: Planned,
        settings: Distill,
        world: World,
        arm: Arm,
        gold: Gold,
        skyline: Mapping[str, list[str]],
        results: Path,
        work: Path,
        shared: Path,
    ) -> None:
        self.planned, self.settings, self.world, self.arm = planned, settings, world, arm
        self.gold, self.skyline, self.results, self.work, self.shared = gold, skyline, results, work, shared
        self.fresh = {name: w.clone() for name, w in world.policy.adapter().items()}
        self.lines = self._backed(read_lines(results))

    def _backed(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The lines whose rounds have left their stages here: in another checkout a run begins anew."""
        there = 0
        while (self._directory(there) / "paid.json").is_file() and self._samples(there, len(OPENINGS) - 1).is_file():
            there += 1
        return lines[: there + 1]

    @property
    def round(self) -> int:
        """The round whose line is to be written next."""
        return len(self.lines) - 1

    def stages(self, rounds: int) -> Iterator[str]:
        """Run to the line of round ``rounds``; after each stage, what was done. It may be left at any of them."""
        if not self.lines:
            began = time.perf_counter()
            self._line(header(self.planned, asdict(self.settings), 0.0, self.gold, self.skyline))
            yield f"skyline measured ({time.perf_counter() - began:.0f} s)"
        while self.round <= rounds:
            yield from self._round(self.round)

    def _round(self, number: int) -> Iterator[str]:
        self.world.forget()
        seconds: dict[str, float] = {}
        began = time.perf_counter()

        def done(stage: str, what: str) -> str:
            nonlocal began
            now = time.perf_counter()
            seconds[stage] = round(seconds.get(stage, 0.0) + now - began, 1)
            told = f"{what} ({now - began:.0f} s)"
            began = now
            return f"round {number}: {told}"

        if number:
            adapter = self._directory(number) / "adapter.safetensors"
            if not adapter.is_file():
                for epoch, loss in tune(
                    self.world,
                    self.fresh,
                    self._tuned_on(number),
                    self.settings,
                    (self.planned.seed, number),
                    adapter,
                ):
                    yield done("tune", f"epoch {epoch + 1} of {self.settings.epochs}, loss {loss:.3f}")
            self.world.policy.load_adapter(load_file(adapter, device=str(self.world.policy.device)))
        else:
            self.world.policy.load_adapter(self.fresh)
        made: dict[str, tuple[list[str], list[list[int]]]] = {}
        for place, opening in enumerate(OPENINGS):
            path = self._samples(number, place)
            there = path.is_file()
            seed = (self.planned.seed, number, place)
            made[opening] = draw(self.world, opening, self.settings.copies, self.settings.tokens, seed, path)
            if not there:
                yield done("sample", f"{(place + 1) * self.settings.copies} completions")
        drawn = Drawn({o: t for o, (t, _) in made.items()}, {o: i for o, (_, i) in made.items()})
        paid = self._paid(number, drawn)
        yield done("pay", f"reward {np.mean(paid['reward']):+.3f}")
        line = {"round": number, **measured(self.world, self.gold, drawn, paid, self.settings.gold)}
        if number:
            line["kept"] = self._told(number)
        line["seconds"] = seconds
        told = ", ".join(f"{name} {v['mean']:.3f}" for name, v in line["gold"].items())
        message = done("measure", f"T {line['gate']:.2f}, KL {line['kl']:.3f}, {told}")
        self._line(line)
        yield message

    def _line(self, line: dict[str, Any]) -> None:
        write_lines(self.results, [*self.lines, line])
        self.lines = read_lines(self.results)

    def _directory(self, number: int) -> Path:
        return self.work / f"round-{number:02}"

    def _samples(self, number: int, place: int) -> Path:
        """Completions of one opening; the base's are the same for every arm of the seed."""
        return (self._directory(number) if number else self.shared) / f"samples-{place}.json"

    def _paid(self, number: int, drawn: Drawn | None = None) -> dict[str, Any]:
        """What the arm said of a round's completions, and their embeddings beside it."""
        path = self._directory(number) / "paid.json"
        if not path.is_file():
            assert drawn is not None
            embeddings = path.with_name("embeddings.npy")
            rows = self.world.embed([c or "." for c in drawn.completions])
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(embeddings, rows / np.linalg.norm(rows, axis=1, keepdims=True))
            write(path, json.dumps(payment(self.arm(drawn.openings, drawn.completions))))
        return json.loads(path.read_text("utf-8"))

    def _kept(self, number: int) -> dict[str, list[tuple[str, list[int], float]]]:
        """What round ``number`` is tuned on, by opening: texts, token ids and rewards of the rounds before it."""
        out: dict[str, list[tuple[str, list[int], float]]] = {}
        paid = [self._paid(n)["reward"] for n in range(number)]
        embeddings = [np.load(self._directory(n) / "embeddings.npy") for n in range(number)]
        copies = self.settings.copies
        for place, opening in enumerate(OPENINGS):
            own = slice(place * copies, (place + 1) * copies)
            samples = [json.loads(self._samples(n, place).read_text("utf-8")) for n in range(number)]
            texts = [t for s in samples for t in s["texts"]]
            ids = [i for s in samples for i in s["ids"]]
            reward = np.concatenate([p[own] for p in paid])
            rows = np.concatenate([e[own] for e in embeddings])
            chosen = select(reward, rows, self.settings.keep, self.settings.max_cosine)
            out[opening] = [(texts[n], ids[n], float(reward[n])) for n in chosen]
        return out

    def _tuned_on(self, number: int) -> dict[str, list[list[int]]]:
        """The token ids of what is kept, and of the base's own completions where a share of them is wanted."""
        own = {
            opening: json.loads(self._samples(0, place).read_text("utf-8"))["ids"][: self.settings.base]
            for place, opening in enumerate(OPENINGS)
        }
        return {o: [*(ids for _, ids, _ in rows), *own[o]] for o, rows in self._kept(number).items()}

    def _told(self, number: int) -> dict[str, Any]:
        """Reward and gold of what the round was tuned on: does gold go on rising where pay no longer does?"""
        kept = self._kept(number)
        openings = [o for o, rows in kept.items() for _ in rows]
        texts = [t for rows in kept.values() for t, _, _ in rows]
        reward = float(np.mean([r for rows in kept.values() for _, _, r in rows]))
        return {"reward": reward, "gold": gold_of(self.gold, openings, texts)}


def select(reward: Sequence[float] | NDArray[Any], rows: Rows, keep: int, max_cosine: float) -> list[int]:
    """The ``keep`` best, each with a cosine of at most ``max_cosine`` to those before it.

    Where too few are so unlike, the best of the others fill up. Of equal rewards the earlier is better.
    """
    order = np.argsort(-np.asarray(reward), kind="stable").tolist()
    chosen: list[int] = []
    for n in order:
        if len(chosen) == keep:
            break
        if not chosen or float((rows[chosen] @ rows[n]).max()) <= max_cosine:
            chosen.append(n)
    taken = set(chosen)
    return chosen + [n for n in order if n not in taken][: keep - len(chosen)]


def tune(
    world: World,
    fresh: Mapping[str, torch.Tensor],
    kept: Mapping[str, list[list[int]]],
    settings: Distill,
    seed: Sequence[int],
    adapter: Path,
) -> Iterator[tuple[int, float]]:
    """Fine-tune the base anew on completions by opening; after each epoch its number and loss, nats a token.

    What lies below the first layer with an adapter is read once for all epochs. The optimiser's state lies beside
    ``adapter`` until that is there.
    """
    policy, checkpoint = world.policy, adapter.with_name("tuning.pt")
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([*seed, 999]).generate_state(1)[0]))
    policy.load_adapter(dict(fresh))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    mixed = {o: [ids[n] for n in torch.randperm(len(ids), generator=generator)] for o, ids in kept.items()}
    readings = [*_readings(policy, world, mixed, max(1, settings.batch // len(mixed)))]
    orders = [torch.randperm(len(readings), generator=generator).tolist() for _ in range(settings.epochs)]
    begin = 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        begin = saved["epoch"]
        policy.load_adapter(saved["adapter"])
        optimizer.load_state_dict(saved["optimizer"])
    adapter.parent.mkdir(parents=True, exist_ok=True)
    for epoch in range(begin, settings.epochs):
        losses: list[float] = []
        for n in orders[epoch]:
            reading = readings[n]
            loss = -reading.mean(reading.pick(policy.log_probs(reading)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        last = epoch + 1 == settings.epochs
        scratch = (adapter if last else checkpoint).with_suffix(".part")
        if last:
            save_file({name: w.cpu().contiguous() for name, w in policy.adapter().items()}, scratch)
        else:
            state = {"epoch": epoch + 1, "adapter": policy.adapter(), "optimizer": optimizer.state_dict()}
            torch.save(state, scratch)
        scratch.replace(adapter if last else checkpoint)
        yield epoch, float(np.mean(losses))
    checkpoint.unlink(missing_ok=True)


def _readings(policy: Policy, world: World, kept: Mapping[str, list[list[int]]], copies: int) -> Iterator[Any]:
    """The batches: ``copies`` of each opening; without the base's predictions, which are wide."""
    prompts = [world.prompt(o) for o in kept]
    for first in range(0, min(map(len, kept.values())), copies):
        ids = [one for rows in kept.values() for one in rows[first : first + copies]]
        reading = policy.read(samples_of(policy, prompts, ids), world.temperature)
        yield replace(reading, base=reading.base.new_empty(0))


def make(planned: Planned, settings: Distill, world: World, device: str) -> Run:
    """A real run: the arm, the gold measures and the directories as the study has them."""
    from functools import partial

    from examples.study.claim import arms, gold
    from examples.study.claim.evaluate import work_of
    from examples.study.gold_texts import read_demonstrations

    arm: Arm = arms.build(planned.arm, planned.objective, world)
    work = work_of(planned, device)
    return Run(
        planned,
        settings,
        world,
        arm,
        partial(gold.measure, planned.objective),
        read_demonstrations(planned.objective),
        planned.results(device),
        work,
        work.parent / f"base-{planned.policy}-{planned.seed}",
    )


def main() -> None:
    """One run, from where it was stopped."""
    from examples.study.queue import from_command_line

    from_command_line(__doc__, "rounds", 5, ("distill",))


if __name__ == "__main__":
    main()
