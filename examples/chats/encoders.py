"""Encoders beneath a store of the support chats: MiniLM, and causal language models that read each turn in context.

    python -m examples.chats.encoders --model minilm
    python -m examples.chats.encoders --model smollm2 --layers 20 25 29 --test held_out

A store is built from ``train.jsonl`` with a contrast and a channel of bad ends, and scores the test file. Beside it
stands ridge regression of the label on the steps. Cross-validation leaves out whole topics of ``train.jsonl``: two
neighbouring chats, a good and a bad one, have one topic. One core takes minutes with SmolLM2, and more with Gemma.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sharpwave as sw
from numpy.typing import NDArray
from sharpwave._ridge import Ridge
from sharpwave.embed import Contrast, SentenceTransformer, minilm_path, smollm2_path
from sharpwave.evaluate import auc
from sharpwave.text.packages import load_language_model

HERE = Path(__file__).parent
FOLDS, REPEATS = 5, 2


@dataclass(frozen=True)
class Chats:
    """Every turn of the chats as a step."""

    steps: NDArray[np.float32]
    offsets: NDArray[np.int64]
    told: NDArray[np.bool_]
    """(ΣT,) whether the assistant says it."""
    good: NDArray[np.bool_]
    """(E,)"""

    @property
    def owner(self) -> NDArray[np.int64]:
        """(ΣT,)"""
        return np.repeat(np.arange(len(self.good)), np.diff(self.offsets))

    def only(self, chats: NDArray[np.int64]) -> Chats:
        """Some of the chats, in the order given."""
        rows = np.concatenate([np.flatnonzero(self.owner == e) for e in chats])
        offsets = np.concatenate([[0], np.cumsum(np.diff(self.offsets)[chats])])
        return Chats(self.steps[rows], offsets, self.told[rows], self.good[chats])


def read(name: str) -> list[dict[str, Any]]:
    """The chats of a file."""
    return [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text("utf-8").splitlines()]


def in_context(model: Any, tokenizer: Any, chat: Sequence[dict[str, str]], layer: int) -> NDArray[np.float32]:
    """(turns, d) the hidden state of each turn's last token, of one pass over the whole chat."""
    import torch

    text, ends = "Support chat.\n", []
    for turn in chat:
        text += f"{'Customer' if turn['role'] == 'user' else 'Assistant'}: {turn['content']}"
        ends.append(len(text))
        text += "\n"
    read_in = tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
    spans = read_in.pop("offset_mapping")[0].tolist()
    last = [max(n for n, (a, b) in enumerate(spans) if a < end and b > a) for end in ends]
    with torch.inference_mode():
        return model(**read_in, output_hidden_states=True).hidden_states[layer][0, last].float().numpy()


def chats_of(rows: Sequence[dict[str, Any]], steps: NDArray[np.float32]) -> Chats:
    """The chats with the vectors of their turns."""
    counts = [len(row["messages"]) for row in rows]
    told = [turn["role"] != "user" for row in rows for turn in row["messages"]]
    good = np.array([bool(row["resolved"]) for row in rows])
    return Chats(steps, np.concatenate([[0], np.cumsum(counts)]), np.array(told), good)


def store_of(train: Chats, test: Chats) -> NDArray[np.float64]:
    """What a store pays for the test chats."""

    numbers = [str(row) for row in np.flatnonzero(train.told)]  # the "texts" are the rows' numbers
    fitted = Contrast(lambda texts: train.steps[[int(t) for t in texts]])
    fitted.fit(numbers, train.good[train.owner[train.told]])
    other = Contrast(
        lambda texts: test.steps[[int(t) for t in texts]],
        slope=fitted.slope,
        offset=fitted.offset,
        scale=fitted.scale,
    )
    steps, asked = fitted([str(n) for n in range(len(train.steps))]), other([str(n) for n in range(len(test.steps))])
    store = sw.ValueStore(sw.Config(dim=steps.shape[1]))
    store.calibrate(steps, train.offsets, check=False)
    for name in ("good", "bad"):
        store.add_channel(name)
    store.observe(steps, train.offsets, drives={"good": 1.0 * train.good, "bad": 1.0 - train.good})
    store.replay()
    amid = np.setdiff1d(np.flatnonzero(~test.told), test.offsets[:-1])
    scores = store.score(asked, test.offsets, weights={"good": 1, "bad": -1}).without(amid, "coverage")
    return scores.total.astype(np.float64)


def ridge_of(train: Chats, test: Chats) -> NDArray[np.float64]:
    """What ridge regression of the label says of the assistant's turns, on average."""
    target = np.where(train.good[train.owner[train.told]], 1.0, -1.0)
    said = Ridge(train.steps[train.told].astype(np.float64), target)(test.steps[test.told].astype(np.float64))
    owner = test.owner[test.told]
    return np.bincount(owner, said) / np.bincount(owner)


def crossed(train: Chats) -> float:
    """The store's AUC over topics that were left out, mean over the repeats."""
    found: list[float] = []
    for seed in range(REPEATS):
        topics = np.random.default_rng(seed).permutation(len(train.good) // 2)
        scores = np.empty(len(train.good))
        for part in np.array_split(topics, FOLDS):
            here = np.sort(np.concatenate([2 * part, 2 * part + 1]))
            rest = np.setdiff1d(np.arange(len(scores)), here)
            scores[here] = store_of(train.only(rest), train.only(here))
        found.append(auc(scores, train.good))
    return float(np.mean(found))


def rows_of_layer(name: str, rows: Sequence[dict[str, Any]], layer: int, loaded: Any) -> NDArray[np.float32]:
    """The vectors of all turns."""
    if name == "minilm":
        return loaded([turn["content"] for row in rows for turn in row["messages"]])
    model, tokenizer = loaded
    return np.concatenate([in_context(model, tokenizer, row["messages"], layer) for row in rows])


def main() -> None:
    """Print one line a layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("minilm", "smollm2", "gemma"), default="minilm")
    parser.add_argument("--layers", type=int, nargs="+", default=[0])
    parser.add_argument("--test", choices=("held_out", "hard"), default="held_out")
    given = parser.parse_args()
    if given.model == "minilm":
        loaded: Any = SentenceTransformer(minilm_path())
    elif given.model == "smollm2":
        loaded = load_language_model(smollm2_path())
    else:
        from examples.study.claim.gemma import gemma

        loaded = gemma()
    if given.model != "minilm":
        loaded[0].float()
    kept, asked = read("train"), [row for row in read(given.test) if row.get("set") != "five"]
    for layer in given.layers:
        taught, tested = (rows_of_layer(given.model, rows, layer, loaded) for rows in (kept, asked))
        if given.model != "minilm":  # hidden states share a large common direction
            centre = taught.mean(axis=0)
            taught, tested = taught - centre, tested - centre
        taught, tested = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (taught, tested))
        train, test = chats_of(kept, taught), chats_of(asked, tested)
        store, ridge = auc(store_of(train, test), test.good), auc(ridge_of(train, test), test.good)
        print(
            f"{given.model} layer {layer}: store cross-validated {crossed(train):.3f}, {given.test} {store:.3f} "
            f"(bad beats good in {1 - store:.0%} of pairs), ridge regression {ridge:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
