"""Tables and the roofline plot, from the files of `benches/results/` alone: into docs/performance.md and the README."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benches.python.bars import FAISS, against_all, bars, best_faiss, median, ratio
from benches.python.cells import BATCHES, KINDS, SIZES, everything
from benches.python.data import DIM

RESULTS = Path("benches/results")
PAGE, README, PLOT = Path("docs/performance.md"), Path("README.md"), Path("docs/img/roofline.svg")
HEADLINE = ((10_000, 32), (100_000, 1), (100_000, 32), (100_000, 256), (1_000_000, 1), (1_000_000, 256))
OTHERS = ("numpy", "torch", "usearch")


def main() -> None:
    """Write them anew, without measuring."""
    write()


def write() -> None:
    """Put the tables between their marks, and draw the plot."""
    results = read(RESULTS)
    for path, tables in ((PAGE, page), (README, readme)):
        path.write_text(filled(path.read_text(), tables(results), path))
    draw(results)


def read(directory: Path) -> dict[str, dict[str, Any]]:
    """The cells by name; what else was measured (a served store) has tables of its own."""
    files = {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}
    return {name: found for name, found in files.items() if "cell" in found}


def filled(text: str, tables: dict[str, list[str]], path: Path) -> str:
    """The text with each table between its marks, in place of what was there."""
    for name, lines in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"{path} has no mark {begin!r}")
        block = "\n".join([begin, "", *lines, "", end])
        text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, block=block: block, text, flags=re.S)
    return text


def page(results: dict[str, Any]) -> dict[str, list[str]]:
    """The blocks of docs/performance.md."""
    return {
        "where": list(where(results)),
        "bars": list(bar_table(results)),
        "exact": list(search_table(results, 1, [(n, b) for n in SIZES for b in BATCHES], "minilm")),
        "data": list(data_table(results)),
        "threads": list(thread_table(results)),
        "approximate": list(approximate_table(results)),
        "verbs": list(verb_table(results)),
        "replay": list(replay_table(results)),
        "opening": list(opening_table(results)),
        "scorer": list(scorer_table(RESULTS)),
        "memory": list(memory_table(results)),
        "missing": list(missing(results)),
    }


def readme(results: dict[str, Any]) -> dict[str, list[str]]:
    """The block of the README."""
    return {
        "performance": [
            "Exact top-16 of sentence embeddings (384 dimensions), queries per second on one thread, medians:",
            "",
            *search_table(results, 1, list(HEADLINE), "minilm", spread=False),
            "",
            *where(results),
        ]
    }


def where(results: dict[str, Any]) -> Iterator[str]:
    """Date, processor, versions."""
    if not results:
        return
    machines = sorted({found["machine"]["cpu"] for found in results.values()})
    dates = sorted({found["date"] for found in results.values()})
    span = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    newest = max(results.values(), key=lambda found: found["date"])
    versions = ", ".join(f"{name} {number}" for name, number in newest["versions"].items())
    yield f"Measured {span} on {' and '.join(machines)} ({newest['machine']['cores']} cores); {versions}."


def bar_table(results: dict[str, Any]) -> Iterator[str]:
    """Each bar, what was measured, and whether it holds."""
    yield "| bar | at least | measured | |"
    yield "|---|---|---|---|"
    for bar in bars(results):
        wanted = f"{bar.wanted:g}{bar.unit}" if bar.least else f"at most {bar.wanted:g}{bar.unit}"
        found = "–" if bar.found is None else f"{bar.found:.3g}{bar.unit}"
        yield f"| {bar.demand} | {wanted} | {found} | {bar.verdict} |"


def search_table(
    results: dict[str, Any], threads: int, cells: list[tuple[int, int]], kind: str, *, spread: bool = True
) -> Iterator[str]:
    """Queries per second by size and batch."""
    heads = ("memories × batch", "sharpwave", "best faiss Flat", *OTHERS, "against faiss", "against the best")
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for n, batch in cells:
        name = f"search-{kind}-{n}-{batch}-{threads}"
        if name not in results:
            continue
        rows, faiss = results[name]["rows"], best_faiss(results, name)
        assert faiss is not None
        cells_ = [_rate(rows, "sharpwave", batch, spread), _rate(rows, faiss[0], batch, spread)]
        cells_ += [_rate(rows, peer, batch, spread=False) for peer in OTHERS]
        cells_ += [f"{times:.1f}×" for times in (ratio(results, name), against_all(results, name)) if times]
        yield f"| {n:,} × {batch} | {' | '.join(cells_)} |"


def data_table(results: dict[str, Any]) -> Iterator[str]:
    """The ratio to the better faiss on each kind of data, one thread and two."""
    columns = [(kind, threads) for kind in KINDS for threads in (1, 2)]
    yield f"| memories × batch | {' | '.join(f'{kind}, {threads}' for kind, threads in columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for n in SIZES:
        for batch in BATCHES:
            found = [ratio(results, f"search-{kind}-{n}-{batch}-{threads}") for kind, threads in columns]
            if any(found):
                cells = " | ".join("–" if x is None else f"{x:.1f}×" for x in found)
                yield f"| {n:,} × {batch} | {cells} |"


def thread_table(results: dict[str, Any]) -> Iterator[str]:
    """One thread and two, by the wall clock."""
    yield "| memories × batch | sharpwave, two over one | faiss (BLAS), two over one |"
    yield "|---|---|---|"
    for name, found in results.items():
        if found["cell"]["kind"] == "threads":
            gains = []
            for peer in ("sharpwave", "faiss-blas"):
                one, two = median(results, name, f"{peer} 1"), median(results, name, f"{peer} 2")
                gains.append("–" if one is None or two is None else f"{one / two:.2f}×")
            yield f"| {found['cell']['n']:,} × {found['cell']['batch']} | {gains[0]} | {gains[1]} |"


def approximate_table(results: dict[str, Any]) -> Iterator[str]:
    """Queries per second at a recall, and what the build takes."""
    yield "| memories | index @ required recall | recall | setting | queries/s | build, memories/s/core |"
    yield "|---|---|---|---|---|---|"
    for found in results.values():
        if found["cell"]["kind"] == "approximate":
            n = found["cell"]["n"]
            for name, row in sorted(found["rows"].items(), key=lambda item: -item[1]["queries_per_second"]):
                yield (
                    f"| {n:,} | {name} | {row['recall']:.3f} | {' × '.join(map(str, row['setting']))} "
                    f"| {row['queries_per_second']:,.0f} | {n / row['build_seconds']:,.0f} |"
                )


def scorer_table(directory: Path) -> Iterator[str]:
    """A store's scorer on each device that it was measured on, beside the store on that machine's CPU."""
    for path in sorted(directory.glob("scorer-*.json")):
        found = json.loads(path.read_text())
        machine, about = found["machine"], found["about"]
        yield (
            f"{machine['device']} and {machine['cores']} cores ({machine['cpu']}), {machine['date']}, "
            f"torch {machine['torch']}; at the peak {machine['memory at the peak'] / 1e9:.1f} GB of the device."
        )
        yield ""
        yield "| what | on the device | with its gradient | the store, one thread | the store, all threads |"
        yield "|---|---|---|---|---|"
        for name, row in found["rows"].items():
            cells = [row.get(of) for of in ("device", "with gradient", "store, one thread", "store, all threads")]
            yield f"| {name} | {' | '.join('–' if cell is None else _milliseconds(cell) for cell in cells)} |"
        agreement = min(row["agreement"] for row in found["rows"].values() if "agreement" in row)
        most = {name.split(", ")[1]: value for name, value in about.items() if name.startswith("largest difference")}
        yield ""
        yield (
            f"The smallest share of the store's neighbours that the device found: {agreement:.4f}. "
            f"The largest difference from the store among 4,096 steps: "
            f"{', '.join(f'{name} {value:.1e}' for name, value in most.items())}."
        )


def _milliseconds(row: dict[str, float]) -> str:
    median, low, high = (f"{1000 * row[of]:.2f}" for of in ("median", "low", "high"))
    return f"{median} ms [{low}, {high}]"


def verb_table(results: dict[str, Any]) -> Iterator[str]:
    """Score, observe and append."""
    yield "| what | process time, median [quartiles] | |"
    yield "|---|---|---|"
    for verb in ("score", "observe"):
        found = results.get(verb)
        for name, row in found["rows"].items() if found else ():
            times = row["median"] / found["rows"]["search"]["median"]
            yield f"| {verb}: {name} | {_milliseconds(row)} | {times:.2f}× the search |"
    for name, row in results.get("append", {"rows": {}})["rows"].items():
        yield f"| append: {name} | {1e6 * row['median']:.2f} µs per memory | {1 / row['median']:,.0f} memories/s |"


def replay_table(results: dict[str, Any]) -> Iterator[str]:
    """Sweeps, sleeps, how long readers wait, and vetoes."""
    yield "| what | time, median [quartiles] | 99 % | longest |"
    yield "|---|---|---|---|"
    for what, factor, unit in (("sweep", 1e9, "ns"), ("sleep", 1e3, "ms"), ("wait", 1e3, "ms"), ("veto", 1, "s")):
        for name, row in results.get(f"replay-{what}", {"rows": {}})["rows"].items():
            median_, low, high = (factor * row[part] for part in ("median", "low", "high"))
            rare = [f"{factor * row[part]:.3g} {unit}" if part in row else "" for part in ("p99", "most")]
            yield f"| {what}: {name} | {median_:.3g} {unit} [{low:.3g}, {high:.3g}] | {' | '.join(rare)} |"


def opening_table(results: dict[str, Any]) -> Iterator[str]:
    """Reading a file, and opening the store in it."""
    yield "| what | time, median [quartiles] |"
    yield "|---|---|"
    for name, row in results.get("open-1000000", {"rows": {}})["rows"].items():
        yield f"| {name} | {row['median']:.2f} s [{row['low']:.2f}, {row['high']:.2f}] |"


def memory_table(results: dict[str, Any]) -> Iterator[str]:
    """Bytes per memory at the peak."""
    yield f"| | bytes per memory at the peak, in addition to the {4 * DIM} of the caller's row |"
    yield "|---|---|"
    for found in results.values():
        if found["cell"]["kind"] == "memory":
            for name, row in found["rows"].items():
                yield f"| {name} | {row['bytes']:,.0f} |"


def missing(results: dict[str, Any]) -> Iterator[str]:
    """What is not in the tables, and why."""
    told = {row: reason for found in results.values() for row, reason in found.get("missing", {}).items()}
    reasons = sorted(told.items())
    single = sorted(
        f"{name} in `{cell}`"
        for cell, found in results.items()
        for name, row in found["rows"].items()
        if row.get("samples") == 1
    )
    for row, reason in reasons:
        yield f"* {row}: {reason}."
    if single:
        yield f"* One sample only, because it exceeds the time for all samples of its cell: {', '.join(single)}."
    left = Counter(f"{cell.kind}, {cell.data}, {cell.n:,}" for cell in everything() if cell.name not in results)
    if left:
        cells = "; ".join(f"{what} ({count})" for what, count in left.items())
        yield f"* Not measured yet; `make bench` continues with them: {cells}."
    if not reasons and not single and not left:
        yield "Nothing is missing."


def draw(results: dict[str, Any]) -> None:
    """The roofline: operations a second over operations a byte of memory read, under the machine's limits."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "sharpwave"
    cells = {
        name: found
        for name, found in results.items()
        if found["cell"]["kind"] == "search" and found["cell"]["data"] == "minilm" and found["cell"]["threads"] == 1
    }
    if not cells:
        return
    peak = {key: max(found["peak"][key] or 0.0 for found in cells.values()) for key in ("int8_1", "f32_1", "read_1")}
    figure, axes = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    across = [0.25 * 2**n for n in range(15)]
    axes.plot(across, [min(peak["read_1"] * x, peak["int8_1"]) for x in across], color="black", label="int8 limit")
    axes.plot(across, [min(peak["read_1"] * x, peak["f32_1"]) for x in across], color="gray", label="float32 limit")
    marks = dict(zip(SIZES, "os^D", strict=True))
    for (n, mark), (peer, colour, width) in (
        (item, peer) for item in marks.items() for peer in (("sharpwave", "tab:blue", 1), ("faiss", "tab:orange", 4))
    ):
        points = []
        for name, found in cells.items():
            if found["cell"]["n"] != n:
                continue
            row = "sharpwave" if peer == "sharpwave" else (best_faiss(results, name) or ("", 0))[0]
            seconds, batch = median(results, name, row), found["cell"]["batch"]
            if seconds:
                points.append((2 * batch / width, 2e-9 * batch * n * DIM / seconds))
        if points:
            points.sort()
            label = f"{'best faiss Flat' if peer == 'faiss' else peer}, {n:,}"
            axes.plot(*zip(*points, strict=True), mark, color=colour, linestyle=":", label=label)
    axes.set(xscale="log", yscale="log", xlabel="operations a byte of memories read", ylabel="10⁹ operations a second")
    axes.legend(fontsize=8)
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, metadata={"Date": None})
    plt.close(figure)


def _rate(rows: dict[str, Any], name: str, batch: int, spread: bool) -> str:
    row = rows.get(name)
    if row is None:
        return "–"
    mode = " (BLAS)" if name == FAISS[1] else ""
    if not spread or row["samples"] == 1:
        return f"{batch / row['median']:,.0f}{mode}"
    return f"{batch / row['median']:,.0f} [{batch / row['high']:,.0f}, {batch / row['low']:,.0f}]{mode}"


if __name__ == "__main__":
    main()
