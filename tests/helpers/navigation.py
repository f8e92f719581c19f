"""The navigation of the documentation's site, for `make docs`: trainers' pages are those that their index links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

TRAINERS = {"Trainers": "trainers/index.md"}
"""In `nav` of mkdocs.yml: becomes a section."""


def on_config(config: Any) -> Any:
    """Called by mkdocs (`hooks`), before it reads the pages."""
    config["nav"] = with_trainers(config["nav"], Path(config["docs_dir"]))
    return config


def with_trainers(nav: list[Any], docs: Path) -> list[Any]:
    """`nav` with the index of trainers and, in the order of its links, the pages beside it."""
    index = (docs / TRAINERS["Trainers"]).read_text()
    linked = dict.fromkeys(re.findall(r"\(([\w-]+\.md)[)#]", index))
    section = {"Trainers": [TRAINERS["Trainers"], *(f"trainers/{page}" for page in linked)]}
    return [section if entry == TRAINERS else entry for entry in nav]
