"""``sharpwave explain --reward``: which factor of a reward took how much of each episode's pay."""

from __future__ import annotations

from pathlib import Path

from sharpwave.cli import jobs
from sharpwave.reward import Breakdown, InstrumentalReward
from sharpwave.reward.config import read
from sharpwave.text.embedders import as_embedder
from sharpwave.text.rows import read_rows
from sharpwave.text.typicality import LATER, REFERENCE


def explain(path: Path, file: Path, config: Path, embedder: str | None) -> list[Breakdown]:
    """What the reward of a configuration, or of a checkpoint's ``reward.json``, pays each episode of ``file`` with the
    store at ``path``. The episodes are one batch; T is 1 where only a trainer's reference pass could say it."""
    store, notes = jobs.open_store(path)
    settings = read(config)
    settings = settings.get("config", settings)
    if embedder is not None or settings.get("embedder") is None:
        settings["embedder"] = as_embedder(jobs.embedder_from(embedder, notes))
    reward = InstrumentalReward.from_config(settings, store=store, learn="off")
    rows = read_rows(file)
    columns = {} if reward.typicality is None or reward.typicality.reads else {REFERENCE: LATER}
    out = reward.score_texts([r.prompt for r in rows], [r.completion for r in rows], learn=False, columns=columns)
    return [out.breakdown(row) for row in range(len(out))]
