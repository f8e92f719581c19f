"""What the command line does with one's own stores: build, score, explain, inspect, probe.

Beside a store's snapshot lies ``store.json``: which embedder and chunker filled it, and what its
terminals say, so that the other commands need not be told again.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sharpwave import _coerce
from sharpwave._advice import NO_CHANNEL, POTENTIAL, UNKNOWN, unknown
from sharpwave._embedder import Embedder
from sharpwave._show import shown
from sharpwave.cli import explaining
from sharpwave.cli.options import CHUNKERS
from sharpwave.config import Config
from sharpwave.evaluate import Evaluation, Known, labels_of
from sharpwave.evaluate import evaluate as measure
from sharpwave.granularity import crowded_warnings, mixed_warnings
from sharpwave.results import explained_without
from sharpwave.store import SNAPSHOT, ValueStore
from sharpwave.text import chunkers as episodes
from sharpwave.text.checks import joined_warnings, short_warnings, single_warnings
from sharpwave.text.embedders import Contrast, Fluency, Joined, SentenceTransformer, as_embedder, from_config
from sharpwave.text.rows import Row, chunk_rows, number_columns, read_rows, roles_in, roles_of

Progress = Callable[[str, int, int], None]
NOTES = "store.json"

FLUENCY = 0.2
"""The weight of fluency beside a meaning of 1."""

_log = logging.getLogger("sharpwave")


def chunker_from(text: str) -> episodes.Chunker:
    """``words:12``, ``sentences:16`` or ``turns:128`` as a chunker; the number may be left out."""
    kind, _, size = text.partition(":")
    name = {"words": "n", "sentences": "max_words", "turns": "max_words"}.get(kind)
    if name is None or (size and not size.isdigit()):
        raise ValueError(f"--chunker must be words:N, sentences:N or turns:N, got {text!r}; {CHUNKERS}")
    return episodes.from_config({"kind": kind} | ({name: int(size)} if size else {}))


def embedder_from(path: str | None, notes: Mapping[str, Any]) -> Embedder:
    """The embedder at ``path``, else the one noted beside the store, else MiniLM's package."""
    from sharpwave.text.packages import minilm_path, offline

    offline()
    noted = notes.get("embedder") or {}
    contrast = dict(noted) if noted.get("kind") == "contrast" else {}
    meaning = contrast.pop("embedder", noted)
    if path is not None:
        if not Path(path).exists():
            raise ValueError(f"--embedder {path}: there is no such model")
        embedder = SentenceTransformer(path)
    elif meaning and all(Path(part["path"]).exists() for part in meaning.get("parts", [meaning])):
        embedder = from_config(meaning)
    else:
        embedder = SentenceTransformer(minilm_path())
    return Contrast(embedder, **{n: v for n, v in contrast.items() if n != "kind"}) if contrast else embedder


def fluent(embedder: Embedder, path: str, batch: episodes.Batch) -> Embedder:
    """``embedder`` with the fluency beside it that the language model at ``path`` sees, fitted to the batch's steps."""
    from sharpwave.text.packages import smollm2_path

    form = Fluency(smollm2_path() if path == "smollm2" else path, dtype="bfloat16")
    return with_fluency(embedder, form, batch)


def with_fluency(meaning: Embedder, form: Fluency, batch: episodes.Batch, weight: float = FLUENCY) -> Joined:
    """``meaning`` with the fluency ``form`` beside it, fitted to what the batch's episodes say."""
    form.fit(batch.scored_steps)
    return Joined([meaning, form], [1.0, weight])


def open_store(path: Path) -> tuple[ValueStore, dict[str, Any]]:
    """The store at ``path`` (a directory or a snapshot), in memory, and the notes beside it."""
    snapshot = path / SNAPSHOT if path.is_dir() else path
    if not snapshot.exists():
        raise ValueError(f"{path}: there is no store")
    notes = snapshot.parent / NOTES
    data: dict[str, Any] = {}
    if notes.is_file():
        try:
            data = json.loads(notes.read_text("utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{notes} is not JSON: {error}") from None
    return ValueStore.load(path), data


def _checked(store: ValueStore, embedder: Embedder) -> Embedder:
    """``embedder``, if it is the one that filled the store (EmbedderError otherwise)."""
    store.bind_embedder(embedder)
    return as_embedder(embedder)


def _named(pairs: Sequence[str], option: str) -> dict[str, str]:
    out = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ValueError(f"--{option} must be name=value, got {pair!r}")
        out[name.strip()] = value.strip()
    return out


def weights_from(pairs: Sequence[str], notes: Mapping[str, Any]) -> dict[str, float] | None:
    """``channel=number`` pairs as weights by channel; without any, those that a store was built with, or None."""
    try:
        return {k: float(v) for k, v in _named(pairs, "weight").items()} or notes.get("weights")
    except ValueError as error:
        raise ValueError(f"--weight must be channel=number: {error}") from None


def with_roles(chunker: episodes.Chunker, text: str | None, rows: Sequence[Row]) -> episodes.Chunker:
    """The chunker with the roles of the policy: those in ``text``, else what the conversations of the rows say."""
    if text == "last":
        return chunker
    roles = roles_of(rows) if text is None else tuple(name.strip().lower() for name in text.split(","))
    if roles is None:
        return chunker
    there = roles_in(rows)
    if missing := [name for name in roles if name not in there]:
        raise ValueError(f"--roles: no message has the role {missing[0]!r}; there are {', '.join(there) or 'none'}")
    return episodes.from_config({**getattr(chunker, "config", {}), "roles": roles})


@dataclass(frozen=True)
class Material:
    """A file's episodes, embedded."""

    rows: list[Row]
    batch: episodes.Batch
    steps: np.ndarray
    channels: list[str]
    drives: np.ndarray
    """(E, channels), NaN where a row has no such number."""
    weights: dict[str, float] | None
    """Of the channels in a score, where a label says which are bad; None: equal."""
    sentences: dict[str, str]
    keys: dict[str, np.ndarray]
    """The terminals' sentences, and their embeddings."""
    embedder: Embedder
    chunker: episodes.Chunker
    warnings: list[str]
    """What looks wrong about the texts."""


def material(
    file: Path,
    terminals: Sequence[str],
    channels: Sequence[str],
    embedder_path: str | None,
    chunker_text: str,
    fluency: str | None,
    progress: Progress | None = None,
    roles: str | None = None,
    label: str | None = None,
    good: str | None = None,
) -> Material:
    """The episodes of ``file``, chunked and embedded, with their drives and terminals.

    A ``label`` gives two channels, its own and ``not_…``, of the weights 1 and −1, and a `Contrast` beside the meaning.
    """
    chunker = chunker_from(chunker_text)
    sentences = _named(terminals, "terminal")
    if fluency not in (None, "smollm2") and not (Path(fluency) / "config.json").is_file():
        raise ValueError(f"--fluency {fluency}: there is no such language model; a directory or 'smollm2'")
    rows = read_rows(file)
    if not rows:
        raise ValueError(f"{file} holds no episode")
    number_columns(rows, channels)  # refused before a model is loaded
    if label is not None:
        labels_of([row.numbers for row in rows], [row.labels for row in rows], label, good)
        if taken := {label, f"not_{label}"} & {*channels, *sentences}:
            raise ValueError(f"--label makes the channels {label} and not_{label}; {min(taken)} is given twice")
    chunker = with_roles(chunker, roles, rows)
    embedder = as_embedder(embedder_from(embedder_path, {}))
    rows, batch = _learnable(rows, chunker)
    if not rows:
        raise ValueError(f"{file} holds no episode in which the assistant says anything")
    drives, weights = number_columns(rows, channels), None
    said = [*joined_warnings([row.completion for row in rows]), *single_warnings(batch)]
    if not any(row.steps is not None for row in rows):
        said += short_warnings(batch)
    if progress is not None:
        progress("embedding", 0, 1)
    if fluency is not None:
        embedder = fluent(embedder, fluency, batch)
    if label is not None:
        marks = labels_of([row.numbers for row in rows], [row.labels for row in rows], label, good)
        ends = np.array([np.nan if mark is None else float(mark) for mark in marks])
        drives = np.concatenate([drives, np.stack([ends, 1.0 - ends], axis=1)], axis=1)
        weights = {**dict.fromkeys([*sentences, *channels, label], 1.0), f"not_{label}": -1.0}
        channels = [*channels, label, f"not_{label}"]
        embedder = contrasted(embedder, batch, ends)
    steps = embedder(batch.steps)
    keys = embedder(list(sentences.values())) if sentences else steps[:0]
    if progress is not None:
        progress("embedding", 1, 1)
    ends_at = dict(zip(sentences, keys, strict=True))
    return Material(rows, batch, steps, list(channels), drives, weights, sentences, ends_at, embedder, chunker, said)


def contrasted(embedder: Embedder, batch: episodes.Batch, ends: np.ndarray) -> Contrast:
    """``embedder`` with the contrast of what the policy says in good and in bad episodes beside it.

    ``ends`` is (E,) 1 for a good one, 0 for a bad one, NaN for one without a label.
    """
    of_step = np.repeat(ends, np.diff(batch.offsets))
    told = np.flatnonzero(batch.is_scored & np.isfinite(of_step))
    return Contrast(embedder).fit([batch.steps[row] for row in told], of_step[told] > 0.5)


def config_from(path: Path) -> Config:
    """The config in a JSON file, as ``sharpwave tune`` writes it."""
    try:
        return Config.from_json(path.read_text("utf-8"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"--config {path}: {error}") from None


def build(
    file: Path,
    out: Path,
    terminals: Sequence[str],
    channels: Sequence[str],
    embedder_path: str | None,
    chunker_text: str,
    fluency: str | None,
    progress: Progress,
    config_path: Path | None = None,
    roles: str | None = None,
    label: str | None = None,
    good: str | None = None,
) -> dict[str, Any]:
    """Write a store of ``file``'s episodes to the directory ``out``; returns its counts and warnings."""
    if (out / SNAPSHOT).exists():
        raise ValueError(f"{out} holds a store already")
    config = None if config_path is None else config_from(config_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        given = material(file, terminals, channels, embedder_path, chunker_text, fluency, progress, roles, label, good)
    rows, batch, steps, drives, embedder = given.rows, given.batch, given.steps, given.drives, given.embedder
    channels = given.channels
    dim = steps.shape[1]
    if config is not None and config.dim != dim:
        raise ValueError(f"--config {config_path}: it is for steps of length {config.dim}, these have {dim}")
    store = ValueStore(config or Config(dim=dim))
    with warnings.catch_warnings(record=True) as also:
        warnings.simplefilter("always")
        store.calibrate(steps, batch.offsets)
    for name, key in given.keys.items():
        store.add_terminal(name, key)
    for n, name in enumerate(channels):
        known = drives[np.isfinite(drives[:, n]), n]
        low, high = float(known.min()), float(known.max())
        store.add_channel(name, low, high if high > low else low + 1.0)
    part = 64
    became: list[np.ndarray] = []
    for first in range(0, len(rows), part):
        last = min(first + part, len(rows))
        a, b = batch.offsets[first], batch.offsets[last]
        written = store.observe(
            steps[a:b],
            batch.offsets[first : last + 1] - a,
            drives=drives[first:last] if channels else None,
            texts=batch.steps[a:b],
            source=os.fsencode(file.name).decode("utf-8", "replace"),
        )
        became.append(written.memory_ids)
        progress("observing", last, len(rows))
    if store.channels:
        store.replay()
    store.bind_embedder(embedder)
    out.mkdir(parents=True, exist_ok=True)
    store.save(out / SNAPSHOT)
    notes = {
        "embedder": getattr(embedder, "config", None),
        "chunker": getattr(given.chunker, "config", None),
        "terminals": given.sentences,
        "weights": given.weights,
        "file": str(file.resolve()),
    }
    (out / NOTES).write_text(json.dumps(notes, indent=1) + "\n", "utf-8")  # in ASCII: a path may not be UTF-8
    source, _, _ = store.edges()
    memory_ids = np.concatenate(became)
    last_drives = _coerce.drives(drives, list(channels), batch.offsets, len(steps))
    return {
        "memories": len(store),
        "associations": len(source),
        "episodes": len(rows),
        "steps": len(batch.steps),
        "different": len(np.unique(steps, axis=0)),
        "warnings": [
            *([] if store.channels else [NO_CHANNEL]),
            *given.warnings,
            *(str(w.message) for w in (*said, *also)),
            *mixed_warnings(steps, last_drives, memory_ids),
            *crowded_warnings(steps, memory_ids),
        ],
    }


def _learnable(rows: Sequence[Row], chunker: episodes.Chunker) -> tuple[list[Row], episodes.Batch]:
    """The rows that have a step to learn from, and their steps; the log names the others."""
    batch = chunk_rows(rows, chunker)
    kept = [row for row, scored in zip(rows, batch.scored, strict=True) if scored]
    for row, scored in zip(rows, batch.scored, strict=True):
        if not scored:
            _log.warning("%s: left out, the assistant says nothing in it", shown(row.place))
    return kept, batch if len(kept) == len(rows) else chunk_rows(kept, chunker)


def _embedded(
    store: ValueStore, notes: Mapping[str, Any], rows: Sequence[Row], embedder_path: str | None
) -> tuple[episodes.Batch, np.ndarray]:
    chunker = episodes.from_config(notes.get("chunker") or "sentences")
    embedder = _checked(store, embedder_from(embedder_path, notes))
    batch = chunk_rows(rows, chunker)
    return batch, embedder(batch.steps)


def score(
    path: Path, file: Path, functional: str, weights: Sequence[str], embedder_path: str | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Each episode's score, and its mean support and edge over the scored steps, None if there is nothing to score; and
    warnings."""
    store, notes = open_store(path)
    named = weights_from(weights, notes)
    rows = read_rows(file)
    batch, steps = _embedded(store, notes, rows, embedder_path)
    joined = joined_warnings([row.completion for row in rows])
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # said below
        scores = store.score(
            steps,
            batch.offsets,
            weights=named,
            functional=functional,  # pyright: ignore[reportArgumentType]
            context=batch.context,
        ).without(batch.others, functional)
    out = []
    for e, own in enumerate(batch.own()):
        text = " ".join(batch.steps[row] for row in own)
        support = float(scores.support[own].mean()) if len(own) else None
        out.append(
            {
                "episode": e,
                "score": float(scores.total[e]) if len(own) else None,
                "support": support,
                "unknown": support is not None and support < UNKNOWN,
                "edge": float(scores.edge[own].mean()) if len(own) else None,
                "steps": len(own),
                "step": [float(v) for v in scores.step[own]],
                "text": _coerce.SURROGATE.sub("\ufffd", " ".join(text.split())),
            }
        )
    return out, [*warned(store, functional, [row["unknown"] for row in out if row["steps"]]), *joined]


def warned(store: ValueStore, functional: str, is_unknown: Sequence[bool]) -> list[str]:
    """What makes scores of episodes mean little."""
    said = [] if store.channels else [NO_CHANNEL]
    if functional == "potential":
        said.append(POTENTIAL)
    few = unknown(sum(is_unknown) / max(len(is_unknown), 1), "the episodes")
    return said if few is None else [*said, few]


def explain(
    path: Path,
    file: Path,
    episode: int,
    functional: str,
    weights: Sequence[str],
    embedder_path: str | None,
    in_full: bool = False,
) -> list[str]:
    """Lines that say what paid for each step of one episode of ``file``."""
    store, notes = open_store(path)
    named = weights_from(weights, notes)
    rows = read_rows(file)
    if not 0 <= episode < len(rows):
        raise ValueError(f"--episode must lie in 0 … {len(rows) - 1}, got {episode}")
    batch, steps = _embedded(store, notes, [rows[episode]], embedder_path)
    found = store.explain(
        steps,
        batch.offsets,
        weights=named,
        functional=functional,  # pyright: ignore[reportArgumentType]
        context=batch.context,
    )
    paid = explained_without(found, batch.others, int(batch.context[0]), functional)
    if in_full:
        return explaining.full(paid, batch.steps)
    memories = {int(i): text or "" for i, text in zip(store.ids, store.texts, strict=True)}
    return explaining.brief(paid, batch.steps, batch.is_scored.tolist(), memories)


def evaluate(
    path: Path,
    file: Path,
    label: str,
    good: str | None,
    train: Path | None,
    functional: str,
    weights: Sequence[str],
    embedder_path: str | None,
    worst: int,
) -> tuple[Evaluation, list[str], list[str]]:
    """A store's evaluation on a labelled file, what the policy says in each episode, and what could not be done.

    The simpler judges learn from ``train``, by default from the file that the store was built from.
    """
    store, notes = open_store(path)
    named = weights_from(weights, notes)
    if not store.channels:
        raise ValueError(f"{path} has no channel, so every score is 0: build it with --channel or --terminal")
    rows = read_rows(file)
    labels = labels_of([row.numbers for row in rows], [row.labels for row in rows], label, good)
    noted = notes.get("file")
    source = train if train is not None or noted is None else Path(str(noted))
    said: list[str] = []
    learned: list[Row] = []
    marks: list[bool | None] = []
    if source is None or not source.is_file():
        said.append("no linear probe: the file that the store was built from is not there; give --train FILE")
    elif source.resolve() == file.resolve():
        said.append(f"{file} is what the store was built from: measure on episodes that it has not seen")
    else:
        try:
            learned = read_rows(source)
            marks = labels_of([row.numbers for row in learned], [row.labels for row in learned], label, good)
        except ValueError as error:
            learned = []
            said.append(f"no linear probe: {error}")
    chunker = episodes.from_config(notes.get("chunker") or "sentences")
    embedder = _checked(store, embedder_from(embedder_path, notes))
    plain = embedder.embedder if isinstance(embedder, Contrast) else embedder
    batch = chunk_rows(rows, chunker)
    known = None
    if learned:
        kept = [(row, mark) for row, mark in zip(learned, marks, strict=True) if mark is not None]
        taught = chunk_rows([row for row, _ in kept], chunker)
        truth = np.array([mark for _, mark in kept], bool)
        known = Known(plain(taught.steps), taught.offsets, taught.is_scored, truth)
    found = measure(
        store,
        embedder(batch.steps),
        batch.offsets,
        labels,
        weights=named,
        functional=functional,  # pyright: ignore[reportArgumentType]
        context=batch.context,
        others=batch.others,
        known=known,
        plain=plain(batch.steps),
        worst=worst,
    )
    return found, [" ".join(batch.steps[row] for row in own) for own in batch.own()], said


def inspect(path: Path, most: int = 8) -> dict[str, Any]:
    """What a store holds, as plain data."""
    store, notes = open_store(path)
    texts, ids = store.texts, store.ids
    text = {int(i): t or "" for i, t in zip(ids, texts, strict=True)}
    means = np.flatnonzero(~store.is_terminal)
    channels = []
    for q, name in enumerate(store.channels):
        value = store.values[means, q]
        best = means[np.argsort(-value, kind="stable")[:most]]
        low, high = store.channel_ranges[name]
        channels.append(
            {
                "name": name,
                "range": [round(low, 4), round(high, 4)],
                "baseline": round(float(store.baseline[q]), 4),
                "says": notes.get("terminals", {}).get(name),
                "best": [
                    {"id": int(ids[n]), "value": round(float(store.values[n, q]), 4)} | {"text": texts[n] or ""}
                    for n in best
                ],
            }
        )
    source, target, weight = store.edges()
    mass = dict(zip(ids.tolist(), store.mass.tolist(), strict=True))
    worth = np.array([w * mass[int(s)] for s, w in zip(source, weight, strict=True)])
    ways = [
        {
            "source": int(source[n]),
            "target": int(target[n]),
            "P": round(float(weight[n]), 4),
            "texts": [text[int(source[n])], text[int(target[n])]],
        }
        for n in np.argsort(-worth, kind="stable")[:most]
    ]
    return {
        "memories": len(store),
        "terminals": int(store.is_terminal.sum()),
        "steps": int(store.counts.sum()),
        "associations": len(source),
        "dim": store.dim,
        "embedder": store.embedder,
        "digest": store.digest(),
        "config": store.config.to_dict(),
        "channels": channels,
        "ways": ways,
    }


def verify(path: Path) -> str:
    """What checking every checksum of a store, and doing its journal again, came to. Damage is a FormatError."""
    if not path.exists():
        raise ValueError(f"{path}: there is no store")
    store = ValueStore.open(path, readonly=True) if path.is_dir() else ValueStore.load(path)
    found = store.recovery
    return f"{path}: intact, digest {store.digest()}" + (f"; {found}" if found else "")


def inspect_lines(facts: Mapping[str, Any]) -> list[str]:
    """`inspect`'s facts, readable."""
    out = [
        f"{facts['memories']} memories ({facts['terminals']} terminals) of {facts['steps']} steps",
        f"{facts['associations']} associations, dimension {facts['dim']}",
        f"embedder {facts['embedder'] or 'not recorded'}",
        f"digest {facts['digest']}",
    ]
    for c in facts["channels"]:
        says = f" “{c['says']}”" if c["says"] else ""
        out.append(f"\n{c['name']}{says}  range {c['range']}, ordinary value {c['baseline']}")
        out += [f"  {b['value']:.3f}  {b['text']}" for b in c["best"]]
    out.append("\nstrongest ways")
    out += [f"  {w['P']:.2f}  {w['texts'][0]} → {w['texts'][1]}" for w in facts["ways"]]
    return out


def probe(
    path: Path,
    base_file: Path | None,
    probes_file: Path | None,
    out: Path,
    embedder_path: str | None,
    progress: Progress,
) -> dict[str, Any]:
    """The exploit table on one's own store; see `sharpwave.probe.own`."""
    from sharpwave.probe.own import probe_store

    store, notes = open_store(path)
    embedder = _checked(store, embedder_from(embedder_path, notes))
    chunker = episodes.from_config(notes.get("chunker") or "sentences")
    noted = notes.get("file")
    if base_file is None and (noted is None or not Path(noted).is_file()):
        raise ValueError(f"{path} does not say what it was built from: give --base FILE")
    base = read_rows(base_file or Path(str(noted)))
    return probe_store(store, notes, embedder, chunker, base, probes_file, out, progress)
