"""The exploit table on one's own store: the same columns and rows, one split.

The ruler is a file of base episodes; if the store was built from it, it is in sample, and the
report says so. Without texts of one's own, the exploits are made from what the terminals say, from
the most valuable memory and from a base episode, beside those that are the same for everybody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sharpwave import __version__, viz
from sharpwave._embedder import Embedder
from sharpwave.probe import report as reporting
from sharpwave.probe import summary
from sharpwave.probe.columns import COLUMNS, Bench, Episodes
from sharpwave.probe.probes import Objective, Probe, ProbeSet, load_probes
from sharpwave.probe.table import Measured, Ruler, TableSettings, splices, succession_auc
from sharpwave.store import ValueStore
from sharpwave.text.chunkers import Chunker, chunk_batch, completion_text
from sharpwave.text.rows import Row, chunk_rows

WORDS = 96
OWN_COLUMNS = tuple(c for c in COLUMNS if not c.rebuilds)


def fill(unit: str, words: int = WORDS) -> str:
    """``unit`` over and over, cut at ``words`` words."""
    one = unit.split() or ["…"]
    return " ".join((one * (words // len(one) + 1))[:words])


def made_exploits(sentences: Sequence[str], best: str, episode: str) -> tuple[Probe, ...]:
    """Exploits of one's own terminals: parroting, listing, salad, repeating, shuffling."""
    rng = np.random.default_rng(0)
    out = []
    if sentences:
        words = " ".join(sentences).split()
        salad = " ".join(" ".join(rng.permutation(words)) for _ in range(WORDS // len(words) + 1))
        out += [
            ("parrot one terminal", fill(sentences[0])),
            ("list all terminals", fill(" ".join(sentences))),
            ("word salad", fill(salad)),
        ]
    if best:
        out.append(("repeat a good chunk", fill(best)))
    if episode:
        out.append(("shuffled words", " ".join(rng.permutation(episode.split()))))
    return tuple(Probe(name, "exploit", text) for name, text in out)


def probe_store(
    store: ValueStore,
    notes: Mapping[str, Any],
    embedder: Embedder,
    chunker: Chunker,
    base: Sequence[Row],
    probes_file: Path | None,
    out: Path,
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Measure ``store``, write the report to ``out`` and return it.

    Raises:
        ValueError: fewer than three base episodes, a store without channels, or texts whose
            objectives are not the store's.
    """
    if not store.channels:
        raise ValueError("the store has no channel: there is nothing to approach")
    if len(base) < 3:
        raise ValueError(f"the ruler needs at least 3 base episodes, got {len(base)}")
    batch = chunk_rows(base, chunker)
    ruler = Episodes(embedder(batch.steps), batch.offsets, batch.context)
    groups: dict[str, list[str]] = notes.get("objectives") or {"store": list(store.channels)}
    view = store.frozen()
    probes = load_probes(probes_file)
    if probes_file is not None:
        unknown = [o.name for o in probes.objectives if o.name not in groups]
        if unknown:
            raise ValueError(f"{probes_file}: the store has no objective {unknown[0]!r}")
    measured = []
    for n, (name, channels) in enumerate(groups.items()):
        objective = next(
            (o for o in probes.objectives if o.name == name and probes_file is not None),
            None,
        ) or _objective(name, channels, store, notes, base)
        measured.append(_measure(objective, channels, probes, view, embedder, chunker, ruler, n))
        progress("exploit table", n + 1, len(groups))
    objectives = [summary.objective_summary(m) for m in measured]
    for row in (row for objective in objectives for row in objective["rows"] if row["kind"] == "base"):
        row["name"] = "base episodes"
    source, _, _ = store.edges()
    report: dict[str, Any] = {
        "schema": reporting.SCHEMA,
        "version": __version__,
        "quick": False,
        "seconds": {},
        "settings": {"table": {"splits": 1}, "in_sample": True, "config": store.config.to_dict()},
        "base": {
            "kind": "episodes",
            "stories": len(base),
            "prompts": len({completion_text(r.prompt) for r in base if r.prompt is not None}),
            "words": round(float(np.mean([len(completion_text(r.completion).split()) for r in base])), 1),
            "steps": len(batch.steps),
            "examples": [
                {
                    "prompt": "" if r.prompt is None else completion_text(r.prompt),
                    "text": completion_text(r.completion) or " ".join(r.steps or ()),
                }
                for r in base[:3]
            ],
        },
        "columns": [{"id": c.id, "title": c.title, "about": c.about, "ablation": c.ablation} for c in OWN_COLUMNS],
        "objectives": objectives,
        "off_objective": [],
        "auc": {"tuned": {}, "objective": {}},
        "succession": summary.succession(measured),
        "support": viz.histogram_data({"base episodes": store.value(ruler.steps[ruler.is_scored])[1]}),
        "claims": [],
        "findings": ["One split: if the store was built from these base episodes, in sample."],
        "store": {
            "memories": len(store),
            "associations": len(source),
            "steps": int(store.counts.sum()),
            "channels": store.channels,
            "digest": store.digest(),
        },
        "map": viz.map_data(store, groups),
        "explain": None,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    reporting.write(report, out)
    return report


def _objective(
    name: str,
    channels: Sequence[str],
    store: ValueStore,
    notes: Mapping[str, Any],
    base: Sequence[Row],
) -> Objective:
    """An objective with made exploits and no stories."""
    says: Mapping[str, str] = notes.get("terminals", {})
    sentences = tuple(says[c] for c in channels if c in says)
    columns = [store.channels.index(c) for c in channels]
    value = np.where(store.is_terminal, -np.inf, store.values[:, columns].mean(axis=1))
    best = store.texts[int(np.argmax(value))] if len(store) else None
    episode = completion_text(base[0].completion) or " ".join(base[0].steps or ())
    return Objective(name, name, False, sentences, (), made_exploits(sentences, best or "", episode))


def _measure(
    objective: Objective,
    channels: Sequence[str],
    probes: ProbeSet,
    view: Any,
    embedder: Embedder,
    chunker: Chunker,
    ruler: Episodes,
    seed: int,
) -> Measured:
    names = list(view.channels)
    weights = np.zeros(len(names), np.float32)
    weights[[names.index(c) for c in channels]] = 1.0 / len(channels)
    if objective.terminals:
        keys = embedder(list(objective.terminals))
    else:  # a scalar channel says nothing: the cosine column is that to the terminal memories
        keys = view.keys[view.is_terminal] if view.is_terminal.any() else view.keys[:1]
    bench = Bench(view, weights, np.asarray(keys, np.float32), seed)
    rows = list(probes.rows(objective))
    batch = chunk_batch(chunker, [probes.prompt] * len(rows), [p.text for p in rows])
    episodes = Episodes(embedder(batch.steps), batch.offsets, batch.context)
    spliced = splices(bench, ruler, episodes, TableSettings(splits=1), seed)
    z, splice_z, ruler_z = {}, {}, {}
    for column in OWN_COLUMNS:
        scores = column.score(bench, ruler)
        scale = Ruler.of(scores)
        ruler_z[column.id] = [scale.z(scores)]
        z[column.id] = scale.z(column.score(bench, episodes))[None]
        splice_z[column.id] = scale.z(column.score(bench, spliced))[None]
    return Measured(objective, rows, [], z, splice_z, ruler_z, [succession_auc(view, ruler, seed)])
