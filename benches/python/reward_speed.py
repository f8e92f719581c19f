"""Where each millisecond of a reward call goes, beside the usual code: one `encode` a sample, then cosines.

    python -m benches.python.reward_speed [--prompts 4] [--samples 8] [--memories 20000] [--calls 3]

A GRPO batch: each prompt with its group of stories of SmolLM2-135M (`study/base.jsonl`, about 80 words each), cut into
steps of 8 words. The usual code encodes one sample after another with the same model as it comes (float32) and takes
the cosine of each step to the terminal. The reward does all that a reward does: chunks, embeddings (bfloat16, all
steps of the batch together, sorted by length, equal ones once), score, terminal, divergence, learning. Cold: texts that
it has never seen, though the prompts come back; warm: the same texts once more, as several epochs over one batch have
them. Medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import sharpwave as sw
from sharpwave.text.packages import minilm_path, offline

from benches.python.profile_reward import BASE, built, stories


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--samples", type=int, default=8, help="a prompt")
    parser.add_argument("--memories", type=int, default=20_000)
    parser.add_argument("--calls", type=int, default=3)
    options = parser.parse_args()
    offline()
    from sentence_transformers import SentenceTransformer

    told = stories()
    reward = built(options.memories, "propose", told[:BASE], fluency=False)
    usual = SentenceTransformer(str(minilm_path()))
    goal = usual.encode("They were married, and everyone danced.")
    size = options.prompts * options.samples
    prompts = [told[n // options.samples][0] for n in range(size)]
    texts = [text for _, text in told[BASE:]]
    most = len(texts) // size - 1
    if options.calls > most:
        parser.error(f"there are new texts for {most} calls of {size} completions")
    batches = [texts[call * size : (call + 1) * size] for call in range(options.calls + 1)]
    taken: dict[str, list[float]] = {"usual": [], "cold": [], "warm": []}
    parts: dict[str, dict[str, list[float]]] = {"cold": {}, "warm": {}}
    for call, batch in enumerate(batches):
        begun = time.perf_counter()
        one_by_one(usual, goal, reward.chunker, prompts, batch)
        seconds = [time.perf_counter() - begun]
        for _ in ("cold", "warm"):
            begun = time.perf_counter()
            out = reward.score_texts(prompts, batch)
            seconds.append(time.perf_counter() - begun)
            if call:
                for part, value in out.seconds.items():
                    parts[("cold", "warm")[len(seconds) - 2]].setdefault(part, []).append(1000 * value)
        if call:  # the first is to warm up
            for name, value in zip(taken, seconds, strict=True):
                taken[name].append(1000 * value)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    print(f"{options.prompts} prompts × {options.samples} stories, {len(out.step)} steps, {len(reward.store)} memories")
    for name, value in medians.items():
        print(f"{name:>12}  {value:9.2f} ms  {medians['usual'] / value:6.1f} × as fast as the usual code")
    for name, of in parts.items():
        print(f"{name}: " + ", ".join(f"{part} {statistics.median(v):.2f}" for part, v in of.items()))


def one_by_one(
    model: Any, goal: Any, chunker: sw.episodes.Chunker, prompts: list[str], texts: list[str]
) -> list[float]:
    """The usual code."""
    found = []
    for prompt, text in zip(prompts, texts, strict=True):
        steps = sw.episodes.chunk_batch(chunker, [prompt], [text]).steps
        rows = model.encode(steps, show_progress_bar=False)
        found.append(float(np.max(rows @ goal / np.linalg.norm(rows, axis=1))))
    return found


if __name__ == "__main__":
    main()
