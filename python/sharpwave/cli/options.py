"""What several commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from sharpwave._show import shown

Embedder = Annotated[
    str | None,
    typer.Option(help="path of a sentence-transformers model; default: the store's, or MiniLM"),
]
Weights = Annotated[
    list[str] | None,
    typer.Option("--weight", help="channel=number, repeatable; default: those of the store's labels, or equal weights"),
]

CHUNKERS = "N is the most words of a step: turns is a message a step, sentences:16 a sentence, words:12 a window"
"""What the number after a chunker's name means."""


def warn(messages: Iterable[str]) -> None:
    """Each message on a line of stderr."""
    for message in messages:
        print(shown(f"warning: {message}"), file=sys.stderr)
