"""``python -m examples.textworld.report``: tables and plot of docs/textworld.md, from the results alone.

A mean is over games, each the mean of its draws; its interval is 95 % of the bootstrap over games.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.study.tables import fill, table
from examples.textworld import cooking, keys, study
from examples.textworld.game import WALK
from examples.textworld.learners import ABOUT

PAGE = Path("docs/textworld.md")
PLOT = Path("docs/img/textworld.svg")
NUMBERS = tuple(sorted(study.FIRST + study.THEN))
HEAD = ("store", "mfec", "monte_carlo", "q_learning", "probe", "none")
COLOURS = dict(zip(HEAD, ("#0066aa", "#cc7a00", "#117733", "#aa3377", "#888888", "#bbbbbb"), strict=True))

Cells = list[dict[str, Any]]
Measure = Callable[[int | None], float]
Floats = np.ndarray


def solved(steps: int | None) -> float:
    return float(steps is not None)


def length(steps: int | None) -> float:
    """The steps of the way; a loss counts as the limit."""
    return float(WALK if steps is None else steps)


def by_game(values: Iterable[tuple[str, float]]) -> Floats:
    """(G,) the mean of each game."""
    games: dict[str, list[float]] = defaultdict(list)
    for game, value in values:
        games[game].append(value)
    return np.array([np.mean(games[game]) for game in sorted(games)])


def of(cells: Cells, learner: str, measure: Measure) -> Floats:
    return by_game((cell["game"], measure(cell["walks"][learner])) for cell in cells)


def interval(values: Floats, draws: int = 10_000) -> tuple[float, float]:
    """95 % of the bootstrap of the mean over games."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def ranged(values: Floats, digits: int = 2) -> str:
    """The mean and its interval."""
    if not len(values):
        return "–"
    low, high = interval(values)
    return f"{values.mean():.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def chosen(cells: Cells, number: int, games: Sequence[Any] = study.GAMES) -> Cells:
    names = {game.name for game in games}
    return [cell for cell in cells if cell["episodes"] == number and cell["game"] in names]


def ran(cells: Cells) -> str:
    """What was run, of what was planned."""
    rows = []
    for number in NUMBERS:
        found = chosen(cells, number)
        wins = np.array([cell["random_wins"] / number for cell in found])
        rows.append(
            [
                str(number),
                f"{len(found)} of {len(study.GAMES) * len(study.DRAWS)}",
                str(len({cell["game"] for cell in found})),
                f"{wins.mean():.0%} ({wins.min():.0%} to {wins.max():.0%})" if found else "–",
                f"{np.median([cell['different'] for cell in found]):.0f}" if found else "–",
                f"{np.median([cell['memories_broad'] for cell in found]):.0f}" if found else "–",
            ]
        )
    head = ("episodes", "cells run", "games", "random player wins", "memories, median", "not tuned")
    return table(head, rows)


def main_table(cells: Cells, measure: Measure, digits: int) -> str:
    numbers = [number for number in NUMBERS if chosen(cells, number)]
    rows = [
        [f"{about} (`{name}`)", *(ranged(of(chosen(cells, number), name, measure), digits) for number in numbers)]
        for name, about in ABOUT.items()
    ]
    return table(["", *(f"{number} episodes" for number in numbers)], rows)


def differences(cells: Cells) -> str:
    """The store less each other one, on the same games and draws."""
    rows = []
    numbers = [number for number in study.FIRST if chosen(cells, number)]
    for name in [name for name in ABOUT if name != "store"]:
        row = [f"`{name}`"]
        for number in numbers:
            found = chosen(cells, number)
            for measure, digits in ((solved, 2), (length, 1)):
                row.append(ranged(of(found, "store", measure) - of(found, name, measure), digits))
        rows.append(row)
    head = [f"{what}, {number} episodes" for number in numbers for what in ("solved", "steps")]
    return table(["store less …", *head], rows)


def each(cells: Cells, games: Sequence[Any], number: int) -> str:
    """Every game: solved of the draws, and the median way of those solved."""
    rows = []
    for game in games:
        found = chosen(cells, number, [game])
        if not found:
            continue
        row = [game.name, f"{np.mean([cell['random_wins'] for cell in found]) / number:.0%}"]
        for name in HEAD:
            ways = [cell["walks"][name] for cell in found if cell["walks"][name] is not None]
            row.append(f"{len(ways)}/{len(found)} ({np.median(ways):g})" if ways else f"0/{len(found)}")
        rows.append(row)
    return table(["game", "random", *(f"`{name}`" for name in HEAD)], rows)


def varied(cells: Cells, kind: str, learners: Sequence[str] | None = None) -> str:
    """Keys or stores on the three games: solved of the draws, mean steps with a loss as the limit."""
    found: dict[tuple[str, str, int], list[tuple[str, int | None, int]]] = defaultdict(list)
    for cell in cells:
        if cell["kind"] == kind:
            for one in cell["found"]:
                place = found[cell["variant"], one["learner"], one["episodes"]]
                place.append((cell["game"], one["steps"], one["memories"]))
    names = [game.name for game in study.TRIED]
    rows = []
    order = list(keys.KEYS)
    for variant, learner, number in sorted(
        found, key=lambda one: (one[2], order.index(one[0]) if kind == "key" else 0)
    ):
        if learners is not None and learner not in learners:
            continue
        values = found[variant, learner, number]
        row = [str(number), variant if kind == "key" else learner, *([f"`{learner}`"] if kind == "key" else [])]
        row.append(f"{np.median([memories for _, _, memories in values]):.0f}")
        for name in names:
            ways = [steps for game, steps, _ in values if game == name]
            met = sum(way is not None for way in ways)
            row.append(f"{met}/{len(ways)} ({np.mean([length(way) for way in ways]):.0f})" if ways else "–")
        rows.append(row)
    about = ["key", "learner"] if kind == "key" else ["store"]
    return table(["episodes", *about, "memories", *(f"game {n + 1}" for n in range(len(names)))], rows)


def cooked(cells: Cells) -> str:
    rows = []
    for rooms in cooking.ROOMS:
        for key in cooking.PARTS:
            found = [cell for cell in cells if (cell["rooms"], cell["key"]) == (rooms, key)]
            for name in found[0]["walks"] if found else ():
                walks = [cell["walks"][name] for cell in found]
                won = sum(walk["steps"] is not None for walk in walks)
                score = ranged(np.array([walk["score"] for walk in walks]))
                rows.append([str(rooms), key, name, str(len(walks)), str(won), score])
    return table(["rooms", "key", "player", "games", "won", "score, share of the highest"], rows)


def parts(results: Cells, varied_keys: Cells, cooking_cells: Cells) -> dict[str, str]:
    return {
        "ran": ran(results),
        "solved": main_table(results, solved, 2),
        "steps": main_table(results, length, 1),
        "differences": differences(results),
        "games-25": each(results, study.GAMES, 25),
        "games-100": each(results, study.GAMES, 100),
        "tried": each(results, study.TRIED, 100),
        "keys": varied(varied_keys, "key", ("store", "mfec")),
        "stores": varied(varied_keys, "store"),
        "cooking": cooked(cooking_cells),
    }


def plot(cells: Cells, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "textworld"
    import matplotlib.pyplot as plt

    numbers = [number for number in NUMBERS if chosen(cells, number)]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for name, colour in COLOURS.items():
        for axis, measure in zip(axes, (solved, length), strict=True):
            values = [of(chosen(cells, number), name, measure) for number in numbers]
            low, high = np.array([interval(one) for one in values]).T
            axis.plot(numbers, [one.mean() for one in values], "o-", markersize=3, color=colour, label=name)
            axis.fill_between(numbers, low, high, color=colour, alpha=0.15, linewidth=0)
    for axis, what in zip(axes, ("games solved", f"steps, a loss as {WALK}"), strict=True):
        axis.set(xscale="log", xlabel="episodes of the random player", ylabel=what)
        axis.set_xticks(numbers, [str(number) for number in numbers], minor=False)
        axis.minorticks_off()
    axes[0].set_ylim(0, 1.02)
    axes[0].legend(frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def write(page: Path) -> str:
    """The page with its tables, from the results."""
    text = page.read_text("utf-8")
    found = parts(study.read(), study.read(keys.RESULTS), study.read(cooking.RESULTS))
    for name, content in found.items():
        text = fill(text, name, content)
    return text


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(write(PAGE), "utf-8")
    plot(study.read(), PLOT)


if __name__ == "__main__":
    main()
