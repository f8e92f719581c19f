"""Which blend is best, by a measure of one's own on held-out prompts.

Each blend is written to a scratch directory, measured, and deleted, so that one is on disk at a time. A search with a
record goes on from it: what was measured is not measured again.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from sharpwave._files import write_whole
from sharpwave._lazy import require
from sharpwave.remedies import tensors
from sharpwave.remedies.adapters import blend_adapters, is_adapter
from sharpwave.remedies.blending import Method, blend, check

Metric = Callable[[Path], float]
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Point:
    """One blend and what it was found to be worth; ``seconds`` is writing and measuring together."""

    weight: float
    value: float
    seconds: float


@dataclass(frozen=True)
class Blends:
    """What a search found.

    Attributes:
        base, tuned: what was blended; ``base`` is None for an adapter alone.
        method: how.
        points: what was measured, by weight.
        maximise: whether a larger value is better.
    """

    base: Path | None
    tuned: Path
    method: Method
    points: tuple[Point, ...]
    maximise: bool = True

    @property
    def best(self) -> Point:
        """The best of them; of equals the one nearest the base."""
        return best(self.points, self.maximise)

    def write(self, out: Path | str) -> Path:
        """Write the best blend to the directory ``out``; returns it."""
        return any_blend(self.base, self.tuned, Path(out), self.best.weight, self.method)

    def plot(self, path: str | os.PathLike[str], label: str = "held-out metric") -> Path:
        """Draw the values over the weights, the best one marked (matplotlib); returns ``path``."""
        from sharpwave.viz import ACCENT, INK

        require("matplotlib", "viz").use("Agg")
        pyplot = require("matplotlib.pyplot", "viz")
        figure, axis = pyplot.subplots(figsize=(6, 4), layout="constrained")
        found = self.best
        axis.plot([p.weight for p in self.points], [p.value for p in self.points], "o-", color=INK)
        axis.plot([found.weight], [found.value], "o", color=ACCENT, markersize=9, label=f"best: w = {found.weight:g}")
        axis.set_xlabel("w: 0 is the base, 1 the tuned checkpoint")
        axis.set_ylabel(label)
        axis.set_title(f"{self.method} blend")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=150)
        pyplot.close(figure)
        return target


def search(
    base: Path | str | None,
    tuned: Path | str,
    metric: Metric,
    *,
    weights: Sequence[float] = WEIGHTS,
    refine: int = 0,
    method: Method = "linear",
    maximise: bool = True,
    scratch: Path | str | None = None,
    record: Path | str | None = None,
    progress: Callable[[int, int, Point], None] = lambda *_: None,
) -> Blends:
    """Measure blends of two checkpoints, or of LoRA adapters, at several weights.

    Args:
        base, tuned: as for `blend`; with adapters as for `blend_adapters`, where a ``base`` that is a full model is the
            model without an adapter.
        metric: the directory of a blend to a number. It must look at prompts that were not trained on, and at more
            than the reward that was climbed: by that one, w = 1 is best.
        weights: where to measure first.
        refine: how many more weights to measure, each halfway between the best and that neighbour of it which leaves
            the wider gap.
        maximise: whether a larger number is better.
        scratch: where blends are written before they are deleted; by default the system's directory for such.
        record: a JSON file to which each measurement is added at once, and from which a search goes on. It belongs to
            the method and to the files of the two models; another search's is refused.
        progress: called after each measurement with how many there are, how many there will be, and the last.

    Raises:
        ValueError: no weights, a weight outside [0, 1], a metric that is no finite number, a record of another search,
            or whatever `blend` refuses.
        OSError: a file cannot be read or written.
    """
    # The measure may change the working directory.
    base, tuned = None if base is None else Path(base).absolute(), Path(tuned).absolute()
    record, scratch = (None if path is None else Path(path).absolute() for path in (record, scratch))
    for weight in weights:
        check(weight, method)
    if not weights or refine < 0:
        raise ValueError("weights must not be empty" if not weights else f"refine must not be negative, got {refine}")
    key = {"method": method, "base": _signature(base), "tuned": _signature(tuned)}
    points = _read(record, key)
    total = len({*map(float, weights), *points}) + refine

    def measure(weight: float) -> None:
        if weight not in points:
            began = perf_counter()
            value = _measured(base, tuned, weight, method, metric, scratch)
            points[weight] = Point(weight, value, round(perf_counter() - began, 3))
            _write(record, key, points)
        progress(len(points), max(total, len(points)), points[weight])

    for weight in sorted(map(float, weights)):
        measure(weight)
    first = sorted(set(map(float, weights)))
    for _ in range(refine):
        found = best([points[w] for w in first], maximise).weight
        place = first.index(found)
        around = [w for w in (first[place - 1] if place else None, *first[place + 1 : place + 2]) if w is not None]
        if not around:
            break
        far = max(around, key=lambda w: (abs(w - found), -w))
        middle = (found + far) / 2
        measure(middle)
        first = sorted({*first, middle})
    return Blends(base, tuned, method, tuple(points[w] for w in sorted(points)), maximise)


def best(points: Sequence[Point], maximise: bool) -> Point:
    """The point of the best value; of equals the one of the least weight."""
    return min(points, key=lambda p: (-p.value if maximise else p.value, p.weight))


def any_blend(
    base: Path | None,
    tuned: Path,
    out: Path,
    weight: float,
    method: Method,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Path:
    """`blend` or `blend_adapters`, by what the directories hold.

    Raises:
        ValueError: an adapter as the base of a full model, or no base for one.
    """
    for directory in (base, tuned):
        if directory is not None:
            tensors.there(directory)
    if is_adapter(tuned):
        return blend_adapters(base if base is not None and is_adapter(base) else None, tuned, out, weight, method)
    if base is None:
        raise ValueError(f"{tuned} is no adapter: its blend needs a base")
    if is_adapter(base):
        raise ValueError(f"{base} is an adapter and {tuned} is not: they cannot be blended")
    return blend(base, tuned, out, weight, method, progress)


def _measured(
    base: Path | None, tuned: Path, weight: float, method: Method, metric: Metric, scratch: Path | str | None
) -> float:
    if scratch is not None:
        Path(scratch).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="sharpwave-blend-", dir=scratch))
    try:
        value = float(metric(any_blend(base, tuned, folder / "blend", weight, method)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not math.isfinite(value):
        raise ValueError(f"metric must be a finite number, got {value} at w = {weight:g}")
    return value


def _signature(directory: Path | None) -> list[list[str | int]] | None:
    """Name, size and time of each weight file: what tells one model from another without reading it."""
    if directory is None:
        return None
    tensors.there(directory)
    files = sorted(f for f in directory.iterdir() if f.suffix in tensors.WEIGHT_FILES)
    return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]


def _read(record: Path | str | None, key: Mapping[str, object]) -> dict[float, Point]:
    if record is None or not Path(record).is_file():
        return {}
    try:
        found = json.loads(Path(record).read_text("utf-8"))
        points = [Point(**point) for point in found["points"]]
        kept = found["of"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{record} is no record of a search") from None
    if kept != key:
        raise ValueError(f"{record} is the record of a search with another method, or over other files")
    return {point.weight: point for point in points}


def _write(record: Path | str | None, key: Mapping[str, object], points: dict[float, Point]) -> None:
    if record is None:
        return
    path = Path(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"of": key, "points": [asdict(points[w]) for w in sorted(points)]}, indent=1)
    write_whole(path, text + "\n")
