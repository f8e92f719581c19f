"""Models loaded once, and the cheap ways to sample from a policy and to read under its base on one core.

``python -m examples.study.claim.sampling`` measures them: completions a minute, and the KL of bfloat16 from float32.

Sampling is bound by arithmetic: bfloat16 weights, as many completions of one prompt at a time as give full matrices,
plain attention (a fused kernel for one query a row is slower), and tokens drawn by the inverse of their distribution
(torch draws as many exponentials as there are words). Reading gives everything at once that the base says of a token:
its log-probability, and the entropy and varentropy of the prediction.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import sharpwave as sw
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.study.claim.plan import Unavailable
from examples.study.policy import CHAT, Lora, Policy, Samples
from examples.study.setting import OPENINGS, PROMPT, REFERENCE

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]
Embed = Callable[[list[str]], Rows]

READ_ROWS = 48
"""Completions that are read together."""

HEAD_ROWS = 512
"""Places whose predictions are held at once: each is as wide as the vocabulary."""


class Table(NamedTuple):
    """What the base says of completions, (n, T) each: the arguments of `sharpwave.text.Typicality.of_logprobs`."""

    logps: Floats
    mask: Floats
    entropies: Floats
    varentropies: Floats


def inverse(logits: Tensor, generator: torch.Generator) -> Tensor:
    """(B,) a token for each row of ``logits`` (B, V): where a uniform number falls in the cumulative distribution."""
    cumulative = logits.softmax(-1).cumsum(-1)
    uniform = torch.rand((len(logits), 1), generator=generator, device=logits.device)
    found = torch.searchsorted(cumulative, uniform * cumulative[:, -1:])[:, 0]
    return found.clamp(max=logits.shape[1] - 1)


@contextmanager
def plain_attention(policy: Policy) -> Generator[None]:
    """Attention as matrix products, where a step has one query a row."""
    before = policy.core.config._attn_implementation
    policy.core.set_attn_implementation("eager")
    try:
        yield
    finally:
        policy.core.set_attn_implementation(before)


def sample(
    policy: Policy, prompt: str, copies: int, tokens: int, temperature: float, generator: torch.Generator
) -> tuple[list[str], list[list[int]]]:
    """``copies`` completions of one prompt: texts, and token ids up to and with the end token."""
    with plain_attention(policy):
        drawn = policy.sample([prompt], copies, tokens, generator, temperature, inverse)
    lengths = drawn.mask.sum(1).tolist()
    ids = [row[: int(n)] for row, n in zip(drawn.ids.tolist(), lengths, strict=True)]
    return list(drawn.texts), ids


def samples_of(policy: Policy, prompts: Sequence[str], ids: Sequence[Sequence[int]]) -> Samples:
    """Completions that were sampled before as `Policy.read` takes them: as many of each prompt, lying together."""
    width = max(map(len, ids))
    drawn = torch.full((len(ids), width), policy.tokenizer.pad_token_id, device=policy.device)
    kept = torch.zeros((len(ids), width), dtype=torch.long, device=policy.device)
    for row, one in enumerate(ids):
        drawn[row, : len(one)] = torch.tensor(list(one), device=policy.device)
        kept[row, : len(one)] = 1
    return Samples(len(ids) // len(prompts), (), *policy.encode(prompts, "left"), drawn, kept)


@torch.no_grad()
def read(policy: Policy, prompt: str, completions: Sequence[str], temperature: float, tokens: int) -> list[Rows]:
    """What the base says of completions of one prompt, (tokens, 3) each: log-probability, entropy, varentropy, nats.

    The prompt is read once. A completion is split into tokens anew from its text, however the policy had split it, and
    read as it stands behind the opening: after a space.
    """
    out: list[Rows] = []
    with policy.base():
        for first in range(0, len(completions), READ_ROWS):
            some = [f" {c}" if c else "" for c in completions[first : first + READ_ROWS]]
            out += _read(policy, prompt, some, temperature, tokens)
    return out


def _read(policy: Policy, prompt: str, completions: list[str], temperature: float, tokens: int) -> list[Rows]:
    from transformers import DynamicCache

    policy.tokenizer.padding_side = "right"
    ids = [policy.tokenizer(c, add_special_tokens=False)["input_ids"][:tokens] for c in completions]
    lengths = [len(row) for row in ids]
    width = max(lengths)
    if width == 0:
        return [np.zeros((0, 3), np.float32) for _ in ids]
    cache: Any = DynamicCache()
    head, head_mask = policy.encode([prompt], "right")
    last = policy.hidden(head, head_mask, cache)[:, -1:]
    cache.batch_repeat_interleave(len(ids))
    said = torch.zeros((len(ids), width), dtype=torch.long, device=policy.device)
    mask = torch.zeros_like(said)
    for row, one in enumerate(ids):
        said[row, : len(one)] = torch.tensor(one, dtype=torch.long, device=policy.device)
        mask[row, : len(one)] = 1
    states = policy.hidden(said, torch.cat([head_mask.expand(len(ids), -1), mask], 1), cache)
    states = torch.cat([last.expand(len(ids), -1, -1), states[:, :-1]], 1)[mask.bool()]
    targets = said[mask.bool()]
    parts: list[Tensor] = []
    for place in range(0, len(states), HEAD_ROWS):
        logits = policy.core.lm_head(states[place : place + HEAD_ROWS]).float().div_(temperature)
        nats = logits.log_softmax(-1)
        chosen = nats.gather(1, targets[place : place + HEAD_ROWS, None])[:, 0]
        weight = nats.exp()
        entropy = -(weight * nats).sum(1)
        # Σ p (log p + H)² = Σ p log² p − H²
        varentropy = weight.mul_(nats).mul_(nats).sum(1) - entropy**2
        parts.append(torch.stack([chosen, entropy, varentropy.clamp(min=0)], 1))
    every = torch.cat(parts).cpu().numpy().astype(np.float32)
    return np.split(every, np.cumsum(lengths)[:-1])


@dataclass
class World:
    """The loaded models, once, and what they said lately.

    Attributes:
        policy: the policy with its adapter; with the adapter off it is the base model.
        encode: MiniLM, without a cache.
        base: completions of the base by opening: what every scale begins at.
        template: how an opening is put before a completion; ``{opening}``.
    """

    policy: Policy
    encode: Embed
    base: dict[str, list[str]]
    template: str = CHAT.replace("{prompt}", PROMPT)
    temperature: float = 0.8
    tokens: int = 64
    _read: dict[tuple[str, str], Rows] = field(default_factory=dict)
    _embedded: dict[str, Rows] = field(default_factory=dict)

    def forget(self) -> None:
        """Drop what was cached: results must not depend on what was computed before a resume."""
        self._read.clear()
        self._embedded.clear()

    def prompt(self, opening: str) -> str:
        """The text that the policy reads before it writes."""
        return self.template.format(opening=opening)

    @property
    def base_openings(self) -> list[str]:
        """The opening of each of `base_completions`."""
        return [o for o, texts in self.base.items() for _ in texts]

    @property
    def base_completions(self) -> list[str]:
        """All of ``base``."""
        return [t for texts in self.base.values() for t in texts]

    def embed(self, texts: list[str]) -> Rows:
        """(n, d) MiniLM's vectors; a text is embedded once."""
        new = [t for t in dict.fromkeys(texts) if t not in self._embedded]
        if new:
            self._embedded.update(zip(new, self.encode(new), strict=True))
        return np.stack([self._embedded[t] for t in texts])

    def table(self, openings: Sequence[str], completions: Sequence[str]) -> Table:
        """What the base says of completions, at the sampling temperature; a completion is read once."""
        wanted = list(dict.fromkeys(zip(openings, completions, strict=True)))
        for opening in dict.fromkeys(openings):
            new = [c for o, c in wanted if o == opening and (o, c) not in self._read]
            rows = read(self.policy, self.prompt(opening), new, self.temperature, self.tokens) if new else []
            self._read.update(((opening, c), row) for c, row in zip(new, rows, strict=True))
        rows = [self._read[o, c] for o, c in zip(openings, completions, strict=True)]
        whole = np.zeros((4, len(rows), max([1, *map(len, rows)])))
        for n, row in enumerate(rows):
            whole[1, n, : len(row)] = 1
            whole[[0, 2, 3], n, : len(row)] = row.T
        return Table(*whole)

    def log_likelihood(self, openings: Sequence[str], completions: Sequence[str]) -> Floats:
        """(n,) nats a token of each completion under the base."""
        logps, mask, *_ = self.table(openings, completions)
        return logps.sum(1) / np.maximum(mask.sum(1), 1)

    @cached_property
    def typicality(self) -> sw.text.Typicality:
        """The gate, fitted on ``base``."""
        openings, completions = self.base_openings, self.base_completions
        table = self.table(openings, completions)
        gate = sw.text.Typicality(None, temperature=self.temperature)
        return gate.fit_logprobs(*table, prompts=openings, completions=completions)

    def gate(self, openings: Sequence[str], completions: Sequence[str]) -> Floats:
        """(n,) T of each completion, from 0 to 1."""
        table = self.table(openings, completions)
        return self.typicality.of_logprobs(*table, prompts=list(openings), completions=list(completions))


def load(policy: str = "smollm2", seed: int = 0, device: str = "cpu", temperature: float = 0.8) -> World:
    """The models of a real run; ``policy`` is the one that is trained.

    Raises:
        Unavailable: a policy of another name; its base completions and demonstrations are not there.
    """
    from sharpwave.text.packages import load_language_model, smollm2_path

    from examples.study.prepare import encoder

    if policy != "smollm2":
        raise Unavailable(f"the policy {policy!r} has no base completions and demonstrations of its own yet")
    base = json.loads(REFERENCE.read_text("utf-8"))["completions"]
    made = Policy(*load_language_model(smollm2_path(), device), Lora(), seed)
    return World(made, encoder(device), base, temperature=temperature)


def divergence(
    first: Policy, second: Policy, prompts: Iterable[tuple[str, list[list[int]]]], temperature: float
) -> float:
    """The exact token KL(first‖second) of two base models on completions, nats."""
    total = count = 0.0
    for prompt, ids in prompts:
        samples = samples_of(first, [prompt], ids)
        a, b = (policy.read(samples, temperature) for policy in (first, second))
        kl = (a.base.exp() * (a.base - b.base)).sum(-1)
        total += float((kl * samples.mask).sum())
        count += float(samples.mask.sum())
    return total / count


def main() -> None:
    """Print how fast sampling and reading are, before and after, and what bfloat16 changes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--copies", type=int, default=96)
    options = parser.parse_args()
    torch.set_num_threads(1)
    world = load()
    quick, exact = world.policy, load().policy
    exact.model.float()
    clock = time.process_time
    prompt = world.prompt(OPENINGS[0])

    def timed(name: str, count: int, do: Callable[[], Any]) -> Any:
        began = clock()
        out = do()
        print(f"{name}: {60 * count / (clock() - began):.0f} completions a minute of one core", flush=True)
        return out

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    pair = [world.prompt(o) for o in OPENINGS[:2]]
    timed("float32, 16 at a time", 16, lambda: exact.sample(pair, 8, 40, generator(), 0.8))
    timed("bfloat16, 16 at a time", 16, lambda: quick.sample(pair, 8, 40, generator(), 0.8))
    many = options.copies
    timed(f"bfloat16, {many} at a time", many, lambda: quick.sample([prompt], many, 40, generator(), 0.8))
    texts, ids = timed(
        f"the same, plain attention, inverse draws, {many}",
        many,
        lambda: sample(quick, prompt, many, 40, 0.8, generator()),
    )
    from sharpwave.text.reading import Reader

    core = quick.core
    reader = Reader(core, quick.tokenizer, temperature=0.8, cache=False)
    with quick.base():
        timed("read one by one with the prompt", many, lambda: reader.sums([prompt] * many, texts))
    timed("read with the prompt once", many, lambda: read(quick, prompt, texts, 0.8, 64))
    kl = divergence(quick, exact, [(prompt, ids[:16])], 0.8)
    print(f"KL(bfloat16 || float32) on 16 completions: {kl:.5f} nats a token")


if __name__ == "__main__":
    main()
