"""Moved to `sharpwave.embed.packages`; goes with the next version."""

from __future__ import annotations

import warnings
from typing import Any

from sharpwave.embed import packages


def __getattr__(name: str) -> Any:
    found = getattr(packages, name)
    warnings.warn(
        f"sharpwave.demo.models.{name} is now sharpwave.embed.packages.{name}", DeprecationWarning, stacklevel=2
    )
    return found
