"""What the arms of an objective are made of: base texts, demonstrations, judges, stores and probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import sharpwave as sw
from numpy.typing import NDArray
from sharpwave.episodes import Words
from sharpwave.probe.columns import Bench, Episodes
from sharpwave.probe.probes import load_probes
from sharpwave.text import Typicality, TypicalityReport

from examples.study.arms.judge_trained import TrainedJudgeArm
from examples.study.claim.gold import stories
from examples.study.gold_texts import objectives, read_demonstrations
from examples.study.judge_training import DIRECTORY, train
from examples.study.judges import BaseJudge
from examples.study.policy import Policy
from examples.study.setting import embedded, of_device, read_base

Floats = NDArray[np.float64]

CHUNKER = Words(n=8)
LEARNED = 12
"""Of an opening's 16 demonstrations, those that stores and probes are made of; the others say what is reached by texts
that the store does not know by heart."""

CHANNEL = "demonstration"


@dataclass(frozen=True, eq=False)
class Texts:
    """Openings and completions; two are the same if they are one object."""

    openings: list[str]
    completions: list[str]

    @classmethod
    def of(cls, by_opening: dict[str, list[str]]) -> Texts:
        """From completions by opening."""
        return cls([o for o, texts in by_opening.items() for _ in texts], [t for ts in by_opening.values() for t in ts])


class World(Protocol):
    """The loaded models, as an arm needs them: `examples.study.claim.sampling.World` is one.

    Attributes:
        policy: its adapter is switched off wherever the base is asked.
        base: completions of the base by opening, the scale of every term.
    """

    policy: Policy
    base: dict[str, list[str]]

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """(n, d) vectors of meaning."""
        ...

    def table(self, openings: Sequence[str], completions: Sequence[str]) -> Any:
        """What the base says of completions, the arguments of `Typicality.of_logprobs`."""
        ...

    @property
    def typicality(self) -> Typicality:
        """The gate, fitted on ``base``."""
        ...


class Materials:
    """What the arms of one objective are made of, each thing made when it is first asked for.

    Args:
        world: the loaded models.
        stories: prompts and stories of the base, which stores and probes are made of.
        judge_directory: of the trained judge.

    Attributes:
        reference: completions of the base, which say where a scale begins.
        learned: the demonstrations that stores and probes are made of.
        scale: the demonstrations that say what can be reached.
    """

    def __init__(
        self,
        objective: str,
        world: World,
        stories: list[tuple[str, str]] | None = None,
        judge_directory: Path = DIRECTORY,
    ) -> None:
        self.objective, self.world = objective, world
        self.stories = read_base() if stories is None else stories
        self.judge_directory = of_device(judge_directory, str(world.policy.device))
        self.reference = Texts.of(world.base)
        shown = read_demonstrations(objective)
        self.learned = Texts.of({o: texts[:LEARNED] for o, texts in shown.items()})
        self.scale = Texts.of({o: texts[LEARNED:] for o, texts in shown.items()})
        self._made: dict[Any, Any] = {}
        self._kept = {self.reference, self.scale}

    def keep(self, texts: Texts, **values: Any) -> None:
        """Measure ``texts`` once for all arms; ``values`` are known already, by the name of what was measured."""
        self._kept.add(texts)
        self._made |= {(name, texts): value for name, value in values.items()}

    def once(self, name: str, texts: Texts, make: Callable[[], Any]) -> Any:
        """What ``make`` makes of ``texts``; of those that are kept, once."""
        return self._keep((name, texts), make) if texts in self._kept else make()

    # The objective

    @cached_property
    def terminals(self) -> list[str]:
        """The sentences that a store and the cosine aim at."""
        own = objectives()[self.objective].get("terminals")
        return list(own or next(o for o in load_probes().objectives if o.name == self.objective).terminals)

    @cached_property
    def terminal_keys(self) -> NDArray[np.float32]:
        """(n, d) unit vectors of the terminals."""
        return unit(self.world.embed(self.terminals))

    @property
    def base(self) -> Texts:
        """The base's stories, each behind its prompt."""
        return Texts([p for p, _ in self.stories], [s for _, s in self.stories])

    # Texts as steps and vectors

    def episodes(self, texts: Texts) -> Episodes:
        """The opening as context, the completion in windows of 8 words; an empty completion is a full stop."""
        said = [c if c.split() else "." for c in texts.completions]
        return self.once("episodes", texts, lambda: embedded(self.world.embed, texts.openings, said))

    def whole(self, completions: Sequence[str]) -> NDArray[np.float32]:
        """(n, d) each completion as one unit vector."""
        return unit(self.world.embed([c if c.split() else "." for c in completions]))

    def vectors(self, texts: Texts) -> NDArray[np.float32]:
        """(n, d) each completion as the mean direction of its steps."""
        steps = self.episodes(texts)
        return unit(means(steps, steps.steps))

    # Judges and the base's reading

    def judge(self, texts: Texts) -> Floats:
        """(n,) log p(yes) of the dialogue judge."""
        made = self._keep("judge", lambda: BaseJudge(self.world.policy, "dialogue"))
        return made.all(stories(texts.openings, texts.completions))

    def trained_judge(self, texts: Texts) -> Floats:
        """(n,) log-odds of the judge that was trained on endings."""
        device = str(self.world.policy.device)
        made = self._keep("trained", lambda: TrainedJudgeArm(train(self.judge_directory, self.stories, device)))
        return made.odds(stories(texts.openings, texts.completions))

    def typical(self, texts: Texts) -> TypicalityReport:
        """T of each completion and its parts."""

        def made() -> TypicalityReport:
            table = self.world.table(texts.openings, texts.completions)
            names = {"prompts": texts.openings, "completions": texts.completions}
            return self.world.typicality.report_of_logprobs(*table, **names)

        return self.once("typicality", texts, made)

    # Made of demonstrations

    def store(self, learned: bool = True, told: bool = False) -> sw.ValueStore:
        """The tuned store of base stories, with the demonstrations in it if ``learned``; ``told`` which they are by a
        scalar channel that is driven at each of their steps."""
        return self._keep(("store", learned, told), lambda: self._store(learned, told))

    def _store(self, learned: bool, told: bool) -> sw.ValueStore:
        base, shown = self.base, self.learned if learned else Texts([], [])
        food = self.episodes(Texts(base.openings + shown.openings, base.completions + shown.completions))
        keys = {f"terminal-{n}": key for n, key in enumerate(self.terminal_keys)}
        drives: dict[str, NDArray[np.float32]] | None = None
        if told:
            drives = {CHANNEL: (food.owner >= len(base.openings)).astype(np.float32)}
        config = sw.Config(dim=food.steps.shape[1], equation="return" if told else "stopping")
        tuned = sw.tune(food.steps, food.offsets, drives=drives, terminals=keys, config=config)
        store = sw.ValueStore(tuned.config)
        for name, key in keys.items():
            store.add_terminal(name, key)
        if told:
            store.add_channel(CHANNEL, 0.0, 1.0)
        store.observe(food.steps, food.offsets, drives=drives, source="base and demonstrations")
        store.replay()
        return store

    def channel_weights(self, store: sw.ValueStore) -> NDArray[np.float32]:
        """(Q,) equal weights of the terminals; a channel of demonstrations weighs as much as all of them."""
        told = CHANNEL in store.channels
        share = 0.5 / (len(store.channels) - 1) if told else 1.0 / len(store.channels)
        return np.array([0.5 if name == CHANNEL else share for name in store.channels], np.float32)

    def view(self, learned: bool = True, told: bool = False, ablation: str = "") -> Any:
        """The frozen store, or one with something knocked out, as `sharpwave.probe.columns.Bench` names it."""
        store = self.store(learned, told)
        bench = self._keep(
            ("bench", learned, told), lambda: Bench(store.frozen(), self.channel_weights(store), self.terminal_keys)
        )
        return bench.ablation(ablation) if ablation else bench.view

    @cached_property
    def probe(self) -> Any:
        """A logistic regression on windows, demonstrations against base: told the same texts as the store."""
        from sklearn.linear_model import LogisticRegression

        base, shown = self.episodes(self.base), self.episodes(self.learned)
        windows = np.concatenate([base.steps[base.is_scored], shown.steps[shown.is_scored]])
        demonstrated = np.arange(len(windows)) >= int(base.is_scored.sum())
        return LogisticRegression(class_weight="balanced", max_iter=1000).fit(windows, demonstrated)

    def _keep(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Rows at length one."""
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def means(episodes: Episodes, values: NDArray[Any]) -> NDArray[np.float64]:
    """(E, …) the mean over each episode's scored steps of one row a step."""
    scored = episodes.is_scored
    total = np.zeros((len(episodes), *values.shape[1:]))
    np.add.at(total, episodes.owner[scored], values[scored])
    count = np.bincount(episodes.owner[scored], minlength=len(episodes))
    return total / count.reshape(-1, *[1] * (values.ndim - 1))
