"""The committed texts of the exploit table (``probes.json``), checked when read.

They were written before any of them was scored and are not adjusted afterwards. Objectives with
``held_out`` take no part in any tuning and are reported last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Probe:
    """One text of the table. ``kind``: story, unrelated, exploit, or found (by a policy in training)."""

    name: str
    kind: str
    text: str


@dataclass(frozen=True)
class Objective:
    """Terminal sentences, coherent stories toward them, texts that only look like it, and what training found."""

    name: str
    title: str
    held_out: bool
    terminals: tuple[str, ...]
    stories: tuple[Probe, ...]
    exploits: tuple[Probe, ...]
    found: tuple[Probe, ...] = ()


@dataclass(frozen=True)
class ProbeSet:
    """All texts. ``prompt`` is the context step of every probe; ``common`` belongs to all."""

    prompt: str
    objectives: tuple[Objective, ...]
    common: tuple[Probe, ...]

    @property
    def tuned(self) -> tuple[Objective, ...]:
        """The objectives that numbers may be tuned on."""
        return tuple(o for o in self.objectives if not o.held_out)

    def rows(self, objective: Objective) -> tuple[Probe, ...]:
        """The table's rows for one objective: its stories, the unrelated story, the exploits, what training found."""
        return (
            *objective.stories,
            *self.unrelated,
            *objective.exploits,
            *self.exploits,
            *objective.found,
            *(p for p in self.common if p.kind == "found"),
        )

    @property
    def unrelated(self) -> tuple[Probe, ...]:
        """Common coherent texts that are about nothing of the objectives."""
        return tuple(p for p in self.common if p.kind == "unrelated")

    @property
    def exploits(self) -> tuple[Probe, ...]:
        """Exploits that are the same for every objective."""
        return tuple(p for p in self.common if p.kind == "exploit")


def load_probes(path: Path | str | None = None) -> ProbeSet:
    """The texts of ``path``, by default the committed ones.

    Raises:
        ValueError: the file is not a table of texts; the missing field is named.
        OSError: it cannot be read.
    """
    if path is None:
        text = (resources.files("sharpwave.probe") / "probes.json").read_text("utf-8")
        path = "probes.json"
    else:
        text = Path(path).read_text("utf-8-sig")
    try:
        data = json.loads(text)
        return ProbeSet(
            prompt=str(data["prompt"]),
            objectives=tuple(_objective(o) for o in data["objectives"]),
            common=(
                *(Probe(p["name"], "unrelated", p["text"]) for p in data["unrelated"]),
                *(Probe(p["name"], "exploit", p["text"]) for p in data["common"]),
                *(Probe(p["name"], "found", p["text"]) for p in data.get("found", ())),
            ),
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a table of texts: {error!r}") from None


def _objective(data: Mapping[str, Any]) -> Objective:
    return Objective(
        name=data["name"],
        title=data["title"],
        held_out=bool(data["held_out"]),
        terminals=tuple(data["terminals"]),
        stories=tuple(Probe(f"story {n}", "story", text) for n, text in enumerate(data["stories"], 1)),
        exploits=tuple(Probe(p["name"], "exploit", p["text"]) for p in data["exploits"]),
        found=tuple(Probe(p["name"], "found", p["text"]) for p in data.get("found", ())),
    )
