"""The cells of the benchmark: what is measured, in which order, and under which name it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

Kind = Literal["search", "threads", "approximate", "memory", "score", "observe", "append", "replay", "open"]

KINDS = ("minilm", "clustered", "gaussian")
SIZES = (10_000, 100_000, 300_000, 1_000_000)
BATCHES = (1, 32, 256, 1024)


class Cell(NamedTuple):
    """One measurement of several contestants, in one file."""

    kind: Kind
    data: str = "minilm"
    n: int = 100_000
    batch: int = 256
    threads: int = 1

    @property
    def name(self) -> str:
        """The name of its file."""
        match self.kind:
            case "search":
                return f"search-{self.data}-{self.n}-{self.batch}-{self.threads}"
            case "threads":
                return f"threads-{self.data}-{self.n}-{self.batch}"
            case "approximate" | "memory":
                return f"{self.kind}-{self.data}-{self.n}"
            case "open":
                return f"open-{self.n}"
            case "replay":
                return f"replay-{self.data}"
            case _:
                return self.kind


HEADLINE = (
    Cell("search", n=10_000, batch=32),
    Cell("search", n=10_000, batch=256),
    Cell("search", batch=1),
    Cell("search", batch=32),
    Cell("search", batch=256),
    Cell("threads", batch=256),
    Cell("score"),
    Cell("observe"),
    Cell("append"),
    Cell("search", n=1_000_000, batch=1),
    Cell("search", n=1_000_000, batch=256),
)
"""In under three minutes."""


def everything() -> Iterator[Cell]:
    """All cells, the headline first; those of one set of memories together, since they share what is built."""
    yield from HEADLINE
    for what in ("sweep", "sleep", "wait", "veto"):
        yield Cell("replay", data=what, n=1_000_000, batch=1)
    yield Cell("open", n=1_000_000, batch=1, threads=2)
    yield Cell("memory")
    yield Cell("approximate")
    yield Cell("approximate", n=300_000)
    yield Cell("threads", batch=32)
    yield Cell("threads", n=1_000_000)
    for data in KINDS:
        for n in SIZES:
            for threads in (1, 2):
                for batch in BATCHES:
                    cell = Cell("search", data, n, batch, threads)
                    if cell not in HEADLINE:
                        yield cell
