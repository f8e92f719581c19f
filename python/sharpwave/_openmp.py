"""How the threads of OpenMP wait: torch, scikit-learn and faiss each bring a copy of it.

A library that computes with several threads lets them meet after every small piece of work. By default a thread that
is early spins there, for a millisecond or more, so that it need not be woken. Where other programs want the cores too,
the late thread is one that does not run because the early one spins in its place, hundreds of times for each token
that a model samples. A thread that sleeps instead gives its core away, and costs a few microseconds to wake.

The variables are read when a copy of OpenMP is loaded: what is set after ``import torch`` has no effect.
"""

from __future__ import annotations

import os

from sharpwave._core import get_num_threads


def share_the_machine() -> None:
    """Let OpenMP's threads sleep while they wait, and start no more of them than this process may use cores.

    Call it before torch is imported. What the environment says already (``OMP_WAIT_POLICY``, ``OMP_NUM_THREADS``,
    ``GOMP_SPINCOUNT``, ``KMP_BLOCKTIME``) is left alone.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # OpenMP counts the cores of the affinity mask; a container's share of the processor is no part of that.
    usable = get_num_threads()
    if hasattr(os, "sched_getaffinity") and usable < len(os.sched_getaffinity(0)):
        os.environ.setdefault("OMP_NUM_THREADS", str(usable))
