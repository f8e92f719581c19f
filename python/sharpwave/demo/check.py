"""``python -m sharpwave.demo.check`` is now ``python -m examples.demo.check``; goes with the next version."""

from __future__ import annotations

import sys

from sharpwave._lazy import MissingExtra
from sharpwave.demo import checkout

if __name__ == "__main__":
    try:
        check = checkout("check")
    except MissingExtra as error:
        sys.exit(f"error: {error}")
    sys.exit(check.main())
