"""A store's scorer on a device (`sharpwave.torch.Scorer`), beside the store itself on the CPU of the same machine.

    python -m benches.python.scorer --device cuda      benches/results/scorer-cuda.json

The store is the one that the scores are measured on (`verbs.py`): some 100,000 memories with their associations. A
larger one holds a million mixtures without any, for the search alone. Every sample waits for the device before and
after. The queries are real sentences, on the device already, as they are behind an encoder that runs there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sharpwave as sw
import torch
from sharpwave.torch import Scorer

from benches.python import data
from benches.python.cells import BATCHES
from benches.python.exact import K
from benches.python.timing import summary
from benches.python.verbs import LENGTH, OBSERVED, SCORED, lived

RESULTS = Path("benches/results")
LEAST, ROUNDS = 0.05, 15
"""Seconds that a sample takes at least, and how many are taken."""


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--million", type=int, default=1_000_000, help="memories of the larger store")
    options = parser.parse_args()
    found = measured(torch.device(options.device), options.million)
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = torch.device(options.device).type
    (RESULTS / f"scorer-{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def measured(device: torch.device, million: int) -> dict[str, Any]:
    """Rows of seconds by name, and what they belong to."""
    rows: dict[str, Any] = {}
    about: dict[str, Any] = {}
    store = lived()
    scorer = _made(store, device, "100,000", rows)
    scoring(store, scorer, device, rows, about)
    refreshing(store, scorer, device, rows)
    searching(store, scorer, device, "100,000", rows)
    large = sw.ValueStore(sw.Config(dim=data.DIM, keep_episodes=False))
    large.insert(data.memories("minilm", million))
    searching(large, _made(large, device, f"{million:,}", rows), device, f"{million:,}", rows)
    return {"about": about, "machine": machine(device), "rows": rows}


def scoring(store: sw.ValueStore, scorer: Scorer, device: torch.device, rows: Any, about: Any) -> None:
    """Scores of 4,096 steps, with and without their gradient; how far the numbers are from the store's."""
    steps, offsets = data.episodes(SCORED, LENGTH, seed=4)
    there = torch.from_numpy(steps).to(device)
    here, exact = scorer.score(there, offsets), store.score(steps, offsets)
    for name in ("total", "step", "support", "edge", "redundancy"):
        ours = getattr(here, name).cpu().numpy()
        about[f"largest difference, {name}"] = float(np.abs(ours - getattr(exact, name)).max())
    about |= {
        "memories": len(store),
        "associations": len(store.edges()[0]),
        "mean edge support": float(exact.edge.mean()),
    }

    def with_gradient() -> None:
        wanting = there.detach().requires_grad_()
        scorer.score(wanting, offsets).total.sum().backward()

    rows["score 4,096 steps"] = {
        "device": _timed(lambda: scorer.score(there, offsets), device),
        "with gradient": _timed(with_gradient, device),
        **_on_the_cpu(lambda count: store.score(steps, offsets, num_threads=count)),
    }
    rows["value of 4,096 steps"] = {
        "device": _timed(lambda: scorer.value(there), device),
        **_on_the_cpu(lambda count: store.value(steps, num_threads=count)),
    }


def refreshing(store: sw.ValueStore, scorer: Scorer, device: torch.device, rows: Any) -> None:
    """Bringing the arrays up to date after nothing, after 256 more steps, and after a replay."""
    samples: dict[str, list[float]] = {"observe": [], "replay": []}
    rows["refresh, nothing new"] = {"device": _timed(scorer.refresh, device)}
    for round_ in range(ROUNDS):
        store.observe(*data.episodes(OBSERVED, LENGTH, seed=100 + round_))
        samples["observe"].append(_once(scorer.refresh, device))
        store.replay()
        samples["replay"].append(_once(scorer.refresh, device))
    rows["refresh after 256 more steps"] = {"device": summary(samples["observe"])}
    rows["refresh after a replay"] = {"device": summary(samples["replay"])}


def searching(store: sw.ValueStore, scorer: Scorer, device: torch.device, size: str, rows: Any) -> None:
    """The 16 nearest, by batch; and how many of them are the store's."""
    for batch in BATCHES:
        asked = data.queries("minilm", batch)
        there = torch.from_numpy(asked).to(device)
        ids = scorer.search(there, K)[0].cpu().numpy()
        exact = store.search(asked, K)[0]
        same = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(ids, exact, strict=True)])
        rows[f"search {size} × {batch}"] = {
            "device": _timed(lambda there=there: scorer.search(there, K), device),
            **_on_the_cpu(lambda count, asked=asked: store.search(asked, K, num_threads=count)),
            "agreement": float(same),
        }


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers belong to."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else str(device),
        "memory at the peak": torch.cuda.max_memory_allocated(device) if cuda else None,
        "cpu": str(sw.cpu_features()["used"]),
        "cores": torch.get_num_threads(),
        "torch": torch.__version__,
        "sharpwave": sw.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _made(store: sw.ValueStore, device: torch.device, size: str, rows: Any) -> Scorer:
    """A scorer; the first copy is timed."""
    scorers = list[Scorer]()
    seconds = [_once(lambda: scorers.append(Scorer(store, device=device)), device) for _ in range(3)]
    rows[f"the first copy, {size} memories"] = {"device": summary(seconds)}
    return scorers.pop()


def _on_the_cpu(call: Callable[[int | None], Any]) -> dict[str, Any]:
    """The store on one thread and on all."""
    cpu = torch.device("cpu")
    return {
        f"store, {name}": _timed(lambda n=n: call(n), cpu) for name, n in (("one thread", 1), ("all threads", None))
    }


def _timed(call: Callable[[], Any], device: torch.device) -> dict[str, float]:
    call()
    once = max(_once(call, device), 1e-6)
    repeats = max(1, round(LEAST / once))

    def often() -> None:
        for _ in range(repeats):
            call()

    rounds = max(3, min(ROUNDS, round(1.5 / (once * repeats))))
    return summary([_once(often, device) / repeats for _ in range(rounds)])


def _once(call: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    begun = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
