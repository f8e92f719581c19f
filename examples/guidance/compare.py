"""``python -m examples.guidance.compare``: particles beside best of n, at equal generated tokens.

SmolLM2-135M continues 32 openings that neither the store nor its demonstrations have. The store is that of the study's
third part: base stories and demonstrations of one objective, MiniLM, tuned. Gold is whether a text has a word of the
objective's list (docs/study-gold.md), which no score is made of. Every arm draws the same number of particles:

    best-of-n            strength 0: samples of the model, ordered by the store's pay times T
    particles            strength 2, follow 0.5: the default numbers of a guide
    particles, no follow
    v = 1, v permuted    particles in a store without values, or with those of other memories; ordered by the same

Each pair of arm and seed is a file of `examples/guidance/results`; a pair that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sharpwave as sw
from numpy.typing import NDArray

from examples.study.claim import gold
from examples.study.claim.evaluate import write
from examples.study.loop import rounded
from examples.study.measures import distinct
from examples.study.tables import fill

RESULTS = Path("examples/guidance/results")
DOCUMENT = Path("docs/guidance.md")
OBJECTIVE = "wedding"
TOKENS, TEMPERATURE = 40, 0.8
OPENINGS = (
    "The letter lay on the kitchen table, and",
    "Every evening after supper, my grandmother",
    "The baker's daughter closed the shop and",
    "At the edge of the lake stood",
    "When the rain stopped, Peter",
    "Two sisters lived above the bookshop, and",
    "The captain had not slept for days when",
    "On the morning of her birthday, Clara",
    "A stranger came to the farm and",
    "The music could be heard from far away, and",
    "Thomas had waited for this day",
    "In the old house by the river,",
    "The teacher put down her book and",
    "Far from the city, a young couple",
    "Nobody had seen the gardener since",
    "After the long winter, the people of the valley",
    "The door of the church was open, and",
    "Anna found a ring in the grass and",
    "The neighbours gathered in the square because",
    "For the first time in years, the brothers",
    "The doctor looked out of the window and",
    "Late at night the telephone rang, and",
    "She had packed her suitcase before",
    "The whole family sat around the fire when",
    "Under the apple tree, James",
    "The fisherman pulled in his net and",
    "It was the warmest day in May, and",
    "The soldier came home at last, but",
    "Behind the curtain, the children",
    "A white dress hung in the window of",
    "The mayor stood up and",
    "Once the guests had arrived, Helen",
)

ARMS: dict[str, dict[str, Any]] = {
    "best-of-n": {"strength": 0.0},
    "particles": {},
    "particles, no follow": {"follow": 0.0},
    "v = 1": {"ablation": "ones"},
    "v permuted": {"ablation": "permuted"},
    "particles, strength 0.5": {"strength": 0.5},
    "particles, strength 1": {"strength": 1.0},
    "particles, strength 4": {"strength": 4.0},
}
SEEDS = (0, 1, 2)
BOOTSTRAP = 10_000


class Setting:
    """The models, the store and the gate, loaded once."""

    def __init__(self) -> None:
        from sharpwave.text.packages import load_language_model, smollm2_path

        from examples.study.claim import sampling
        from examples.study.claim.best_of_n import cached
        from examples.study.claim.materials import CHUNKER, Materials

        self.world = sampling.load(temperature=TEMPERATURE)
        self.world.encode = cached("cpu")
        self.model, self.tokenizer = load_language_model(smollm2_path())
        self.model.set_attn_implementation("eager")  # quicker for one query a row
        self.materials = Materials(OBJECTIVE, self.world)
        self.chunker = CHUNKER
        self.template = self.world.template.replace("{opening}", "{prompt}")

    def guide(self, particles: int, ablation: str = "", **options: Any) -> sw.Guide:
        """A guide of the study's store; ``ablation``: with its values knocked out."""
        view = self.materials.view(learned=True, ablation=ablation)
        made = sw.Guide(
            view, self.world.embed, self.chunker, particles=particles, typicality=self.world.typicality, **options
        )
        return made.fit(self.world.base_openings, self.world.base_completions)

    def measured(self, arm: str, seed: int, particles: int) -> dict[str, Any]:
        """One run: every number of every sample, and the best text of each opening."""
        out = self.guide(particles, **ARMS[arm]).generate(
            self.model,
            self.tokenizer,
            OPENINGS,
            seed,
            max_new_tokens=TOKENS,
            temperature=TEMPERATURE,
            template=self.template,
        )
        whole = self.guide(particles, strength=0.0)
        found = [gold.words(OBJECTIVE, gold.stories([o] * len(texts), texts)) > 0
                 for o, texts in zip(OPENINGS, out.texts, strict=True)]  # fmt: skip
        paid = [self._paid(whole, opening, texts) for opening, texts in zip(OPENINGS, out.texts, strict=True)]
        return {
            "arm": arm,
            "seed": seed,
            "particles": particles,
            "digest": out.digest,
            "tokens": out.tokens,
            "gold": [row.astype(int).tolist() for row in found],
            "score": [row.tolist() for row in out.scores],
            "coverage": paid,
            "typicality": [row.tolist() for row in out.typicality],
            "log_likelihood": [row.tolist() for row in out.log_likelihood],
            "weights": [row.tolist() for row in out.weights],
            "kl": out.kl.tolist(),
            "distinct_2": distinct([texts[0] for texts in out.texts], 2),
            "different": [len(set(texts)) for texts in out.texts],
            "seconds": out.seconds,
            "best": [texts[0] for texts in out.texts],
        }

    def _paid(self, guide: sw.Guide, opening: str, texts: list[str]) -> list[float]:
        """What the whole store pays for texts, whatever store had guided them."""
        batch = sw.episodes.chunk_batch(self.chunker, [opening] * len(texts), [t or "." for t in texts])
        scores = guide.store.score(self.world.embed(batch.steps), batch.offsets, context=batch.context)
        return scores.total.astype(float).tolist()


def name_of(arm: str, seed: int, particles: int) -> str:
    """The file of a run."""
    return f"{arm.replace(',', '').replace(' = ', '-').replace(' ', '-')}-n{particles}-seed{seed}.json"


def read(results: Path, particles: int) -> dict[str, list[dict[str, Any]]]:
    """The runs that are there, by arm."""
    found: dict[str, list[dict[str, Any]]] = {}
    for arm in ARMS:
        paths = [results / name_of(arm, seed, particles) for seed in SEEDS]
        some = [json.loads(path.read_text("utf-8")) for path in paths if path.is_file()]
        if some:
            found[arm] = some
    return found


def best(runs: list[dict[str, Any]], measure: str) -> NDArray[np.float64]:
    """(seeds, openings) of the best sample."""
    return np.array([[row[0] for row in run[measure]] for run in runs], np.float64)


def every(runs: list[dict[str, Any]], measure: str) -> NDArray[np.float64]:
    """(seeds, openings) the mean over all samples of an opening."""
    return np.array([[np.mean(row) for row in run[measure]] for run in runs], np.float64)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the mean over openings (of each opening's mean over seeds), by bootstrap."""
    rows = values.mean(0)
    draws = np.random.default_rng(0).integers(0, len(rows), (BOOTSTRAP, len(rows)))
    low, high = np.quantile(rows[draws].mean(1), (0.025, 0.975))
    return float(low), float(high)


def table(found: Mapping[str, list[dict[str, Any]]]) -> str:
    """An arm a row; the difference from best of n is paired by opening and seed."""
    head = ["arm", "seeds", "tokens", "gold, best", "less best of n", "gold, all", "coverage, best", "T, best",
            "log-lik., best", "KL a token", "distinct-2", "different"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    rival = found.get("best-of-n", [])
    for arm, runs in found.items():
        common = min(len(runs), len(rival))
        less = best(runs[:common], "gold") - best(rival[:common], "gold")
        low, high = interval(less) if common else (np.nan, np.nan)
        cells = [
            arm,
            str(len(runs)),
            f"{np.mean([run['tokens'] for run in runs]):.0f}",
            f"{best(runs, 'gold').mean():.3f}",
            "" if arm == "best-of-n" else f"{less.mean():+.3f} ({low:+.3f} … {high:+.3f})",
            f"{every(runs, 'gold').mean():.3f}",
            f"{best(runs, 'coverage').mean():.3f}",
            f"{best(runs, 'typicality').mean():.2f}",
            f"{best(runs, 'log_likelihood').mean():.2f}",
            f"{np.mean([run['kl'] for run in runs]):.3f}",
            f"{np.mean([run['distinct_2'] for run in runs]):.3f}",
            f"{np.mean([run['different'] for run in runs]):.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Make the runs that are missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, nargs="+", default=[8])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--table", action="store_true", help="write the tables from the results alone")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.table:
        import torch

        torch.set_num_threads(1)
        setting = Setting()
        for particles in options.particles:
            for seed in options.seeds:
                for arm in options.arms:
                    path = options.results / name_of(arm, seed, particles)
                    if path.is_file():
                        continue
                    found = setting.measured(arm, seed, particles)
                    write(path, json.dumps(rounded(found, 4), ensure_ascii=False) + "\n")
                    print(path, f"{sum(found['seconds'].values()):.0f} s", flush=True)
    text = DOCUMENT.read_text("utf-8")
    for particles in options.particles:
        found = read(options.results, particles)
        print(table(found))
        text = fill(text, f"guidance-n{particles}", table(found))
    DOCUMENT.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
