"""What several commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from sharpwave._show import shown


def warn(messages: Iterable[str]) -> None:
    """Each message on a line of stderr."""
    for message in messages:
        print(shown(f"warning: {message}"), file=sys.stderr)
