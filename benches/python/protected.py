"""What the protections of a reward cost in a call, where the trainer has a reference pass.

    python -m benches.python.protected [--completions 16] [--memories 20000] [--calls 7]

The same stories and store as `profile_reward`. One reward is the sum of MiniLM's terms; the other is a conjunction with
T of the reference pass, saturation and crowding. Both score the same new texts in turn, without a cache of embeddings,
so that what else runs on the machine slows both. What the reference would hand over is made up: its size counts here.
Prints the medians and their ratio, which should not exceed 1.3, as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import sharpwave as sw
from sharpwave.text import TokenLogprobs, Typicality
from sharpwave.text.packages import minilm_path

from benches.python.profile_reward import BASE, built, stories

DEMONSTRATIONS = Path(__file__).resolve().parents[2] / "study" / "demonstrations" / "wedding.json"
TOKENS_PER_WORD = 1.3


def handed(texts: list[str], seed: int) -> list[TokenLogprobs]:
    """What a reference says of texts, of the size that it has: float32 rows, a number a token."""
    rng = np.random.default_rng(seed)
    counts = [int(TOKENS_PER_WORD * len(text.split())) for text in texts]
    return [TokenLogprobs(rng.normal(-2.0, 1.0, n).astype(np.float32), np.full(n, 2.0, np.float32)) for n in counts]


def fitted(prompts: list[str], texts: list[str]) -> Typicality:
    """A gate of such rows."""
    rows = handed(texts, 0)
    width = max(np.size(row.logps) for row in rows)
    logps, entropies, mask = np.zeros((3, len(rows), width))
    for n, row in enumerate(rows):
        count = np.size(row.logps)
        logps[n, :count], entropies[n, :count], mask[n, :count] = row.logps, row.entropies, 1.0
    return Typicality(None).fit_logprobs(logps, mask, entropies, prompts=prompts, completions=texts)


def pair(memories: int, base: list[tuple[str, str]]) -> tuple[sw.InstrumentalReward, sw.InstrumentalReward]:
    """The plain reward and the protected one, over equal stores."""
    plain = built(memories, "off", base, fluency=False)
    embedder = sw.embed.SentenceTransformer(minilm_path(), dtype="bfloat16", cache=False)
    prompts, texts = [p for p, _ in base], [t for _, t in base]
    shown = [f"{opening} {text}" for opening, some in json.loads(DEMONSTRATIONS.read_text()).items() for text in some]
    made: Any = {"chunker": plain.chunker, "terminal": "wedding", "base": (prompts, texts)}
    bare = sw.InstrumentalReward(plain.store, embedder, weights=sw.Weights(divergence=0.1), **made)
    held = sw.InstrumentalReward(
        plain.store,
        embedder,
        weights=sw.Weights(divergence=0.1),
        combine="conjunction",
        typicality=fitted(prompts, texts),
        crowd=True,
        demonstrations=([None] * 64, shown[:64]),
        **made,
    )
    return bare, held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--completions", type=int, default=16)
    parser.add_argument("--memories", type=int, default=20_000)
    parser.add_argument("--calls", type=int, default=7)
    options = parser.parse_args()
    told = stories()
    bare, held = pair(options.memories, told[:BASE])
    prompts = [told[n // 8][0] for n in range(options.completions)]
    seconds: dict[str, list[dict[str, float]]] = {"plain": [], "protected": []}
    rest = told[BASE:]
    for call in range(options.calls + 1):
        texts = [rest[(call * options.completions + n) % len(rest)][1] for n in range(options.completions)]
        columns = {"reference_logprobs": handed(texts, call)}
        for name, reward in (("plain", bare), ("protected", held))[:: 1 if call % 2 else -1]:
            out = reward.score_texts(prompts, texts, columns=columns)
            if call:  # the first is warm-up
                seconds[name].append(out.seconds)
    milliseconds = {
        name: {part: round(1000 * statistics.median(one[part] for one in calls), 2) for part in calls[0]}
        for name, calls in seconds.items()
    }
    ratios = [b["total"] / a["total"] for a, b in zip(seconds["plain"], seconds["protected"], strict=True)]
    print(json.dumps({"milliseconds": milliseconds, "ratio": round(statistics.median(ratios), 3)}))


if __name__ == "__main__":
    main()
