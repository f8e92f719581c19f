"""Timing contestants side by side: interleaved, medians with spread, on a clock that suits the number of threads."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import sharpwave as sw
import torch
from threadpoolctl import threadpool_limits

LEAST = 0.02
"""Seconds that one sample takes at least; shorter calls are repeated."""


PAUSE = 0.1
"""Seconds until idle threads of OpenMP and OpenBLAS have stopped spinning."""


def threads(count: int) -> AbstractContextManager[Any]:
    """Every contestant on so many threads."""
    sw.set_num_threads(count)
    faiss.omp_set_num_threads(count)
    torch.set_num_threads(count)
    return threadpool_limits(count)


def clock(count: int) -> Callable[[], float]:
    """On one thread the time that the process was given, which others on the machine do not disturb; else the wall."""
    return time.process_time if count == 1 else time.perf_counter


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    *,
    count: int,
    budget: float,
    rounds: tuple[int, int] = (3, 41),
    prepare: Callable[[str], Any] = lambda _: None,
) -> dict[str, list[float]]:
    """Seconds a call of each contestant, in rounds: each is sampled once a round, another one first every round.

    As many rounds as `budget` seconds allow, within the bounds. One whose warm call alone takes longer has one sample.
    `prepare` is called with a contestant's name before each of its samples. On several threads there is a pause before,
    so that the threads that one contestant leaves spinning for more work do not take a core from the next.
    """
    now, repeats, samples = clock(count), dict[str, int](), dict[str, list[float]]()
    for name, call in calls.items():
        prepare(name)
        begun, wall = now(), time.perf_counter()
        call()
        taken = max(now() - begun, 1e-6)
        if time.perf_counter() - wall > budget:
            samples[name] = [taken]
            continue
        repeats[name] = max(1, round(LEAST / taken))
        samples[name] = []
    names, end, done = list(repeats), time.perf_counter() + budget, 0
    while names and done < rounds[1] and (done < rounds[0] or time.perf_counter() < end):
        for place in range(len(names)):
            name = names[(place + done) % len(names)]
            prepare(name)
            time.sleep(PAUSE if count > 1 else 0.0)
            begun = now()
            for _ in range(repeats[name]):
                calls[name]()
            samples[name].append((now() - begun) / repeats[name])
        done += 1
    return samples


def summary(samples: list[float]) -> dict[str, float | int]:
    """Median, quartiles and count."""
    low, median, high = np.percentile(samples, [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high), "samples": len(samples)}


def machine() -> dict[str, str]:
    """The processor and the versions: what a number belongs to."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.M))
    cpu = found.get("model name", platform.processor()).strip()
    if "cpu family" in found:
        cpu += f", family {found['cpu family']} model {found['model']}"
    return {
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "isa": str(sw.cpu_features()["used"]),
        "python": platform.python_version(),
    }
