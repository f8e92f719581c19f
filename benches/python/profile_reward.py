"""Where each millisecond of one reward call goes.

    python benches/python/profile_reward.py [--completions 16] [--memories 20000] [--calls 5] [--fluency]

Stories of SmolLM2-135M (`study/base.jsonl`, about 80 words each): 64 are the base and fill the store, which is filled
up to ``--memories`` with random directions, since a search takes as long among them; the others are the completions,
one call as a trainer makes it, each with new texts, so that the cache of embeddings has nothing to give. Prints the
median of each part. The same numbers are in every `RewardOutput.seconds`, and in a trainer's log as
``sharpwave/seconds/*``.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
from pathlib import Path

import numpy as np
import sharpwave as sw
from sharpwave.text.packages import minilm_path, offline, smollm2_path

TEXTS = Path(__file__).resolve().parents[2] / "study" / "base.jsonl"
BASE = 64


def stories() -> list[tuple[str, str]]:
    """Prompts and stories."""
    rows = [json.loads(line) for line in TEXTS.read_text("utf-8").splitlines()]
    return [(row["prompt"], row["text"]) for row in rows if "text" in row]


def built(memories: int, learn: str, base: list[tuple[str, str]], fluency: bool) -> sw.InstrumentalReward:
    """A reward over a store of `memories`, most of them random directions."""
    offline()
    embedder: sw.embed.Embedder = sw.embed.SentenceTransformer(minilm_path(), dtype="bfloat16")
    prompts, texts = [p for p, _ in base], [t for _, t in base]
    batch = sw.episodes.chunk_batch(sw.episodes.Words(8), prompts, texts)
    if fluency:
        form = sw.embed.Fluency(smollm2_path(), dtype="bfloat16")
        form.fit(batch.steps)
        embedder = sw.embed.Joined([embedder, form], [1.0, 0.2])
    steps = embedder(batch.steps)
    store = sw.ValueStore(sw.Config(dim=steps.shape[1]))
    store.calibrate(steps, batch.offsets)
    store.add_terminal("wedding", embedder(["They were married, and everyone danced."])[0])
    store.observe(steps, batch.offsets)
    if memories > len(store):
        store.insert(np.random.default_rng(0).normal(size=(memories - len(store), store.dim)).astype(np.float32))
    store.replay()
    return sw.InstrumentalReward(
        store,
        embedder,
        chunker=sw.episodes.Words(8),
        terminal="wedding",
        weights=sw.Weights(divergence=0.1),
        base=(prompts, texts),
        learn=learn,  # pyright: ignore[reportArgumentType]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--completions", type=int, default=16)
    parser.add_argument("--memories", type=int, default=20_000)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--learn", choices=["off", "propose", "online"], default="propose")
    parser.add_argument("--functions", action="store_true", help="also the twenty dearest functions of the last call")
    parser.add_argument("--fluency", action="store_true", help="each step with its fluency beside its meaning")
    options = parser.parse_args()
    told = stories()
    most = (len(told) - BASE) // options.completions - 1
    if options.calls > most:
        parser.error(f"there are texts for {most} calls of {options.completions} completions")
    reward = built(options.memories, options.learn, told[:BASE], options.fluency)
    prompts = [told[n // 8][0] for n in range(options.completions)]
    batches = [
        [text for _, text in told[BASE + n * len(prompts) : BASE + (n + 1) * len(prompts)]]
        for n in range(options.calls + 1)
    ]
    reward.score_texts(prompts, batches.pop())  # warm
    found: dict[str, list[float]] = {}
    profile = cProfile.Profile()
    steps = 0
    for call, batch in enumerate(batches):
        last = options.functions and call == options.calls - 1
        if last:
            profile.enable()
        out = reward.score_texts(prompts, batch)
        if last:
            profile.disable()
        steps = len(out.step)
        for part, value in out.seconds.items():
            found.setdefault(part, []).append(1000 * value)
    medians = {part: statistics.median(values) for part, values in found.items()}
    medians["the rest"] = medians["total"] - sum(value for part, value in medians.items() if part != "total")
    print(f"{options.completions} completions, {steps} steps, {len(reward.store)} memories, learn={options.learn!r}")
    for part, value in sorted(medians.items(), key=lambda item: -item[1]):
        print(f"{part:>12}  {value:9.3f} ms  {value / medians['total']:6.1%}")
    if options.functions:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(20)


if __name__ == "__main__":
    main()
