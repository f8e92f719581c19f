"""The benchmark measures what it says: the peers agree, the better mode counts, verdicts follow from the numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import ROOT

from benches.python import approximate, bars, blas, cells, data, exact, report, timing


def rows(n: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, data.DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_exact_peers_agree() -> None:
    memories, queries = rows(500), rows(20, seed=1)
    found = {name: exact.search_of(name, memories)(queries, 1) for name in ("sharpwave", "faiss", "numpy", "torch")}
    by_blas = exact._by_blas(exact.search_of("faiss", memories))(queries, 1)
    for name, ids in {**found, "faiss-blas": by_blas}.items():
        assert ids.shape == (20, exact.K)
        assert exact.agreement(memories, queries, found["sharpwave"], ids) == 1.0, name
    wrong = found["sharpwave"].copy()
    wrong[3, 0] = wrong[3, 1]
    assert exact.agreement(memories, queries, found["sharpwave"], wrong) == 1 - 1 / (20 * exact.K)


def test_forcing_blas_is_undone() -> None:
    import faiss

    before = faiss.cvar.distance_compute_blas_threshold
    with exact.forced_blas():
        assert faiss.cvar.distance_compute_blas_threshold == 1
    assert faiss.cvar.distance_compute_blas_threshold == before > 1


def test_contestants_take_turns() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    prepared: list[str] = []
    samples = timing.interleaved(calls, count=1, budget=0.0, rounds=(3, 3), prepare=prepared.append)
    assert {name: len(some) for name, some in samples.items()} == {"a": 1, "b": 1, "c": 1}  # no time for more
    order.clear()
    samples = timing.interleaved(calls, count=1, budget=10.0, rounds=(3, 3), prepare=prepared.append)
    assert {name: len(some) for name, some in samples.items()} == {"a": 3, "b": 3, "c": 3}
    assert "".join(prepared[-9:]) == "abcbcacab"


def test_what_is_approximate_is_tuned_to_its_recall() -> None:
    exact_ids = np.arange(320).reshape(20, 16)
    asked: list[tuple[int, ...]] = []

    def search(_: Any, setting: tuple[int, ...]) -> np.ndarray:
        """The first number is the recall in percent, the second the cost."""
        asked.append(setting)
        end = time.process_time() + 0.003 * setting[1]
        while time.process_time() < end:
            pass
        found = exact_ids.copy().ravel()
        found[: found.size * (100 - setting[0]) // 100] = -1
        return found.reshape(exact_ids.shape)

    index = approximate.Index(search, [(recall, cost) for cost in (9, 3) for recall in (90, 96, 99, 100)])
    found = approximate.tuned(index, rows(20), exact_ids)
    assert {wanted: setting[1] for wanted, (setting, _) in found.items()} == {0.95: 3, 0.99: 3}
    assert all(recall >= wanted for wanted, (_, recall) in found.items())
    assert (100, 9) not in asked  # 99 of that series was enough
    assert approximate.tuned(approximate.Index(search, [(80, 1)]), rows(20), exact_ids) == {}


def cell(**seconds: float) -> dict[str, Any]:
    return {"rows": {name.replace("_", "-"): {"median": taken} for name, taken in seconds.items()}}


def test_verdicts_follow_from_the_numbers() -> None:
    name = "search-minilm-100000-256-1"
    results = {
        name: cell(sharpwave=1.0, faiss=9.0, faiss_blas=3.0, numpy=2.0)
        | {"cell": {"batch": 256, "n": 100_000}, "peak": {"int8_1": 2 * 256 * 100_000 * data.DIM / 1e9 / 0.75}},
        "score": cell(search=2.0, score=3.0),
        "append": cell(insert=4e-6),
    }
    assert bars.best_faiss(results, name) == ("faiss-blas", 3.0)
    assert bars.ratio(results, name) == 3.0
    assert bars.against_all(results, name) == 2.0
    found = {bar.demand: bar for bar in bars.bars(results)}
    verdicts = {demand: bar.verdict for demand, bar in found.items() if bar.found is not None}
    assert verdicts == {
        "exact search, 100,000 memories, batches of 256, against the better faiss Flat": "missed by 14%",
        "share of the int8 peak, 100,000 × 256": "holds",
        "score 4,096 steps at 100,000 memories, over the search alone": "missed by 20%",
        "append without gating, thousand memories per second": "holds",
    }
    assert {bar.verdict for bar in found.values() if bar.found is None} == {"not measured"}


def test_the_tables_are_those_of_the_results() -> None:
    """What docs/performance.md and the README show is what the files say: `make bench` writes both."""
    results = report.read(ROOT / "benches" / "results")
    assert any(name.startswith("search-") for name in results)
    for path, tables in ((ROOT / "docs" / "performance.md", report.page), (ROOT / "README.md", report.readme)):
        assert report.filled(path.read_text(), tables(results), path) == path.read_text()


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="has no mark '<!-- bars -->'"):
        report.filled("nothing", {"bars": []}, Path("page.md"))


def test_the_headline_is_part_of_everything_and_names_are_unique() -> None:
    names = [cell.name for cell in cells.everything()]
    assert len(set(names)) == len(names)
    assert {cell.name for cell in cells.HEADLINE} <= set(names)


def test_the_environment_names_the_kernels_of_this_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "512")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    found = {name: value for name, value in blas.best().items() if name.startswith("OPENBLAS")}
    assert found in ({}, {"OPENBLAS_CORETYPE": "SkylakeX"}, {"OPENBLAS_CORETYPE": "Haswell"})
    code = "import numpy, json; from benches.python import blas; print(json.dumps(blas.kernels()))"
    done = subprocess.run([sys.executable, "-c", code], env=blas.best(), capture_output=True, text=True, check=True)
    kernels = json.loads(done.stdout)
    assert kernels
    if found:
        assert {info["architecture"] for info in kernels} <= {found["OPENBLAS_CORETYPE"], "Haswell"}
    assert "OPENBLAS_L2_SIZE" in os.environ


def test_sentences_are_sentences() -> None:
    found = list(data._sentences("Return the mean. too short.\n\nA sentence that is long enough to be kept here."))
    assert found == ["A sentence that is long enough to be kept here."]
    steps = data._mixture(rows(5), rows(5, 1), np.random.default_rng(0), low=0.0, high=0.5)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 1.0, atol=1e-6)
