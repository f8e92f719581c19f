"""``sharpwave bon``: what the best of n samples by a reward is worth by a gold measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def bon(
    file: Annotated[Path, typer.Argument(help=".jsonl or .parquet, one sample of the base policy a row")],
    reward: Annotated[str, typer.Option(help="the numeric field that selects")] = "reward",
    gold: Annotated[list[str] | None, typer.Option(help="a numeric field that judges; repeatable")] = None,
    prompt: Annotated[str, typer.Option(help="the field by which samples are grouped")] = "prompt",
    n: Annotated[str | None, typer.Option("--n", help="which n, as 1,4,16; default: 1, 2, 4, ... all")] = None,
    plot: Annotated[Path | None, typer.Option(help="a file for the picture, as .svg or .png")] = None,
    seed: Annotated[int, typer.Option(help="of the bootstrap")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, for programs")] = False,
) -> None:
    """Show what the best of n samples is worth, before anything is trained on a reward.

    The file has several samples of each prompt, each with its reward and with gold measures that nobody is paid for. If
    gold does not rise with n, do not train on the reward; if it turns, the reward is exploited from there on.

    Example: sharpwave bon samples.jsonl --reward judge --gold words --gold mood --plot bon.svg
    """
    from sharpwave.remedies import best_of
    from sharpwave.text.rows import read_fields

    names = gold or ["gold"]
    if len(set(names)) < len(names) or reward in names:
        raise ValueError(f"--gold must name other fields than --reward, each once, got {', '.join(names)}")
    columns = read_fields(file, [prompt], [reward, *names])
    sizes = None if n is None else [_size(one) for one in n.split(",")]
    found = best_of(
        columns[prompt], reward=columns[reward], gold={name: columns[name] for name in names}, n=sizes, seed=seed
    )
    if plot is not None:
        found.plot(plot)
    print(json.dumps(found.to_dict()) if as_json else found)
    if plot is not None and not as_json:
        print(plot)


def _size(text: str) -> int:
    if not text.strip().isdigit():
        raise ValueError(f"--n must be whole numbers with commas between them, got {text!r}")
    return int(text)
