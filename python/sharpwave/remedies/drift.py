"""How far a policy has gone from its base, read off each batch that it is trained on: a monitor, not a reward.

    distance   mean over completions of (D − μ₀)/σ₀: D is the Mahalanobis distance of a completion's embedding from the
               base samples (`sharpwave.divergence`), μ₀ and σ₀ are of base samples left out of the fit
    support    mean support σ̄ under a frozen store, over what it was at the start
    distinct_2 different bigrams of words over all of them, over the same of base samples: as many, of the same prompts
               where there are any, each pair of texts cut to the shorter one
    gap        the smaller of the farthest rise and the farthest fall of the reward's parts since the start, in standard
               deviations of their completions then; 0 where none rises or none falls
    empty      share of completions that have nothing to embed

`start` means the first batches of a run, four by default.
"""

from __future__ import annotations

import json
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._files import write_whole
from sharpwave._fork import renewed_in_children
from sharpwave._names import bound_name
from sharpwave.divergence import Reference, mahalanobis
from sharpwave.remedies.parts import Start, Watched
from sharpwave.reward import InstrumentalReward, ranks
from sharpwave.reward.base import groups
from sharpwave.reward.measure import Scorable
from sharpwave.text.chunkers import Chunker, Sentences, Text, chunk_batch, completion_text, pairs
from sharpwave.text.embedders import Embedder, as_embedder
from sharpwave.view import View

Floats = NDArray[np.float64]
Reading = dict[str, float]

MONITORS = ("distance", "support", "distinct_2", "gap", "empty")
LIMITS: dict[str, float] = {"distance": 2.0, "support": 0.5, "distinct_2": 0.6, "gap": 1.0, "empty": 0.5}
"""What a run may reach: at most, or of the monitors in `LOW`, at least."""
LOW = frozenset({"support", "distinct_2"})
WORD = re.compile(r"\w+(?:['’]\w+)?")
LEAST = 4
"""Base samples below which there is no spread to speak of."""
FOLDS = 8
DRAWS = 8
STATE = "drift.json"


class Drift:
    """Monitors of drift, as a reward function that pays nothing; `readings` has one entry a training batch.

    >>> drift = Drift((prompts, completions), embedder, store=store)
    >>> GRPOTrainer(model, reward_funcs=[drift.watch(judge), drift], args=GRPOConfig(reward_weights=[1.0, 0.0], …), …)

    It comes last among the reward functions, to see what the others gave. What it reads is logged under its name. In
    evaluation it logs and keeps nothing.

    Args:
        base: prompts and completions of the base policy; 16 or more, a few hundred are better.
        embedder: texts to vectors; a bare callable is one.
        chunker: completions to steps; sentences by default. A completion is the mean direction of its steps.
        store: what support is read from, as it is now; with None there is no such monitor.
        start: how many batches the start of a run is.
        seed: of the base samples that bigrams are compared with.
        name: the function's ``__name__``; it logs under it.

    Attributes:
        readings: by batch, what was read: ``step`` (the trainer's, or a count of batches) and those of `MONITORS` that
            there was something to read for; ``gap`` and ``support`` begin after the start.

    Raises:
        ValueError: fewer than four base samples that can be embedded, or all alike; a number out of range.
        sharpwave.EmbedderError: the store was filled with another embedder.
    """

    def __init__(
        self,
        base: tuple[Sequence[Text | None], Sequence[Text]],
        embedder: Embedder | Callable[[list[str]], Any],
        chunker: Chunker | None = None,
        *,
        store: View | None = None,
        start: int = 4,
        seed: int = 0,
        name: str = "drift",
    ) -> None:
        if start < 1:
            raise ValueError(f"start must be at least 1, got {start}")
        self.embedder: Embedder = as_embedder(embedder)
        self.chunker: Chunker = Sentences() if chunker is None else chunker
        self.view = None if store is None else store.frozen()
        self.start = start
        self.seed = seed
        self.name = name
        self.__name__ = name
        prompts, completions = pairs(*base)
        if self.view is not None:
            bound_name(self.view, self.embedder)
        self._dim = self._measure_dim(prompts, completions)
        rows = self._embed(prompts, completions).vectors()
        rows = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
        if len(rows) < LEAST:
            raise ValueError(f"base has {len(rows)} completions that can be embedded; at least {LEAST} are needed")
        self.reference = Reference(rows)
        self.centre, self.spread = held_out(rows)
        self._words = [words(text) for text in completions]
        self._of_prompt = {key: members.tolist() for key, members in groups(prompts).items()}
        self._watched: list[Watched] = []
        self._support = Start(start)
        self.training: bool | None = None
        self.readings: list[Reading] = []
        self._begin()

    def _begin(self) -> None:
        self._after_fork()
        renewed_in_children(self)
        self._model: Callable[[], Any] = lambda: None

    # What a trainer calls

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A reward function that is ``function``, and of which `gap` knows.

        Of an `InstrumentalReward`, its terms are the parts; of any other, its values are one. Give the trainer what is
        returned (or ``function`` itself where it is an `InstrumentalReward`, whose callback wants the object).
        """
        watched = Watched(function, self.start)
        if any(w.__name__ == watched.__name__ for w in self._watched):
            raise ValueError(f"{watched.__name__!r} is watched already: give the function another __name__")
        self._watched.append(watched)
        return function if isinstance(function, InstrumentalReward) else watched

    def __call__(self, prompts: Any = None, completions: Any = None, **given: Any) -> list[float]:
        """The reward function of TRL: zeros; everything it reads goes to ``log_metric``."""
        if completions is None:
            raise TypeError("a reward function needs completions=")
        prompts = [None] * len(completions) if prompts is None else prompts
        log_metric = given.get("log_metric")
        late = next((w for w in self._watched if not w.called(completions)), None)
        if late is not None:
            raise ValueError(
                f"{self.name} watches {late.__name__!r}, which was not called before it: give the trainer what watch() "
                f"returned, and {self.name} as the last of its reward functions"
            )
        with self._lock:
            training = self._training(log_metric)
            reading = self.read(prompts, completions, keep=training)
            if training:
                step = getattr(given.get("trainer_state"), "global_step", None)
                self.readings.append({"step": float(len(self.readings) if step is None else step), **reading})
        if log_metric is not None:
            for monitor, value in reading.items():
                log_metric(f"{self.name}/{monitor}", value)
        return [0.0] * len(completions)

    def read(self, prompts: Sequence[Text | None], completions: Sequence[Text], *, keep: bool = False) -> Reading:
        """The monitors of a batch; with several ranks, the mean over them, which all of them must ask for.

        Args:
            prompts, completions: E of each.
            keep: whether the batch counts for the start of the run.
        """
        parts = [watched.parts(prompts, completions) for watched in self._watched]
        prompts, completions = pairs(prompts, completions)
        found = self._embed(prompts, completions)
        out: Reading = {"empty": float(1.0 - found.kept.mean()) if len(completions) else 0.0}
        rows = found.vectors()
        rows = rows[np.isfinite(rows).all(axis=1)]
        if len(rows):
            distance = mahalanobis(rows, self.reference).per_sample
            out["distance"] = float((distance - self.centre).mean() / self.spread)
        repeated = self._repetition(prompts, completions)
        if repeated is not None:
            out["distinct_2"] = repeated
        supports = np.empty(0)
        if self.view is not None and len(found.steps):
            scores = self.view.score(found.steps, found.offsets, context=found.context)
            supports = found.means(scores.support)
        out, supports, parts = over_ranks(out, supports, parts)
        if len(supports) and self._support.over:
            out["support"] = float(supports.mean()) / max(self._support.constants.mean, 1e-12)
        elif keep:
            self._support.add(supports)
        moves = [z for watched, these in zip(self._watched, parts, strict=True) for z in watched.moved(these, keep)]
        if moves:
            out["gap"] = max(0.0, min(max(moves), -min(moves)))
        return {name: out[name] for name in MONITORS if name in out}

    def _measure_dim(self, prompts: Sequence[Text | None], completions: Sequence[Text]) -> int:
        if self.view is not None:
            return self.view.dim
        steps = chunk_batch(self.chunker, prompts, completions).steps
        return int(np.asarray(self.embedder(steps[:1])).shape[1]) if steps else 1

    def _embed(self, prompts: Sequence[Text | None], completions: Sequence[Text]) -> Scorable:
        return Scorable.of(chunk_batch(self.chunker, prompts, completions), self.embedder, self._dim)

    def _repetition(self, prompts: Sequence[Text | None], completions: Sequence[Text]) -> float | None:
        """distinct-2 over that of base samples; None where no two texts have a bigram."""
        rng = np.random.default_rng([self.seed, len(self.readings)])
        mine = [words(text) for text in completions]
        here, there = 0, 0
        for _ in range(DRAWS):
            theirs: list[list[str]] = [[] for _ in mine]  # without a partner, a text does not count
            for row, n in self._partners(prompts, rng):
                theirs[row] = self._words[n]
            cut = [(a[: min(len(a), len(b))], b[: min(len(a), len(b))]) for a, b in zip(mine, theirs, strict=True)]
            here += distinct([a for a, _ in cut])
            there += distinct([b for _, b in cut])
        return here / there if there else None

    def _partners(self, prompts: Sequence[Text | None], rng: np.random.Generator) -> Iterator[tuple[int, int]]:
        """A base sample for each row, none of them twice: of its prompt, else any that is left."""
        left = {int(n) for n in range(len(self._words))}
        alone: list[int] = []
        for key, members in groups(prompts).items():
            pool = rng.permutation(self._of_prompt.get(key, [])).astype(int).tolist()
            for row, n in zip(members.tolist(), pool, strict=False):
                left.discard(n)
                yield row, n
            alone += members.tolist()[len(pool) :]
        yield from zip(alone, rng.permutation(sorted(left)).astype(int).tolist(), strict=False)

    # Training or not

    def train(self, mode: bool | None = True) -> None:
        """Say that what follows is training, or is not; None: ask the trainer."""
        self.training = mode

    def _training(self, log_metric: Any) -> bool:
        """TRL calls the same function in evaluation and says nothing: its model knows."""
        if self.training is not None:
            return self.training
        model = getattr(getattr(log_metric, "__self__", None), "model", None)
        return bool(getattr(self._model() if model is None else model, "training", True))

    def follow(self, model: Any) -> None:
        """Where to look for the mode, with trainers that pass no ``log_metric``; `EarlyStop` says it."""
        self._model = weakref.ref(model)

    # Keeping it

    def state_dict(self) -> dict[str, Any]:
        """What a run has added: the readings, and what the start was like."""
        return {
            "readings": [dict(reading) for reading in self.readings],
            "support": self._support.to_dict(),
            "watched": {w.__name__: w.to_dict() for w in self._watched},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; a function that is watched now and was not then begins anew."""
        with self._lock:
            self.readings = [dict(reading) for reading in state["readings"]]
            self._support = Start.from_dict(state["support"])
            for watched in self._watched:
                watched.load(state["watched"].get(watched.__name__, {}))

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write `state_dict` to ``drift.json`` in a directory, made if missing; returns the file."""
        path = Path(directory) / STATE
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(self.state_dict()) + "\n")
        return path

    def restore(self, directory: str | os.PathLike[str]) -> None:
        """The inverse of `save`.

        Raises:
            FileNotFoundError: nothing was saved there.
        """
        path = Path(directory) / STATE
        if not path.is_file():
            raise FileNotFoundError(f"no drift was saved in {directory}: {STATE} is missing")
        self.load_state_dict(json.loads(path.read_text("utf-8")))

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_model")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __repr__(self) -> str:
        return f"Drift({len(self.reference)} base samples, {len(self.readings)} readings)"


def held_out(rows: Floats) -> tuple[float, float]:
    """Mean and deviation of the distance of base samples (n, d) from a Gaussian of the others, an eighth at a time.

    Raises:
        ValueError: the rows are all alike.
    """
    if not np.ptp(rows, axis=0).any():
        raise ValueError("the base samples are all alike: there is no spread to measure drift in")
    fold = np.arange(len(rows)) % min(FOLDS, len(rows))
    found = [mahalanobis(rows[fold == k], rows[fold != k]).per_sample for k in range(int(fold.max()) + 1)]
    distances = np.concatenate(found)
    spread = float(distances.std())
    if spread <= 1e-9 * float(distances.mean()):
        raise ValueError("the base samples are all alike: there is no spread to measure drift in")
    return float(distances.mean()), spread


def words(text: Text) -> list[str]:
    """Lower-case words and numbers of a completion."""
    return WORD.findall(completion_text(text).lower())


def distinct(texts: Sequence[Sequence[str]]) -> int:
    """How many different bigrams."""
    return len({pair for text in texts for pair in pairwise(text)})


Parts = list[dict[str, Floats]]


def over_ranks(reading: Reading, supports: Floats, parts: Parts) -> tuple[Reading, Floats, Parts]:
    """What all ranks read: the mean of each number, the values end to end. One process: its own."""
    if ranks.count() == 1:
        return reading, supports, parts
    everyone = ranks.exchanged((reading, supports, parts))
    readings = [one for one, _, _ in everyone]
    names = {name for one in readings for name in one}
    mean = {name: float(np.mean([one[name] for one in readings if name in one])) for name in sorted(names)}
    joined: Parts = []
    for mine in zip(*(theirs for _, _, theirs in everyone), strict=True):
        known = sorted({part for one in mine for part in one})
        joined.append({part: np.concatenate([one[part] for one in mine if part in one]) for part in known})
    return mean, np.concatenate([theirs for _, theirs, _ in everyone]), joined
