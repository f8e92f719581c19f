"""The vectors that are searched: sentences in MiniLM's space, their mixtures, clusters, and noise.

* `minilm`: real sentences, the embeddings (all-MiniLM-L6-v2, 384 dimensions) of sentences in the docstrings of NumPy,
  SciPy, scikit-learn, pandas, Matplotlib and PyTorch, in the versions that `requirements-dev.txt` pins. The first
  10,000 of a fixed shuffle are memories and the next 1,024 queries. A larger set holds these 10,000 and, for the rest,
  mixtures of two of them plus noise: normalise(a·u + (1 − a)·v + 0.3·g), a uniform in [0.5, 1], g a random direction.
* `clustered`: unit rows around 2,000 random centres, at a cosine of about 0.7 to their centre.
* `gaussian`: random directions; in 384 dimensions nothing is near anything, the worst case of a first pass by bounds.

Queries are never among the memories. What takes time to make is kept in `runs/bench/`.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIM = 384
QUERIES = 1024
REAL = 10_000
PACKAGES = {
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "pandas": "pandas",
    "matplotlib": "matplotlib",
    "torch": "torch",
}
KEPT = Path("runs/bench")

Rows = NDArray[np.float32]


def memories(kind: str, n: int) -> Rows:
    """(n, 384) unit rows."""
    if kind == "minilm":
        return _mixed(n)
    rng = np.random.default_rng(1)
    return _clustered(n, rng) if kind == "clustered" else _unit(rng.standard_normal((n, DIM), np.float32))


def queries(kind: str, count: int = QUERIES) -> Rows:
    """(count, 384) unit rows that are none of the memories."""
    rng = np.random.default_rng(2)
    if kind == "minilm":
        real = embedded()[REAL:]
        return real[np.arange(count) % len(real)]
    return _clustered(count, rng) if kind == "clustered" else _unit(rng.standard_normal((count, DIM), np.float32))


def episodes(count: int, length: int = 16, seed: int = 3) -> tuple[Rows, NDArray[np.int64]]:
    """`count` episodes of `length` mixtures: each step resembles the step before it, as sentences of a text do."""
    real, rng = embedded()[:REAL], np.random.default_rng(seed)
    steps = np.empty((count, length, DIM), np.float32)
    steps[:, 0] = real[rng.integers(REAL, size=count)]
    for t in range(1, length):
        steps[:, t] = _mixture(steps[:, t - 1], real[rng.integers(REAL, size=count)], rng, low=0.2, high=0.5)
    return steps.reshape(-1, DIM), np.arange(count + 1) * length


def embedded() -> Rows:
    """(11024, 384) the embeddings of the sentences; made once for these versions of text and encoder."""
    names = ", ".join(f"{name} {version(name)}" for name in [*PACKAGES.values(), "sentence-transformers"])
    path = KEPT / f"sentences-{hashlib.sha256(names.encode()).hexdigest()[:12]}.npy"
    if not path.exists():
        from sharpwave import embed
        from sharpwave.text.packages import minilm_path, offline

        offline()
        found = sorted({sentence for name in PACKAGES for sentence in sentences(name)})
        np.random.default_rng(0).shuffle(found)
        vectors = np.asarray(embed.SentenceTransformer(minilm_path())(found[: REAL + QUERIES]), np.float32)
        KEPT.mkdir(parents=True, exist_ok=True)
        np.save(path, _unit(vectors))
    return np.load(path)


def sentences(package: str) -> Iterator[str]:
    """The sentences of 6 to 30 words in the docstrings of a package; its files are read, not imported."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    for path in sorted(Path(spec.origin).parent.rglob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):  # templates and samples of other encodings
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _sentences(ast.get_docstring(node) or "")


def _sentences(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        for sentence in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())):
            if 6 <= len(sentence.split()) <= 30 and re.fullmatch(r"[A-Z][\w ,;:'()\-`]+[.!?]", sentence):
                yield sentence


def _mixed(n: int) -> Rows:
    real = embedded()[:REAL]
    if n <= REAL:
        return real[:n]
    path = KEPT / f"mixed-{n}.npy"
    if not path.exists():
        rng, rows = np.random.default_rng(1), np.empty((n, DIM), np.float32)
        rows[:REAL] = real
        for first in range(REAL, n, 65_536):
            part = rows[first : first + 65_536]
            u, v = real[rng.integers(REAL, size=len(part))], real[rng.integers(REAL, size=len(part))]
            part[:] = _mixture(u, v, rng, low=0.0, high=0.5)
        np.save(path, rows)
    return np.load(path)


def _mixture(u: Rows, v: Rows, rng: np.random.Generator, *, low: float, high: float) -> Rows:
    """normalise((1 − b)·u + b·v + 0.3·g), b uniform in [low, high]."""
    share = rng.uniform(low, high, (len(u), 1)).astype(np.float32)
    noise = _unit(rng.standard_normal(u.shape, np.float32))
    return _unit((1 - share) * u + share * v + np.float32(0.3) * noise)


def _clustered(n: int, rng: np.random.Generator) -> Rows:
    centres = np.random.default_rng(0).standard_normal((2000, DIM), np.float32)
    return _unit(centres[rng.integers(len(centres), size=n)] + rng.standard_normal((n, DIM), np.float32))


def _unit(rows: Rows) -> Rows:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
