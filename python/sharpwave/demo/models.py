"""Moved to `sharpwave.text.packages`; goes with the next version."""

from __future__ import annotations

import warnings
from typing import Any

from sharpwave.text import packages


def __getattr__(name: str) -> Any:
    found = getattr(packages, name)
    warnings.warn(
        f"sharpwave.demo.models.{name} is now sharpwave.text.packages.{name}", DeprecationWarning, stacklevel=2
    )
    return found
