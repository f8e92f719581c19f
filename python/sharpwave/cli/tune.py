"""``sharpwave tune``: the numbers of a store, chosen by one's own episodes."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from sharpwave.cli.options import CHUNKERS, warn


def tune(
    file: Annotated[Path, typer.Argument(help=".jsonl or .parquet, one episode a row")],
    out: Annotated[
        Path | None, typer.Option(help="where to write the chosen config, for sharpwave build --config")
    ] = None,
    terminal: Annotated[list[str] | None, typer.Option(help="name=a sentence to approach; repeatable")] = None,
    channel: Annotated[list[str] | None, typer.Option(help="a numeric field to learn from; repeatable")] = None,
    embedder: Annotated[str | None, typer.Option(help="path of a sentence-transformers model; default: MiniLM")] = None,
    chunker: Annotated[str, typer.Option(help=f"words:N, sentences:N or turns:N; {CHUNKERS}")] = "sentences:16",
    fluency: Annotated[
        str | None, typer.Option(help="read fluency beside meaning: a causal model's directory, or smollm2")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, for programs")] = False,
) -> None:
    """Choose how finely a store tells steps apart: merge cosine, k, p and gamma, by held-out episodes of a file.

    Stores are built on half of the episodes and measured on the other half: how well the value of a step predicts the
    terminals and channels that were still reached, and where the true next step ranks among all. Without --terminal and
    --channel the next step decides alone.

    Example: sharpwave tune games.jsonl --channel score --out tuned.json
    """
    from sharpwave.cli import jobs
    from sharpwave.tuning import tune as choose

    material = jobs.material(file, terminal or [], channel or [], embedder, chunker, fluency)
    tuned = choose(
        material.steps,
        material.batch.offsets,
        drives=dict(zip(channel or [], material.drives.T, strict=True)) or None,
        terminals=material.keys or None,
    )
    if out is not None:
        out.write_text(json.dumps(tuned.config.to_dict(), indent=1) + "\n", "utf-8")
    warn(material.warnings)
    if as_json:
        table = [{name: _plain(number) for name, number in dataclasses.asdict(t).items()} for t in tuned.table]
        facts = {"config": tuned.config.to_dict(), "chosen": tuned.chosen, "steps": tuned.steps}
        print(json.dumps({**facts, "different": tuned.different, "table": table}))
        return
    print(tuned)
    if out is not None:
        print(out)


def _plain(number: Any) -> Any:
    return None if isinstance(number, float) and math.isnan(number) else number
