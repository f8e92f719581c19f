"""``sharpwave eval``: what a store's score is worth on labelled episodes that it has not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sharpwave._show import shown
from sharpwave.cli.options import Embedder, Weights, warn


def evaluate(
    store: Annotated[Path, typer.Argument(help="a store: its directory or its snapshot")],
    file: Annotated[Path, typer.Argument(help=".jsonl or .parquet, one episode a row, that the store has not seen")],
    label: Annotated[str, typer.Option(help="the field that says which episodes are good")],
    good: Annotated[
        str | None, typer.Option(help="a number: good is above it; or the texts of good rows, with commas")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="what the probe learns from; default: what the store was built from")
    ] = None,
    functional: Annotated[str, typer.Option(help="coverage, progress, mean or potential")] = "coverage",
    weight: Weights = None,
    embedder: Embedder = None,
    worst: Annotated[int, typer.Option(help="how many of the worst mistakes are shown")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, for programs")] = False,
) -> None:
    """Measure how well a store tells good episodes from bad ones that it has not seen.

    Beside it stand the cosine to the terminals, the nearest demonstration and a linear probe on the same embeddings,
    with 95 % intervals of a bootstrap over episodes. The last lines say whether the store is better than they are.

    Example: sharpwave eval runs/chats held_out.jsonl --label resolved
    """
    from sharpwave.cli import jobs

    found, texts, said = jobs.evaluate(store, file, label, good, train, functional, weight or [], embedder, worst)
    warn(said)
    if as_json:
        print(json.dumps(found.to_dict()))
        return
    if found.mistakes:
        print("worst mistakes")
        for m in found.mistakes:
            side = f"good, below {m.rank:.0%} of the bad" if m.good else f"bad, above {m.rank:.0%} of the good"
            print(f"  row {m.episode}: score {m.score:+.3f}, support {m.support:.2f}; {side}")
            print(shown(f"    {texts[m.episode][:110]}"))
            for paid in m.paid:
                print(shown(f"      {paid.pay:+.3f}  {paid.memory}: {(paid.text or '')[:90]}"))
        print()
    print(shown(str(found)))
