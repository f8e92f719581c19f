"""Modules and names under the names that they had before: they warn and are the new ones."""

from __future__ import annotations

import runpy
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any


def moved(old: str, new: str) -> None:
    """Make ``old``, the module that is being imported or run, another name of ``new``, with a DeprecationWarning."""
    if old == "__main__":
        runpy.run_module(new, run_name="__main__")
        return
    warnings.warn(f"{old} is now {new}; the old name goes with the next version", DeprecationWarning, stacklevel=3)
    sys.modules[old] = import_module(new)


def renamed(module: str, names: dict[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module some of whose names have changed: an old one is the new one, with a warning."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        message = f"{module}.{name} is now {module}.{names[name]}; the old name goes with the next version"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[module], names[name])

    return find
