"""OpenMP's threads give their cores away while they wait, and are no more than the cores there are."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sharpwave import _openmp

LOAD = """
import ctypes, sys
from sharpwave import cli
try:
    cli.app(["inspect", "nowhere"])
except SystemExit:
    pass
assert "torch" not in sys.modules
ctypes.CDLL(sys.argv[1])
"""


def openmp() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return next((Path(spec.origin).parent / "lib").glob("libgomp*"))


@pytest.mark.parametrize("said", [None, "ACTIVE"])
def test_the_command_line_waits_without_a_core(said: str | None) -> None:
    """As the OpenMP that torch brings reads it when it is loaded, and not against the environment."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    environment |= {"OMP_DISPLAY_ENV": "TRUE"} | ({"OMP_WAIT_POLICY": said} if said else {})
    done = subprocess.run(
        [sys.executable, "-c", LOAD, openmp()], env=environment, capture_output=True, text=True, check=True
    )
    assert f"OMP_WAIT_POLICY = '{said or 'PASSIVE'}'" in done.stderr


@pytest.mark.parametrize(("usable", "threads"), [(1, "1"), (4, None)])
def test_a_container_s_share_of_the_processor_counts(
    usable: int, threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", environment := {})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(_openmp, "get_num_threads", lambda: usable)
    _openmp.share_the_machine()
    assert environment.get("OMP_NUM_THREADS") == threads
    environment["OMP_NUM_THREADS"] = "3"
    _openmp.share_the_machine()
    assert environment["OMP_NUM_THREADS"] == "3"
