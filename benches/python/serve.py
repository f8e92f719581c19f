"""A served store under load: 64 clients at once, each with episodes of 32 steps, against about 100,000 memories.

    python -m benches.python.serve [--clients 64] [--steps 32] [--rounds 12] [--samples 3]

The store is that of `verbs.lived`, in a directory. What it does in one process with one call for all clients' steps is
measured first; then `sharpwave serve` serves it, and the clients, threads of another process, score through it, each
again as soon as it is answered. Every answer is compared with what the store says in one process, to the bit. Then the
same with observations, beside the same observations one after the other in one process. Prints a table and writes
`benches/results/serve.json`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import sharpwave as sw

from benches.python import data, timing, verbs

RESULTS = Path("benches/results/serve.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=12, help="requests of each client")
    parser.add_argument("--samples", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), options.clients, options.steps, options.rounds, options.samples)
    for name, row in found["rows"].items():
        cells = "  ".join(f"{key} {value:,.4g}" for key, value in row.items())
        print(f"{name:<28} {cells}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": timing.machine(), **found}, indent=1) + "\n")


def measured(folder: Path, clients: int, steps: int, rounds: int, samples: int) -> dict[str, Any]:
    """Rates in steps a second and latencies in milliseconds, medians of `samples`."""
    path = folder / "store"
    path.mkdir()
    verbs.lived()
    shutil.copy(data.KEPT / f"lived-{sw.__version__}.safetensors", path / "snapshot.safetensors")
    asked, offsets = data.episodes(clients, steps, seed=9)
    expected, here, alone, written = in_one_process(path, asked, offsets, rounds)
    total = clients * steps
    rows: dict[str, dict[str, float]] = {
        "score, one process, at once": {"steps/s": total / statistics.median(here)},
        "score, one process, singly": {"steps/s": steps / statistics.median(alone)},
        "observe, one process, singly": {"steps/s": total / sum(written)},
    }
    command = [sys.executable, "-m", "sharpwave.cli", "serve", str(path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        context = multiprocessing.get_context("spawn")
        for verb in ("score", "observe"):
            runs: list[dict[str, Any]] = []
            for _ in range(samples if verb == "score" else 1):
                answers = context.Queue()
                work = context.Process(
                    target=load, args=(url, verb, asked, steps, rounds if verb == "score" else 2, answers)
                )
                work.start()
                runs.append(answers.get(timeout=600))
                work.join()
            if verb == "score":
                for run in runs:
                    assert all(np.array_equal(totals, expected) for totals in run["totals"]), "an answer differs"
            rows[f"{verb}, served"] = {
                "steps/s": statistics.median(run["steps"] / run["seconds"] for run in runs),
                **{
                    f"p{p} ms": statistics.median(float(np.percentile(run["latencies"], p)) for run in runs)
                    for p in (50, 99)
                },
                "answers": sum(len(run["latencies"]) for run in runs),
                "lost": sum(run["lost"] for run in runs),
            }
        memories = len(sw.serve.Client(url))
        server.terminate()
        server.wait()
    whole = rows["score, one process, at once"]["steps/s"]
    rows["score, served"]["of one process"] = rows["score, served"]["steps/s"] / whole
    rows["observe, served"]["of one process"] = (
        rows["observe, served"]["steps/s"] / rows["observe, one process, singly"]["steps/s"]
    )
    return {"clients": clients, "steps": steps, "memories": memories, "rows": rows}


def in_one_process(
    path: Path, asked: data.Rows, offsets: Any, rounds: int
) -> tuple[data.Rows, list[float], list[float], list[float]]:
    """What every episode scores, and the seconds of scores of all at once, of scores of one, and of observing each."""
    store = sw.ValueStore.load(path)
    steps = int(offsets[1])
    here = [_timed(lambda: store.score(asked, offsets)) for _ in range(rounds)]
    alone = [_timed(lambda: store.score(asked[:steps])) for _ in range(rounds)]
    expected = store.score(asked, offsets).total
    parts = [asked[first : first + steps] for first in range(0, len(asked), steps)]
    return expected, here, alone, [_timed(lambda part=part: store.observe(part)) for part in parts]


def load(url: str, verb: str, asked: data.Rows, steps: int, rounds: int, answers: Any) -> None:
    """What the clients do, and how long it took them: from the first request of all to the last answer."""
    client = sw.serve.Client(url)
    clients = len(asked) // steps
    totals = np.full((rounds, clients), np.nan, np.float32)
    latencies = np.full((rounds, clients), np.nan)
    together = threading.Barrier(clients + 1)

    def work(n: int) -> None:
        mine = asked[n * steps : (n + 1) * steps]
        client.score(mine)  # connected, and warm
        together.wait()
        for turn in range(rounds):
            begun = time.perf_counter()
            if verb == "score":
                totals[turn, n] = client.score(mine).total[0]
            else:
                totals[turn, n] = client.observe(mine).episode_ids[0]
            latencies[turn, n] = time.perf_counter() - begun

    threads = [threading.Thread(target=work, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    together.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    lost = int(np.isnan(totals).sum())
    if verb == "observe":
        lost += totals.size - len(np.unique(totals))
    answers.put(
        {
            "seconds": seconds,
            "steps": clients * steps * rounds,
            "latencies": 1000 * latencies.ravel(),
            "totals": list(totals),
            "lost": lost,
        }
    )


def _timed(work: Any) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
