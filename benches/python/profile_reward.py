"""Where each millisecond of one reward call goes.

    python benches/python/profile_reward.py [--completions 16] [--words 96] [--memories 20000] [--calls 5]

A store of the demo's size in MiniLM's space, random words in place of stories, one call as a trainer makes it (a new
batch each time, so that the cache of embeddings has nothing to give; prompts repeat, as they do in training). Prints
the median of each part. The same numbers are in every `RewardOutput.seconds`, and in a trainer's log as
``sharpwave/seconds/*``.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import random
import statistics

import numpy as np
import sharpwave as sw
from sharpwave.demo.models import minilm_path, offline

WORDS = (
    "a the she he they it was had walked sat sang by in on under river house dog king boat night storm garden letter "
    "bread road old small green quiet found lost gave took opened closed morning window stone bird field winter friend"
).split()


def story(rng: random.Random, words: int) -> str:
    """Random words, a sentence every twelve."""
    chosen = [rng.choice(WORDS) for _ in range(words)]
    return ". ".join(" ".join(chosen[n : n + 12]) for n in range(0, words, 12)) + "."


def built(memories: int, learn: str, rng: random.Random, words: int) -> sw.InstrumentalReward:
    """A reward over a store of `memories`, most of them random directions."""
    offline()
    embedder = sw.embed.SentenceTransformer(minilm_path())
    prompts = [f"Tell me story {n}." for n in range(8)] * 8
    base = prompts, [story(rng, words) for _ in prompts]
    batch = sw.episodes.chunk_batch(sw.episodes.Sentences(), *base)
    steps = embedder(batch.steps)
    store = sw.ValueStore(sw.Config(dim=embedder.dim))
    store.calibrate(steps, batch.offsets)
    store.add_terminal("wedding", embedder(["They were married, and everyone danced."])[0])
    store.observe(steps, batch.offsets)
    if memories > len(store):
        store.insert(np.random.default_rng(0).normal(size=(memories - len(store), embedder.dim)).astype(np.float32))
    store.replay()
    return sw.InstrumentalReward(
        store,
        embedder,
        terminal="wedding",
        weights=sw.Weights(divergence=0.1),
        base=base,
        learn=learn,  # pyright: ignore[reportArgumentType]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--completions", type=int, default=16)
    parser.add_argument("--words", type=int, default=96)
    parser.add_argument("--memories", type=int, default=20_000)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--learn", choices=["off", "propose", "online"], default="propose")
    parser.add_argument("--functions", action="store_true", help="also the twenty dearest functions of the last call")
    options = parser.parse_args()
    rng = random.Random(0)
    reward = built(options.memories, options.learn, rng, options.words)
    prompts = [f"Tell me story {n // 8}." for n in range(options.completions)]
    reward.score_texts(prompts, [story(rng, options.words) for _ in prompts])  # warm
    found: dict[str, list[float]] = {}
    profile = cProfile.Profile()
    steps = 0
    for call in range(options.calls):
        batch = [story(rng, options.words) for _ in prompts]
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
