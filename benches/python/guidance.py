"""What guidance costs beside plain sampling of as many tokens, in processor time.

    python -m benches.python.guidance [--prompts 8] [--particles 8] [--tokens 40] [--calls 3]

SmolLM2-135M in bfloat16, the study's store of base stories and demonstrations, MiniLM without a cache, one thread.
Plain sampling is the same loop for as many rows and tokens, where no text is chunked, embedded or scored and no gate is
computed. Both are run in turn, so that what else runs on the machine slows both. Prints medians in seconds, the parts
of a guided call and the median of the paired ratios, which should not exceed 1.3, as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
from time import process_time
from typing import Any

import numpy as np
import torch
from sharpwave.guide import Guide, sampling
from sharpwave.guide.swarm import Particle

from examples.guidance.compare import OPENINGS, TEMPERATURE, Setting
from examples.study.prepare import encoder


class Plain:
    """Particles of one prompt that are only written: what `sampling.sample` asks of a swarm."""

    typicality = None

    def __init__(self, particles: int, tokens: int, seed: int) -> None:
        self.uniforms = np.random.default_rng(seed).random((particles, tokens))
        self.particles = [Particle() for _ in range(particles)]

    @property
    def live(self) -> list[int]:
        return [n for n, particle in enumerate(self.particles) if not particle.done]

    def add(self, n: int, token: int, _said: Any, *, ended: bool, last: bool) -> None:
        self.particles[n].tokens.append(token)
        self.particles[n].ended, self.particles[n].done = ended, ended or last

    def rewritten(self, n: int, text: str) -> None:
        self.particles[n].text = text

    def ready(self) -> bool:
        return False


def plain(setting: Setting, guide: Guide, prompts: list[str], tokens: int, seed: int) -> tuple[float, int]:
    """Processor time of sampling without scores, and how many tokens were drawn."""
    began = process_time()
    model = sampling.LanguageModel(setting.model, setting.tokenizer)
    heads = [setting.tokenizer(setting.template.replace("{prompt}", p))["input_ids"] for p in prompts]
    drawn = 0
    for width in {sampling.padded_width(len(head)) for head in heads}:
        some = [head for head in heads if sampling.padded_width(len(head)) == width]
        swarms: list[Any] = [Plain(guide.particles, tokens, seed + n) for n in range(len(some))]
        sampling.sample(
            model, some, swarms, max_tokens=tokens, temperature=TEMPERATURE, end_tokens=model.end_tokens,
            process=None, laps=sampling.Laps(),
        )  # fmt: skip
        drawn += sum(len(particle.tokens) for swarm in swarms for particle in swarm.particles)
    return process_time() - began, drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--particles", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--calls", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    setting = Setting()
    guide = setting.guide(options.particles)
    guide.embedder = encoder("cpu")
    prompts = list(OPENINGS[: options.prompts])
    calls: list[dict[str, float]] = []
    for call in range(options.calls + 1):
        seconds, drawn = plain(setting, guide, prompts, options.tokens, call)
        began = process_time()
        out = guide.generate(
            setting.model, setting.tokenizer, prompts, call, max_new_tokens=options.tokens, temperature=TEMPERATURE,
            template=setting.template,
        )  # fmt: skip
        whole = process_time() - began
        if call:  # the first is warm-up
            each = (whole / out.tokens) / (seconds / drawn)
            calls.append({"plain": seconds, "guided": whole, **out.seconds, "ratio": each})
    print(json.dumps({name: round(statistics.median(call[name] for call in calls), 3) for name in calls[0]}))


if __name__ == "__main__":
    main()
