"""Modules under the names that they had before: imported, they warn and are the new ones."""

from __future__ import annotations

import runpy
import sys
import warnings
from importlib import import_module


def moved(old: str, new: str) -> None:
    """Make ``old``, the module that is being imported or run, another name of ``new``, with a DeprecationWarning."""
    if old == "__main__":
        runpy.run_module(new, run_name="__main__")
        return
    warnings.warn(f"{old} is now {new}; the old name goes with the next version", DeprecationWarning, stacklevel=3)
    sys.modules[old] = import_module(new)
