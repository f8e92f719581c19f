"""``python -m examples.study.claim.validate``: does a gold measure see what two readers saw?

Each candidate is measured on the 200 labelled texts (`study/gold-labels`). Its AUC is the chance that it puts a text
that has the label above one that has not. A candidate of at least .9 may enter a table; the others are left out.
Candidates, labels and combinations were fixed before any run of the study's third part. Writes
`study/claim-gold.json` and the tables of docs/study-gold.md; `--table` writes the tables alone, without a model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sharpwave import evaluate

from examples.study.report import fill

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

TEXTS = Path("study/gold-texts.jsonl")
LABELS = Path("study/gold-labels")
RESULT = Path("study/claim-gold.json")
DOCUMENT = Path("docs/study-gold.md")
OBJECTIVE = "wedding"
LEAST = 0.9
RESAMPLES = 2000
CLASSES = ("wedding", "prose", "mood")
LABELLED = {
    "wedding": "a wedding is told",
    "wedding in prose": "a wedding is told, in prose",
    "prose": "reads like a piece of a story",
    "not broken": "is prose at all, damaged or not",
    "happy": "happy",
}


def read_texts(path: Path = TEXTS) -> list[dict[str, Any]]:
    """The labelled texts."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def read_labels(directory: Path = LABELS) -> NDArray[np.int64]:
    """(readers, texts, 3): wedding, prose and mood, each 0 to 2.

    Raises:
        ValueError: a reader did not label every text once.
    """
    readers = []
    for path in sorted(directory.glob("reader-*.txt")):
        rows = np.array([[int(word) for word in line.split()] for line in path.read_text("utf-8").splitlines()])
        if rows.shape[1:] != (4,) or not np.array_equal(rows[:, 0], np.arange(len(rows))):
            raise ValueError(f"{path}: a line must be the text's number and three labels, in order")
        readers.append(rows[:, 1:])
    return np.stack(readers)


def flags(labels: NDArray[np.int64]) -> dict[str, Flags]:
    """By label, (n,) which texts have it: what two readers said sums to 3 or 4; of "not broken", to 2 or more."""
    wedding, prose, mood = labels.sum(0).T
    return {
        "wedding": wedding >= 3,
        "wedding in prose": (wedding >= 3) & (prose >= 3),
        "prose": prose >= 3,
        "not broken": prose >= 2,
        "happy": mood >= 3,
    }


def auc(has: Flags, scores: Floats) -> float:
    """The chance that a text that has the label scores above one that has not; ties count one half."""
    return evaluate.auc(scores, has)


def interval(has: Flags, scores: Floats, seed: int = 0) -> tuple[float, float]:
    """Of the AUC, 95 % over texts: bootstrap within those that have the label and those that have not."""
    rng = np.random.default_rng(seed)
    yes, no = np.flatnonzero(has), np.flatnonzero(~has)
    drawn = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([rng.choice(yes, len(yes)), rng.choice(no, len(no))])
        drawn.append(auc(has[rows], scores[rows]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


# Candidates


class Context:
    """The labelled texts and, as a ruler, the base's completions, with what candidates are made of."""

    def __init__(self, openings: Sequence[str], completions: Sequence[str]) -> None:
        from examples.study.claim import gold
        from examples.study.setting import REFERENCE

        kept: dict[str, list[str]] = json.loads(REFERENCE.read_text("utf-8"))["completions"]
        self.labelled = len(openings)
        self.openings = [*openings, *(o for o, texts in kept.items() for _ in texts)]
        self.completions = [*completions, *(t for texts in kept.values() for t in texts)]
        self.stories = gold.stories(self.openings, self.completions)

    @cached_property
    def base(self) -> slice:
        """The rows of the base's completions."""
        return slice(self.labelled, None)

    def scale(self, values: Floats) -> list[float]:
        """Mean and standard deviation over the base."""
        return [float(values[self.base].mean()), float(values[self.base].std())]

    def z(self, values: Floats) -> Floats:
        """In standard deviations of the base."""
        return (values - values[self.base].mean()) / max(float(values[self.base].std()), 1e-9)

    def usual(self, values: Floats) -> Flags:
        """Whether each is at least what 95 % of the base's completions have."""
        return values >= np.quantile(values[self.base], 0.05)

    @cached_property
    def words(self) -> Floats:
        from examples.study.claim import gold

        return gold.words(OBJECTIVE, self.stories)

    @cached_property
    def encoder(self) -> Floats:
        from examples.study.claim import gold

        return gold.encoder_objective(OBJECTIVE, self.stories, gold.encoded(self.stories[self.base]).mean(0))

    @cached_property
    def encoder_mood(self) -> Floats:
        from examples.study.claim import gold

        return gold.encoder_mood(self.stories)

    @cached_property
    def vader(self) -> Floats:
        from examples.study.claim import gold

        return gold.vader(self.stories)

    @cached_property
    def fluency(self) -> Floats:
        from examples.study.claim import gold

        return gold.log_probability(self.openings, self.completions)

    @cached_property
    def typical(self) -> Floats:
        from examples.study.claim import gold
        from examples.study.setting import PROMPT

        _, surprise, _, entropy, varentropy = gold.readings(PROMPT, self.openings, self.completions).T
        return -np.abs((surprise - entropy) / np.sqrt(np.maximum(varentropy, 1e-9)))

    @cached_property
    def variety(self) -> Floats:
        from examples.study.claim import gold

        return gold.variety(self.completions)

    @cached_property
    def likelier_objective(self) -> Floats:
        from examples.study.claim import gold
        from examples.study.setting import PROMPT

        asked = gold.objectives()[OBJECTIVE]["ask"]
        return gold.likelier(asked, PROMPT, self.openings, self.completions)

    @cached_property
    def likelier_happy(self) -> Floats:
        from examples.study.claim import gold

        return gold.likelier(gold.HAPPY, gold.SAD, self.openings, self.completions)

    @cached_property
    def first_study(self) -> dict[str, Floats]:
        """The first study's own measures: hidden states of the base model, and its few-shot judge."""
        from examples.study import gold as first
        from examples.study.config import load
        from examples.study.prepare import language_model

        policy = language_model(load("judge"), 0, "cpu")
        made = first.Gold.of(policy, first.read(), OBJECTIVE, self.stories[self.base])
        blocks = [made(self.stories[n : n + 16]) for n in range(0, len(self.stories), 16)]
        return {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]}


@dataclass(frozen=True)
class Candidate:
    """A measure that might be gold for some labels; ``score`` is (n,) over labelled texts and base alike."""

    name: str
    labels: tuple[str, ...]
    about: str
    score: Callable[[Context], Floats]


def gate(context: Context, values: Floats, *gates: Floats) -> Floats:
    """``values`` where every gate is as high as in 95 % of the base's completions, else their lowest."""
    return np.where(np.all([context.usual(g) for g in gates], axis=0), values, values.min())


TOLD = ("wedding", "wedding in prose")
READS = ("prose", "not broken")
CANDIDATES = (
    Candidate("words", TOLD, "a word of the objective's list", lambda c: (c.words > 0).astype(np.float64)),
    Candidate("word count", TOLD, "different words of the list", lambda c: c.words),
    Candidate("encoder", TOLD, "WordLlama: cosine to the objective in other words", lambda c: c.encoder),
    Candidate(
        "hidden states",
        TOLD,
        "the first study's: layer 10 of the base, cosine to the same sentences",
        lambda c: c.first_study["objective"],
    ),
    Candidate(
        "likelier as a wedding", TOLD, "Gemma: nats gained by asking for a wedding", lambda c: c.likelier_objective
    ),
    Candidate(
        "words + encoder",
        TOLD,
        "sum of both in sd of the base",
        lambda c: c.z((c.words > 0).astype(np.float64)) + c.z(c.encoder),
    ),
    Candidate(
        "words + likelier",
        TOLD,
        "sum of both in sd of the base",
        lambda c: c.z((c.words > 0).astype(np.float64)) + c.z(c.likelier_objective),
    ),
    Candidate(
        "words and fluency",
        TOLD,
        "a word of the list, and fluency as in 95 % of the base",
        lambda c: gate(c, (c.words > 0).astype(np.float64), c.fluency),
    ),
    Candidate(
        "words, fluency and variety",
        TOLD,
        "the same, and variety as in 95 % of the base",
        lambda c: gate(c, (c.words > 0).astype(np.float64), c.fluency, c.variety),
    ),
    Candidate("fluency", READS, "Gemma: mean log-probability of a token", lambda c: c.fluency),
    Candidate("typical for Gemma", READS, "−|z|, z the surprise beyond Gemma's entropy", lambda c: c.typical),
    Candidate("variety", READS, "different bigrams over all bigrams of the text", lambda c: c.variety),
    Candidate(
        "fluency and variety",
        READS,
        "the lower of both in sd of the base",
        lambda c: np.minimum(c.z(c.fluency), c.z(c.variety)),
    ),
    Candidate(
        "fluency, typical and variety",
        READS,
        "the lowest of the three in sd of the base",
        lambda c: np.minimum.reduce([c.z(c.fluency), c.z(c.typical), c.z(c.variety)]),
    ),
    Candidate("VADER", ("happy",), "the lexicon's compound score", lambda c: c.vader),
    Candidate("encoder mood", ("happy",), "WordLlama: direction from unhappy to happy", lambda c: c.encoder_mood),
    Candidate(
        "hidden mood",
        ("happy",),
        "the first study's: the same in layer 10 of the base",
        lambda c: c.first_study["mood"],
    ),
    Candidate(
        "few-shot judge",
        ("happy",),
        "the first study's: log-odds of the base's yes",
        lambda c: c.first_study["judge_fewshot"],
    ),
    Candidate(
        "likelier as happy", ("happy",), "Gemma: nats between asking for happy and sad", lambda c: c.likelier_happy
    ),
    Candidate(
        "VADER + encoder mood",
        ("happy",),
        "sum of both in sd of the base",
        lambda c: c.z(c.vader) + c.z(c.encoder_mood),
    ),
    Candidate(
        "VADER + likelier as happy",
        ("happy",),
        "sum of both in sd of the base",
        lambda c: c.z(c.vader) + c.z(c.likelier_happy),
    ),
    Candidate(
        "VADER + encoder mood + likelier as happy",
        ("happy",),
        "sum of the three in sd of the base",
        lambda c: c.z(c.vader) + c.z(c.encoder_mood) + c.z(c.likelier_happy),
    ),
)


# What comes of it


def agreement(labels: NDArray[np.int64]) -> dict[str, dict[str, float]]:
    """By class, how often two readers gave the same label, and Cohen's kappa with quadratic weights."""
    from sklearn.metrics import cohen_kappa_score

    one, two = labels[0], labels[1]
    return {
        name: {
            "same": float((one[:, k] == two[:, k]).mean()),
            "kappa": float(cohen_kappa_score(one[:, k], two[:, k])),
            "weighted_kappa": float(cohen_kappa_score(one[:, k], two[:, k], weights="quadratic")),
        }
        for k, name in enumerate(CLASSES)
    }


def hits(texts: Sequence[Mapping[str, Any]], told: Flags) -> dict[str, Any]:
    """Texts that the word list takes for a wedding and readers do not, with the words, and those that it misses."""
    from examples.study.claim import gold

    said = [gold.found(OBJECTIVE, f"{t['opening']} {t['text']}") for t in texts]
    false = [
        {"text": t["number"], "kind": t["kind"], "words": words}
        for t, words, has in zip(texts, said, told, strict=True)
        if words and not has
    ]
    missed = [
        {"text": t["number"], "kind": t["kind"]}
        for t, words, has in zip(texts, said, told, strict=True)
        if has and not words
    ]
    return {"hits": sum(map(bool, said)), "false": false, "missed": missed}


def validate() -> dict[str, Any]:
    """Everything, from the labelled texts."""
    texts, labels = read_texts(), read_labels()
    has = flags(labels)
    context = Context([t["opening"] for t in texts], [t["text"] for t in texts])
    rows = []
    for candidate in CANDIDATES:
        scores = np.asarray(candidate.score(context), np.float64)[: context.labelled]
        for label in candidate.labels:
            area = round(auc(has[label], scores), 4)
            low, high = interval(has[label], scores)
            rows.append(
                {
                    "measure": candidate.name,
                    "label": label,
                    "about": candidate.about,
                    "auc": area,
                    "interval": [round(low, 4), round(high, 4)],
                    "taken": bool(area >= LEAST),
                }
            )
            print(f"{label}: {candidate.name} {area:.3f} ({low:.3f} … {high:.3f})", flush=True)
    return {
        "texts": len(texts),
        "least": LEAST,
        "agreement": agreement(labels),
        "labelled": {name: int(which.sum()) for name, which in has.items()},
        "candidates": rows,
        "words": hits(texts, has["wedding"]),
        "scales": {name: context.scale(getattr(context, name)) for name in ("fluency", "variety")},
    }


def agreement_table(found: Mapping[str, Any]) -> str:
    """How far the readers agree."""
    lines = ["| label | same | kappa | kappa, weighted |", "|---|---|---|---|"]
    for name, row in found["agreement"].items():
        lines.append(f"| {name} | {row['same']:.0%} | {row['kappa']:.2f} | {row['weighted_kappa']:.2f} |")
    return "\n".join(lines)


def table(found: Mapping[str, Any]) -> str:
    """The candidates by label, the best first."""
    lines = ["| label | texts | measure | what it is | AUC (95 %) | enters tables |", "|---|---|---|---|---|---|"]
    for label, about in LABELLED.items():
        rows = [row for row in found["candidates"] if row["label"] == label]
        for row in sorted(rows, key=lambda row: -row["auc"]):
            low, high = row["interval"]
            lines.append(
                f"| {about} | {found['labelled'][label]} | {row['measure']} | {row['about']} | "
                f"{row['auc']:.4f} ({low:.3f} … {high:.3f}) | {'yes' if row['taken'] else 'no'} |"
            )
    return "\n".join(lines)


def words_table(found: Mapping[str, Any]) -> str:
    """What the word list gets wrong."""
    words = found["words"]
    lines = ["| text | kind | words | |", "|---|---|---|---|"]
    lines += [f"| {w['text']} | {w['kind']} | {', '.join(w['words'])} | false hit |" for w in words["false"]]
    lines += [f"| {w['text']} | {w['kind']} | | missed |" for w in words["missed"]]
    return "\n".join(lines)


def write(found: Mapping[str, Any], document: Path) -> None:
    """The tables into the document."""
    text = document.read_text("utf-8")
    for name, content in (
        ("agreement", agreement_table(found)),
        ("candidates", table(found)),
        ("words", words_table(found)),
    ):
        text = fill(text, name, content)
    document.write_text(text, "utf-8")


def main() -> None:
    """Validate, keep what was found, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="write the tables from the kept result alone")
    options = parser.parse_args()
    if not options.table:
        found = validate()
        RESULT.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", "utf-8")
    write(json.loads(RESULT.read_text("utf-8")), DOCUMENT)


if __name__ == "__main__":
    main()
