"""Optional dependencies, imported when first used and missed in one clear line."""

from __future__ import annotations

import importlib
from typing import Any


class MissingExtra(ImportError):
    """An optional dependency is missing; the message names the extra to install."""


def require(module: str, extra: str) -> Any:
    """Import and return ``module``, or raise `MissingExtra` naming the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(f"{module} is needed for this ({error}): pip install 'sharpwave[{extra}]'") from None
