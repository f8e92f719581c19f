"""``python -m examples.study.claim.best_of_n``: what each reward selects, before anything is trained on it.

Of n completions of the base the one that a reward likes best is kept, for n from 1 to 1,024, and measured by gold that
no reward is made of (docs/study-gold.md). A reward whose gold does not rise with n is not trained on. One whose gold
rises and then turns is exploited, and the n at which it turns says at what pressure.

    python -m examples.study.claim.best_of_n                      # all objectives, from where it was stopped
    python -m examples.study.claim.best_of_n --objective wedding --rewards cosine-store probe
    python -m examples.study.claim.best_of_n --table              # tables and plot from study/results alone

8,192 completions are sampled once (1,024 of each of the study's eight openings, `runs/study/claim/pool`) and measured
in blocks of 512 that are kept, so that the command can be stopped at any time; ``--blocks`` takes fewer, and results of
rewards that are not named stay. The best is taken among completions of one opening, with intervals over openings, and
among those of all openings together; that interval leaves out one opening at a time (jackknife). All are means over
every subset of n, not of some that were drawn.

Pay is what one completion earns alone: the crowd, which depends on the batch, is left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sharpwave.remedies import best_of
from sharpwave.text import TypicalityReport

from examples.study.claim import arms, gold, pool
from examples.study.claim.materials import Materials, Texts
from examples.study.gold_texts import objectives, read_demonstrations
from examples.study.loop import rounded
from examples.study.tables import fill

Floats = NDArray[np.float64]

WORK = Path("runs/study/claim/scores")
RESULTS = Path("study/results/best-of-n")
DOCUMENT = Path("docs/study-gold.md")
PLOT = Path("docs/img/study-best-of-n.svg")

BLOCKS = 16
"""Of 512 completions: 8,192."""

REPORTED = ("z", "entropy", "distinct", "gate", "excess", "tokens")

WITHIN = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TOGETHER = (1, 4, 16, 64, 256, 1024, 4096)
SHOWN = (1, 4, 16, 64, 256, 512, 1024)
RISES = 0.1
"""A reward's gold rises if at some n it lies at least this far above n = 1, on the scale from base to prompted base,
and by more than chance there: a bootstrap of the difference in pairs, over openings, widened for all n."""


def kept(path: Path, make: Callable[[], Floats]) -> Floats:
    """What ``make`` makes, from ``path`` where it is there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".part.npy")
        np.save(scratch, make())
        scratch.replace(path)
        print(path, flush=True)
    return np.load(path)


def cached(device: str) -> Any:
    """MiniLM with its vectors kept on disk."""
    from sharpwave.embed import SentenceTransformer
    from sharpwave.text.cache import EmbeddingCache
    from sharpwave.text.packages import minilm_path

    WORK.mkdir(parents=True, exist_ok=True)
    return SentenceTransformer(minilm_path(), device=device, cache=EmbeddingCache(WORK / "embeddings.sqlite"))


def by_block(name: str, texts: Texts, work: Path, measure: Callable[[Texts], Floats]) -> Floats:
    """(n,) a slow measure of all texts, a block at a time."""
    size = pool.COPIES * len(set(texts.openings))
    parts = []
    for block, first in enumerate(range(0, len(texts.openings), size)):
        some = Texts(texts.openings[first : first + size], texts.completions[first : first + size])
        parts.append(kept(work / f"{name}-{block:03d}.npy", lambda some=some: measure(some)))
    return np.concatenate(parts)


def as_columns(report: TypicalityReport) -> Floats:
    """(n, 6) what a report of typicality says of each completion, in the order of `REPORTED`."""
    return np.stack([np.asarray(getattr(report, name), np.float64) for name in REPORTED], axis=1)


def as_report(columns: Floats) -> TypicalityReport:
    """The inverse of `as_columns`; what a report says of all completions together is not kept."""
    return TypicalityReport(**dict(zip(REPORTED, columns.T, strict=True)), ks=np.nan, ks_p=np.nan)


# From rewards and gold to curves


def curves(openings: Sequence[str], reward: Floats, measured: Mapping[str, Floats]) -> dict[str, Any]:
    """Best of n within an opening, and of all openings together."""
    fewest = min(openings.count(o) for o in set(openings))
    within = best_of(openings, reward=reward, gold=dict(measured), n=[n for n in WITHIN if n <= fewest])
    sizes = [n for n in TOGETHER if n <= len(openings) - fewest]
    return {"within": within.to_dict(), "together": together(openings, reward, measured, sizes)}


def together(
    openings: Sequence[str], reward: Floats, measured: Mapping[str, Floats], sizes: Sequence[int]
) -> dict[str, Any]:
    """Best of n of all openings together: means, and their standard errors by leaving out one opening at a time."""

    def means(rows: NDArray[np.int64]) -> dict[str, Floats]:
        found = best_of([""] * len(rows), reward=reward[rows], gold={k: v[rows] for k, v in measured.items()}, n=sizes)
        return {name: curve.mean for name, curve in found.gold.items()}

    place = np.array(openings)
    names = list(dict.fromkeys(openings))
    whole = means(np.arange(len(place)))
    without = [means(np.flatnonzero(place != name)) for name in names]
    gold: dict[str, Any] = {}
    for measure, mean in whole.items():
        left = np.stack([one[measure] for one in without])
        error = np.sqrt((len(names) - 1) / len(names) * ((left - left.mean(0)) ** 2).sum(0))
        gold[measure] = {"mean": mean.tolist(), "error": error.tolist()}
    return {"n": list(sizes), "gold": gold}


def ends(objective: str, base: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
    """By gold measure, the mean of the base (0 of the scale) and of the base asked for the objective (1)."""
    shown = Texts.of(read_demonstrations(objective))
    asked = gold.measure(objective, shown.openings, shown.completions, [name for name in gold.SLOW if name in base])
    return {name: {"base": float(base[name].mean()), "asked": float(asked[name].mean())} for name in base}


def measure(
    objective: str, rewards: Sequence[str], world: Any, slow: Sequence[str], work: Path, results: Path, blocks: int
) -> dict[str, Any]:
    """The curves of some rewards for one objective, by gold measures of which ``slow`` are slow. They take their place
    among those of the other rewards in ``results``; ends are of the largest pool."""
    texts = Texts(*pool.read(blocks))
    materials = Materials(objective, world)
    specs = {name: arms.specs()[name] for name in rewards}
    judges = {"judge": materials.judge, "trained judge": materials.trained_judge}
    wanted = {spec.outcome for spec in specs.values()} & set(judges)
    known: dict[str, Any] = {kind: by_block(kind.replace(" ", "-"), texts, work, judges[kind]) for kind in wanted}
    if any(spec.protected for spec in specs.values()):
        columns = by_block("typicality", texts, work, lambda some: as_columns(materials.typical(some)))
        known["typicality"] = as_report(columns)
    materials.keep(texts, **known)
    measured = gold.measure(objective, texts.openings, texts.completions, slow)
    found = read(results).get(objective, {"objective": objective, "completions": 0, "ends": {}, "rewards": {}})
    if len(texts.openings) >= found["completions"]:
        found |= {"completions": len(texts.openings), "ends": found["ends"] | ends(objective, measured)}
    for name in rewards:
        arm = arms.build(name, objective, world, materials)
        found["rewards"][name] = curves(texts.openings, arm.of(texts, crowd=False).reward, measured)
        print(objective, name, flush=True)
    found["rewards"] = {name: found["rewards"][name] for name in arms.specs() if name in found["rewards"]}
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{objective}.json").write_text(json.dumps(rounded(found, 5), indent=1) + "\n", "utf-8")
    return found


# From curves to tables, sentences and a plot


def scaled(found: Mapping[str, Any], measure: str, values: Any) -> Floats:
    """Gold with the base at 0 and the base asked for the objective at 1."""
    low, high = found["ends"][measure]["base"], found["ends"][measure]["asked"]
    return (np.asarray(values, np.float64) - low) / (high - low)


def rises(found: Mapping[str, Any], name: str, measure: str = "objective") -> bool:
    """Whether gold lies above n = 1 at some n by `RISES` and by more than chance."""
    curve = found["rewards"][name]["within"]["gold"][measure]
    unit = found["ends"][measure]["asked"] - found["ends"][measure]["base"]
    gain, low = np.array(curve["gain"]) / unit, np.array(curve["gain_low"], np.float64) / unit
    return bool(((gain >= RISES) & (low > 0.0)).any())


def stays(found: Mapping[str, Any], name: str, measure: str = "objective") -> bool:
    """Whether gold at the largest n still lies above n = 1 by more than chance."""
    return bool(found["rewards"][name]["within"]["gold"][measure]["kept"][1] > 0.0)


def sentence(found: Mapping[str, Any], name: str, title: str, measure: str = "objective") -> str:
    """What a reward's curve says."""
    one = found["rewards"][name]
    within = one["within"]
    curve = within["gold"][measure]
    mean = scaled(found, measure, curve["mean"])
    best, largest = int(np.argmax(mean)), within["n"][-1]
    if not rises(found, name, measure):
        return f"**{title}**: gold does not rise ({mean[0]:.2f} at n = 1, {mean[-1]:.2f} at {largest}): not trained on."
    said = f"**{title}**: gold rises from {mean[0]:.2f} to {mean[best]:.2f} at n = {within['n'][best]}"
    if curve["turns"]:
        left = "still above n = 1" if stays(found, name, measure) else "no longer above n = 1 by more than chance"
        return f"{said} and turns there: {mean[-1]:.2f} at {largest}, {left}."
    if best == len(mean) - 1:
        beyond = one["together"]
        last = float(scaled(found, measure, beyond["gold"][measure]["mean"])[-1])
        error = beyond["gold"][measure]["error"][-1] / (
            found["ends"][measure]["asked"] - found["ends"][measure]["base"]
        )
        return f"{said}, the largest within an opening; {last:.2f} ± {error:.2f} at {beyond['n'][-1]} of all together."
    return f"{said} and does not turn by more than chance ({mean[-1]:.2f} at {largest})."


def table(found: Mapping[str, Any], specs: Mapping[str, arms.Spec], measure: str = "objective") -> str:
    """A reward a row: gold on the scale, by n."""
    every = found["rewards"].values()
    sizes = [n for n in SHOWN if any(n in one["within"]["n"] for one in every)]
    last = min(one["together"]["n"][-1] for one in every)
    head = ["reward", *(f"n = {n}" for n in sizes), f"{last}, all openings", "turns at", "rises"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, one in found["rewards"].items():
        curve = one["within"]["gold"][measure]
        mean, low, high = (scaled(found, measure, curve[k]) for k in ("mean", "low", "high"))
        at = dict(zip(one["within"]["n"], mean, strict=True))
        cells = [f"{at[n]:.2f}" if n in at else "" for n in sizes]
        cells[sum(n in at for n in sizes) - 1] += f" ({low[-1]:.2f} … {high[-1]:.2f})"
        whole = one["together"]
        beyond = scaled(found, measure, whole["gold"][measure]["mean"])[whole["n"].index(last)]
        turns = str(curve["best"]) if curve["turns"] else "–"
        rising = "yes" if rises(found, name, measure) else "no"
        lines.append(f"| {' | '.join([specs[name].title, *cells, f'{beyond:.2f}', turns, rising])} |")
    return "\n".join(lines)


def others(found: Mapping[str, Any], specs: Mapping[str, arms.Spec]) -> str:
    """The other gold measures at the largest n within an opening, in their own unit."""
    names = [name for name in found["ends"] if name != "objective"]
    lines = [f"| reward | {' | '.join(names)} |", "|" + "---|" * (len(names) + 1)]
    for end, title in (("base", "*base*"), ("asked", "*base, asked*")):
        cells = [f"{found['ends'][measure][end]:.3f}" for measure in names]
        lines.append(f"| {' | '.join([title, *cells])} |")
    for name, one in found["rewards"].items():
        if not set(names) <= set(one["within"]["gold"]):
            continue  # measured by words alone
        cells = []
        for measure in names:
            curve = one["within"]["gold"][measure]
            cells.append(f"{curve['mean'][-1]:.3f} ({curve['low'][-1]:.3f} … {curve['high'][-1]:.3f})")
        lines.append(f"| {' | '.join([specs[name].title, *cells])} |")
    return "\n".join(lines)


def read(results: Path) -> dict[str, dict[str, Any]]:
    """What was found, by objective."""
    kept = {name: results / f"{name}.json" for name in objectives()}
    return {name: json.loads(path.read_text("utf-8")) for name, path in kept.items() if path.is_file()}


def write(results: Path, document: Path) -> None:
    """Tables and sentences into the document; slow measures are of fewer completions, in ``slow`` among the results."""
    specs = arms.specs()
    text = document.read_text("utf-8")
    for objective, found in read(results).items():
        text = fill(text, f"best-of-n-{objective}", table(found, specs))
        said = [f"* {sentence(found, name, specs[name].title)}" for name in found["rewards"]]
        text = fill(text, f"best-of-n-{objective}-said", "\n".join(said))
        slow = read(results / "slow").get(objective, found)
        if len(slow["ends"]) > 1:
            text = fill(text, f"best-of-n-{objective}-others", others(slow, specs))
    document.write_text(text, "utf-8")


DRAWN = (
    "judge",
    "trained",
    "cosine",
    "nearest",
    "probe",
    "store-base",
    "store",
    "store-ones",
    "store-permuted",
    "cosine-store",
    "probe-store",
)


def draw(results: Path, path: Path) -> None:
    """Gold over n for the rewards that differ most."""
    import matplotlib as mpl

    from examples.study.plots import save

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    specs, every = arms.specs(), read(results)
    figure, axes = plt.subplots(
        1, len(every), figsize=(4.5 * len(every), 4), constrained_layout=True, sharey=True, squeeze=False
    )
    colours = plt.get_cmap("tab20")
    for axis, (objective, found) in zip(axes[0], every.items(), strict=True):
        for place, name in enumerate(n for n in DRAWN if n in found["rewards"]):
            within = found["rewards"][name]["within"]
            curve = within["gold"]["objective"]
            axis.plot(
                within["n"], scaled(found, "objective", curve["mean"]), color=colours(place), label=specs[name].title
            )
        axis.axhline(1.0, color="black", lw=0.8, ls=":")
        axis.set_xscale("log", base=2)
        axis.set_title(objective, fontsize=9)
        axis.set_xlabel("n, within an opening", fontsize=8)
    axes[0, 0].set_ylabel("gold: base 0, base asked for it 1", fontsize=8)
    axes[0, 0].legend(fontsize=6)
    save(figure, path)


def main() -> None:
    """Sample, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objective", nargs="+", choices=list(objectives()), default=list(objectives()))
    parser.add_argument(
        "--rewards", nargs="+", metavar="NAME", help="arms of study/claim.toml; without KL, by default all"
    )
    parser.add_argument(
        "--slow",
        nargs="*",
        choices=gold.SLOW,
        default=["not broken"],
        help="gold measures for which Gemma reads every completion, half a second each time: 'not broken' once for all "
        "objectives, 'likelier' once more for each",
    )
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="of 512 completions; n goes up to 64 for each")
    parser.add_argument("--table", action="store_true", help="write tables and plot from the results alone")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.table:
        import torch

        from examples.study.claim import sampling

        if options.device == "cpu":
            torch.set_num_threads(1)
        world = sampling.load(device=options.device)
        world.encode = cached(options.device)
        pool.sample(world.policy, options.blocks)
        declared = arms.specs()
        rewards = options.rewards or [name for name, spec in declared.items() if not spec.kl]
        for objective in options.objective:
            measure(objective, rewards, world, options.slow, WORK, options.results, options.blocks)
    write(options.results, DOCUMENT)
    draw(options.results, PLOT)


if __name__ == "__main__":
    main()
