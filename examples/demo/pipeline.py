"""The demo's steps in order: sample, embed, table, store, report. Cached under one directory.

Everything is deterministic given the settings. Stories are kept in ``base.jsonl`` and embeddings
in ``embeddings.sqlite``, so that a run that was stopped goes on, and a second one is quick.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sharpwave import __version__, viz
from sharpwave.cli.jobs import FLUENCY
from sharpwave.config import Config
from sharpwave.episodes import Words
from sharpwave.probe import report as reporting
from sharpwave.probe import summary
from sharpwave.probe.columns import COLUMNS, Episodes
from sharpwave.probe.probes import Objective, ProbeSet, load_probes
from sharpwave.probe.table import Measured, TableSettings, measure, splits
from sharpwave.store import ValueStore
from sharpwave.view import View

from examples.demo.encoder import MEANING, Encoder, fluent_encoder
from examples.demo.sample import SampleSettings, Story, sample_stories

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True)
class DemoSettings:
    """Everything that the demo's numbers depend on."""

    out: Path = Path("runs/demo")
    sample: SampleSettings = SampleSettings()
    table: TableSettings = TableSettings()
    chunker: Words = Words(n=8)
    fluency: float = FLUENCY  # weight of the fluency beside a meaning of 1
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    probes: Path | None = None
    quick: bool = False

    @classmethod
    def full(cls, out: Path = Path("runs/demo"), seed: int = 0) -> DemoSettings:
        """At most six minutes on two cores."""
        return cls(out, SampleSettings(seed=seed), TableSettings(seed=seed))

    @classmethod
    def short(cls, out: Path = Path("runs/ci"), seed: int = 0) -> DemoSettings:
        """At most two minutes: fewer stories, fewer splits."""
        return cls(
            out,
            SampleSettings(stories=160, seed=seed),
            TableSettings(splits=3, seed=seed),
            quick=True,
        )


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Generator[None, None, None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 2)


def build_store(
    config: Config,
    base: Episodes,
    terminals: Mapping[str, NDArray[np.float32]],
    texts: Sequence[str] | None = None,
    source: str = "base",
) -> ValueStore:
    """A store of ``base`` episodes: calibrated, with its terminals, observed, and slept over."""
    store = ValueStore(config)
    store.calibrate(base.steps, base.offsets)
    for name, key in terminals.items():
        store.add_terminal(name, key)
    store.observe(base.steps, base.offsets, texts=texts, source=source)
    store.replay()
    return store


def run(settings: DemoSettings, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """The whole demo; returns what it wrote to ``report.json``."""
    clock = Clock()
    out = settings.out
    out.mkdir(parents=True, exist_ok=True)
    probes = load_probes(settings.probes)
    progress("sampling stories", 0, settings.sample.stories)
    with clock.stage("sample"):
        stories = sample_stories(out / "base.jsonl", settings.sample, lambda a, b: progress("sampling stories", a, b))
    progress("sampling stories", len(stories), len(stories))
    with clock.stage("embed"):
        progress("embedding", 0, 3)
        said = [s.prompt for s in stories], [s.text for s in stories]
        model, device = settings.sample.model, settings.sample.device
        encoder = fluent_encoder(
            settings.chunker, *said, settings.fluency, out / "embeddings.sqlite", model=model, device=device
        )
        progress("embedding", 1, 3)
        base = encoder(*said)
        progress("embedding", 2, 3)
        terminals = {o.name: encoder.embedder(list(o.terminals)) for o in probes.objectives}
        encoder([probes.prompt] * len(all_texts(probes)), all_texts(probes))
        progress("embedding", 3, 3)
    with clock.stage("table"):
        measured = measure_all(probes, base, encoder, terminals, settings, progress)
    with clock.stage("store"):
        progress("building the store", 0, 1)
        store, facts = shown_store(probes, stories, base, encoder, terminals, settings)
        progress("building the store", 1, 1)
    report = assemble(settings, probes, measured, base, stories, encoder)
    report |= facts | {"seconds": dict(clock.seconds)}
    (out / "report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    with clock.stage("report"):
        progress("writing the report", 0, 1)
        reporting.write(report, out)
        progress("writing the report", 1, 1)
    store.close()
    return report


def all_texts(probes: ProbeSet) -> list[str]:
    """Every text of the table."""
    return [p.text for o in probes.objectives for p in (*o.stories, *o.exploits, *o.found)] + [
        p.text for p in probes.common
    ]


def measure_all(
    probes: ProbeSet,
    base: Episodes,
    encoder: Encoder,
    terminals: Mapping[str, NDArray[np.float32]],
    settings: DemoSettings,
    progress: Progress,
) -> list[Measured]:
    """The table, objective by objective, held-out ones last. Each has stores of its own."""
    ordered = sorted(probes.objectives, key=lambda o: o.held_out)
    total = len(ordered) * settings.table.splits
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress("exploit table", done, total)

    def build(stored: Episodes, keys: NDArray[np.float32]) -> Any:
        named = {f"terminal {n}": key for n, key in enumerate(keys, 1)}
        return build_store(Config(dim=stored.steps.shape[1], **settings.config), stored, named).frozen()

    return [
        measure(o, probes, base, encoder, build, terminals[o.name], settings.table, progress=advance, meaning=MEANING)
        for o in ordered
    ]


def channel_names(objective: Objective) -> list[str]:
    """The channels of an objective in the store that is shown: one a terminal."""
    return [f"{objective.name} {n}" for n in range(1, len(objective.terminals) + 1)]


def shown_store(
    probes: ProbeSet,
    stories: Sequence[Story],
    base: Episodes,
    encoder: Encoder,
    terminals: Mapping[str, NDArray[np.float32]],
    settings: DemoSettings,
) -> tuple[ValueStore, dict[str, Any]]:
    """The store of all base stories with all objectives' terminals, saved, and what it shows."""
    named = {
        name: key for o in probes.objectives for name, key in zip(channel_names(o), terminals[o.name], strict=True)
    }
    texts = encoder.chunks([s.prompt for s in stories], [s.text for s in stories])
    store = build_store(Config(dim=base.steps.shape[1], **settings.config), base, named, texts, source="SmolLM2-135M")
    store.bind_embedder(encoder.embedder)
    directory = settings.out / "store"
    directory.mkdir(parents=True, exist_ok=True)
    store.save(directory / "snapshot.safetensors")
    sentences = {
        name: text for o in probes.objectives for name, text in zip(channel_names(o), o.terminals, strict=True)
    }
    (directory / "store.json").write_text(
        json.dumps(
            {
                "embedder": getattr(encoder.embedder, "config", None),
                "chunker": settings.chunker.config,
                "terminals": sentences,
                "objectives": {o.name: channel_names(o) for o in probes.objectives},
                "file": str((settings.out / "base.jsonl").resolve()),
            },
            indent=1,
            ensure_ascii=False,
        )
        + "\n",
        encoding="utf-8",
    )
    source, _, _ = store.edges()
    objective = probes.objectives[0]
    facts = {
        "store": {
            "memories": len(store),
            "associations": len(source),
            "steps": len(base.steps),
            "episodes": len(base),
            "config": store.config.to_dict(),
            "channels": store.channels,
            "digest": store.digest(),
        },
        "map": viz.map_data(store, {o.name: channel_names(o) for o in probes.objectives}),
        "explain": explain(store, objective, probes, encoder),
    }
    return store, facts


def explain(store: ValueStore, objective: Objective, probes: ProbeSet, encoder: Encoder) -> dict[str, Any]:
    """What paid for each step of the objective's first story, as plain data."""
    story = objective.stories[0]
    weights = dict.fromkeys(channel_names(objective), 1.0 / len(objective.terminals))
    steps = explain_text(store, weights, probes.prompt, story.text, encoder)
    return {"objective": objective.name, "story": story.name, "steps": steps}


def explain_text(
    store: View, weights: Mapping[str, float], prompt: str, text: str, encoder: Encoder
) -> list[dict[str, Any]]:
    """What paid for each step of one text, the prompt's first."""
    episode = encoder([prompt], [text])
    chunks = encoder.chunks([prompt], [text])
    texts = dict(zip(store.ids.tolist(), store.texts, strict=True))
    steps = []
    for chunk, e in zip(chunks, store.explain(episode.steps, episode.offsets, weights=weights), strict=True):
        best = max(e.associations, key=lambda a: a.weight * a.agreement, default=None)
        steps.append(
            {
                "text": chunk,
                "pay": round(e.pay, 5),
                "support": round(e.support, 3),
                "edge": round(e.edge, 3),
                "redundancy": round(e.redundancy, 3),
                "memories": [
                    {"text": m.text or "", "phi": round(m.phi, 3), "pay": round(m.pay, 5)}
                    for m in sorted(e.memories, key=lambda m: (-m.pay, m.id))[:3]
                    if m.pay > 0
                ],
                "way": None if best is None else [texts.get(best.source) or "", texts.get(best.target) or ""],
            }
        )
    return steps


def assemble(
    settings: DemoSettings,
    probes: ProbeSet,
    measured: Sequence[Measured],
    base: Episodes,
    stories: Sequence[Story],
    encoder: Encoder,
) -> dict[str, Any]:
    """The report but for the shown store: table, AUCs, claims, findings, settings."""
    objectives = [summary.objective_summary(m) for m in measured]
    words = [len(s.text.split()) for s in stories]
    report: dict[str, Any] = {
        "schema": 1,
        "version": __version__,
        "quick": settings.quick,
        "settings": {
            "sample": asdict(settings.sample),
            "table": asdict(settings.table),
            "chunker": settings.chunker.config,
            "fluency": settings.fluency,
            "config": settings.config,
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
        },
        "base": {
            "stories": len(stories),
            "prompts": len({s.prompt for s in stories}),
            "words": round(float(np.mean(words)), 1),
            "steps": len(base.steps),
            "examples": [asdict(s) for s in stories[:3]],
        },
        "columns": [{"id": c.id, "title": c.title, "about": c.about, "ablation": c.ablation} for c in COLUMNS],
        "objectives": objectives,
        "off_objective": summary.off_objective(measured),
        "auc": summary.aucs(measured),
        "succession": summary.succession(measured),
        "support": support(probes, base, encoder, settings),
    }
    report["claims"] = summary.claims(objectives, report["auc"])
    report["findings"] = summary.findings(report)
    return report


def support(probes: ProbeSet, base: Episodes, encoder: Encoder, settings: DemoSettings) -> dict[str, Any]:
    """Support of unseen steps by kind of text, under the store of the first split."""
    split = splits(len(base), settings.table)[0]
    stored = base.take(split.build)
    store = ValueStore(Config(dim=stored.steps.shape[1], **settings.config))
    store.calibrate(stored.steps, stored.offsets)
    store.observe(stored.steps, stored.offsets)
    kinds: dict[str, list[str]] = {
        "on-objective stories": [p.text for o in probes.objectives for p in o.stories],
        "topical exploits": [p.text for o in probes.objectives for p in o.exploits],
        "spam, code, lorem ipsum": [p.text for p in probes.exploits],
    }
    samples = {"held-out base stories": base.take(split.ruler)}
    samples |= {k: encoder([probes.prompt] * len(t), t) for k, t in kinds.items()}
    return viz.histogram_data({k: store.value(e.steps[e.is_scored])[1] for k, e in samples.items()})
