"""Gives every peer the kernels of this processor: imported before anything that brings a BLAS.

The OpenBLAS in faiss's wheel (0.3.15, of 2021) takes processors that came after it for the oldest it knows, and is then
four times slower than the same library when it is told: on a Zen 5 core 630 queries a second against 100,000 memories
in place of 2,700. To compare with that would flatter sharpwave. `OPENBLAS_CORETYPE` says which kernels to use, and has
to be in the environment when the process starts. `OPENBLAS_L2_SIZE`, where it is set, slows NumPy.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

KERNELS = {"avx512bw": "SkylakeX", "avx2": "Haswell"}
"""By the newest feature that the processor has; other processors are left to the library."""


def best() -> dict[str, str]:
    """The environment in which this process should run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    cpuinfo = Path("/proc/cpuinfo")
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    known = [kernels for feature, kernels in KERNELS.items() if flags and feature in flags[1].split()]
    return environment | ({"OPENBLAS_CORETYPE": known[0]} if known else {})


def ensure(module: str) -> None:
    """Starts `python -m module` again, in place of this process, if it runs in another environment."""
    environment = best()
    if environment != dict(os.environ):
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], environment)


def kernels() -> list[dict[str, Any]]:
    """Which BLAS each library brought, and which kernels it uses."""
    from threadpoolctl import threadpool_info

    names = ("filepath", "version", "architecture")
    found = [{name: info.get(name) for name in names} for info in threadpool_info() if info["user_api"] == "blas"]
    return [{**info, "filepath": Path(info["filepath"]).name} for info in found]
