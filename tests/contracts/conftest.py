"""One Ray cluster for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from sharpwave._openmp import share_the_machine

share_the_machine()  # before a test imports torch

ATTEMPTS = 5


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join([str(tests / "helpers"), str(tests / "serve"), os.environ.get("PYTHONPATH", "")])
    started(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        namespace="contracts",
        object_store_memory=200 << 20,
        _system_config={"worker_niceness": 0},  # Ray gives its workers the lowest priority
        runtime_env={"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "SHARPWAVE_ALLOW": "tiny"}},
    )
    yield
    ray.shutdown()


def started(**options: Any) -> None:
    """`ray.init`, again where the node did not come up in the half minute that Ray gives it on a busy machine."""
    for attempt in range(ATTEMPTS):
        try:
            ray.init(**options)
            return
        except Exception as error:
            ray.shutdown()
            if "timed out during startup" not in str(error) or attempt == ATTEMPTS - 1:
                raise
